// Command origin is a server of the end-to-end tests: net/http over HTTP/1.1
// and HTTP/2 without TLS, with a gRPC method, and a line of its log for each
// request it served.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: origin LISTEN LOG")
	}
	served, err := os.OpenFile(os.Args[2], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/shop.Stock/", stock)
	mux.HandleFunc("/", thing)
	server := http.Server{Addr: os.Args[1], Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mux.ServeHTTP(w, r)
		fmt.Fprintf(served, "%s %s\n", r.Method, r.URL.Path)
	})
	log.Fatal(server.ListenAndServe())
}

// thing answers 1000 bytes after it has read the body.
func thing(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	if strings.HasPrefix(r.URL.Path, "/none") {
		http.NotFound(w, r)
		return
	}
	io.WriteString(w, strings.Repeat("x", 1000))
}

// stock is a gRPC service: each message of the stream is sent back, and one
// that says "none" ends the call with NOT_FOUND.
func stock(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	status := "0"
	for head := [5]byte{}; ; {
		if _, err := io.ReadFull(r.Body, head[:]); err != nil {
			break
		}
		message := make([]byte, min(binary.BigEndian.Uint32(head[1:]), 1<<16))
		if _, err := io.ReadFull(r.Body, message); err != nil {
			break
		}
		if string(message) == "none" {
			status = "5"
			break
		}
		w.Write(append(head[:], message...))
	}
	w.Header().Set("Grpc-Status", status)
}
