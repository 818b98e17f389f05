// net/http's default transport: fetch HOST PORT TIMES. SSL_CERT_FILE names the authority.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	host, port := os.Args[1], os.Args[2]
	times, _ := strconv.Atoi(os.Args[3])
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	for range times {
		response, err := client.Get(fmt.Sprintf("https://%s:%s/", host, port))
		if err != nil {
			continue // the server may hang up
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}
