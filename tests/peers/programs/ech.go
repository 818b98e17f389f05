// An HTTPS server of Go's own TLS that does Encrypted ClientHello: ech OPTIONS, a JSON object (see the type).
// It tells its port, answers every request with what it knows of the connection, as JSON, and ends with its input.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

type key struct {
	Config  string `json:"config"`
	Private string `json:"private"`
	Retry   bool   `json:"retry"`
}

type options struct {
	Certificates []string `json:"certificates"` // PEM files, with their keys
	Keys         []key    `json:"keys"`
	// What is sent to try again with, if not the configs of Keys: not looked at, so it may be anything.
	Retries []string      `json:"retries"`
	Curves  []tls.CurveID `json:"curves"`
	Maximum uint16        `json:"maximum"`
	// Browsers come again at once.
	Refresh bool `json:"refresh"`
}

type report struct {
	Server     string   `json:"server"`
	Accepted   bool     `json:"accepted"`
	Resumed    bool     `json:"resumed"`
	Retried    bool     `json:"retried"`
	Suites     []uint16 `json:"suites"`
	Extensions []uint16 `json:"extensions"`
}

func decode(text string) []byte {
	data, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return data
}

func main() {
	var given options
	if err := json.Unmarshal([]byte(os.Args[1]), &given); err != nil {
		panic(err)
	}
	config := &tls.Config{
		NextProtos: []string{"http/1.1"}, CurvePreferences: given.Curves, MaxVersion: given.Maximum,
	}
	for _, path := range given.Certificates {
		pair, err := tls.LoadX509KeyPair(path, path)
		if err != nil {
			panic(err)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	for _, each := range given.Keys {
		config.EncryptedClientHelloKeys = append(config.EncryptedClientHelloKeys, tls.EncryptedClientHelloKey{
			Config: decode(each.Config), PrivateKey: decode(each.Private), SendAsRetry: each.Retry})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("PORT %d\n", listener.Addr().(*net.TCPAddr).Port)
	// One configuration with its ticket keys for all connections, so that they resume.
	var ticket [32]byte
	config.SetSessionTicketKeys([][32]byte{ticket})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(client, config, given)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}

func serve(raw net.Conn, shared *tls.Config, given options) {
	config := shared.Clone()
	var told report
	var once sync.Mutex
	asked := 0
	if given.Retries != nil {
		// It is asked for keys to decrypt with, and then for those to send.
		config.GetEncryptedClientHelloKeys = func(*tls.ClientHelloInfo) ([]tls.EncryptedClientHelloKey, error) {
			once.Lock()
			defer once.Unlock()
			asked++
			if asked == 1 {
				return config.EncryptedClientHelloKeys, nil
			}
			var keys []tls.EncryptedClientHelloKey
			for _, each := range given.Retries {
				keys = append(keys, tls.EncryptedClientHelloKey{Config: decode(each), SendAsRetry: true})
			}
			return keys, nil
		}
	}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		told.Suites, told.Extensions = hello.CipherSuites, hello.Extensions
		return nil, nil
	}
	client := tls.Server(raw, config)
	defer client.Close()
	client.SetDeadline(time.Now().Add(10 * time.Second))
	reader := bufio.NewReader(client)
	for {
		line, err := reader.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" {
			break
		}
	}
	state := client.ConnectionState()
	told.Server, told.Accepted, told.Resumed = state.ServerName, state.ECHAccepted, state.DidResume
	told.Retried = state.HelloRetryRequest
	body, _ := json.Marshal(told)
	more := ""
	if given.Refresh {
		more = "Refresh: 0\r\nContent-Type: text/html\r\n"
	}
	fmt.Fprintf(client, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s", len(body), more, body)
}
