// Command gateway is a tier of the end-to-end story: it serves HTTPS and passes
// each request on to another server by net/http, knowing nothing of tracing.
package main

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: gateway LISTEN UPSTREAM CERT KEY")
	}
	listen, upstream := os.Args[1], os.Args[2]
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := http.Get(upstream + r.URL.Path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
	})
	server := http.Server{Addr: listen, Handler: handler, TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	if os.Args[3] == "plain" {
		log.Fatal(server.ListenAndServe())
	}
	log.Fatal(server.ListenAndServeTLS(os.Args[3], os.Args[4]))
}
