// A resolver for a browser under test, by DNS over HTTPS: doh CERTIFICATE.pem CONFIGS PORT HOST. Every name is this
// machine; every HTTPS record (RFC 9460) has the ECHConfigList CONFIGS, in hexadecimal, and leads to HOST on PORT.
// It tells its port, and ends with its input.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
)

const (
	typeA     = 1
	typeHTTPS = 65

	keyALPN = 1
	keyPort = 3
	keyIPv4 = 4
	keyECH  = 5
)

func main() {
	configs, err := hex.DecodeString(os.Args[2])
	if err != nil {
		panic(err)
	}
	port, err := strconv.Atoi(os.Args[3])
	if err != nil {
		panic(err)
	}
	record := service(os.Args[4], uint16(port), configs)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("PORT %d\n", listener.Addr().(*net.TCPAddr).Port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	panic(http.ServeTLS(listener, http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		query, err := io.ReadAll(io.LimitReader(request.Body, 1<<16))
		if request.Method == http.MethodGet {
			query, err = base64.RawURLEncoding.DecodeString(request.URL.Query().Get("dns"))
		}
		reply := answer(query, record)
		if err != nil || reply == nil {
			writer.WriteHeader(http.StatusBadRequest)
			return
		}
		writer.Header().Set("Content-Type", "application/dns-message")
		writer.Write(reply)
	}), os.Args[1], os.Args[1]))
}

// service returns the data of an HTTPS record.
func service(host string, port uint16, configs []byte) []byte {
	data := []byte{0, 1}
	for _, label := range strings.Split(host, ".") {
		data = append(append(data, byte(len(label))), label...)
	}
	data = append(data, 0)
	parameter := func(key uint16, value []byte) {
		data = binary.BigEndian.AppendUint16(data, key)
		data = binary.BigEndian.AppendUint16(data, uint16(len(value)))
		data = append(data, value...)
	}
	parameter(keyALPN, []byte("\x08http/1.1"))
	parameter(keyPort, binary.BigEndian.AppendUint16(nil, port))
	parameter(keyIPv4, []byte{127, 0, 0, 1})
	parameter(keyECH, configs)
	return data
}

// answer returns the reply to a query with one question, or nil.
func answer(query []byte, record []byte) []byte {
	end := 12
	for end < len(query) && query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5
	if end > len(query) {
		return nil
	}
	kind := binary.BigEndian.Uint16(query[end-4:])
	var data []byte
	switch kind {
	case typeA:
		data = []byte{127, 0, 0, 1}
	case typeHTTPS:
		data = record
	}
	reply := append([]byte{query[0], query[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, query[12:end]...)
	if data == nil {
		return reply
	}
	reply[7] = 1
	reply = append(reply, 0xc0, 12) // the question's name
	reply = binary.BigEndian.AppendUint16(reply, kind)
	reply = append(reply, 0, 1, 0, 0, 1, 0) // IN, 256 s
	reply = binary.BigEndian.AppendUint16(reply, uint16(len(data)))
	return append(reply, data...)
}
