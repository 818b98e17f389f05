import java.io.FileInputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.security.KeyStore;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** An HTTPS server of the JDK's own TLS: Serve.java KEYSTORE.p12 PASSWORD. It tells its port, and ends with its input. */
public class Serve {
    public static void main(String[] args) throws Exception {
        KeyStore keys = KeyStore.getInstance("PKCS12");
        try (InputStream file = new FileInputStream(args[0])) {
            keys.load(file, args[1].toCharArray());
        }
        KeyManagerFactory managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        managers.init(keys, args[1].toCharArray());
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(managers.getKeyManagers(), null, null);
        SSLServerSocket listener = (SSLServerSocket)
            context.getServerSocketFactory().createServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
        System.out.println("PORT " + listener.getLocalPort());
        Thread accepting = new Thread(() -> accept(listener));
        accepting.setDaemon(true);
        accepting.start();
        while (System.in.read() >= 0) { }
    }

    private static void accept(SSLServerSocket listener) {
        while (true) {
            try (SSLSocket client = (SSLSocket) listener.accept()) {
                client.setSoTimeout(10_000);
                client.startHandshake();
                InputStream in = client.getInputStream();
                for (int line = 0, next; (next = in.read()) >= 0 && !(next == '\n' && line == 0); ) {
                    line = next == '\n' ? 0 : next == '\r' ? line : line + 1;
                }
                String body = client.getSession().getProtocol() + "\n";
                OutputStream out = client.getOutputStream();
                out.write(("HTTP/1.1 200 OK\r\nContent-Length: " + body.length()
                    + "\r\nConnection: close\r\n\r\n" + body).getBytes("US-ASCII"));
            } catch (Exception failed) {
                System.err.println(failed);
            }
        }
    }
}
