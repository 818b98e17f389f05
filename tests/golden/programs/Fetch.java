import java.io.IOException;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;

/** HttpClient or HttpsURLConnection with the default context: Fetch.java client|connection HOST PORT TIMES. */
public class Fetch {
    public static void main(String[] args) throws Exception {
        URI uri = URI.create("https://" + args[1] + ":" + args[2] + "/");
        for (int i = 0; i < Integer.parseInt(args[3]); i++) {
            try {
                if (args[0].equals("client")) {
                    // A new one each time: it remembers who spoke HTTP/1.1, and leaves ALPN out the next time.
                    // Sessions are the default context's, and stay.
                    HttpClient client = HttpClient.newHttpClient();
                    HttpRequest request = HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds(10)).build();
                    client.send(request, HttpResponse.BodyHandlers.discarding());
                } else {
                    HttpURLConnection connection = (HttpURLConnection) uri.toURL().openConnection();
                    connection.setReadTimeout(10_000);
                    connection.getInputStream().readAllBytes();
                }
            } catch (IOException expected) {
                // The server may hang up.
            }
        }
    }
}
