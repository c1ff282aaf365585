package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// secured puts the headers on every answer that keep a browser from being made
// a tool: our pages load our own assets and talk to us only, and no other page
// may frame, read or embed them.
func secured(next http.Handler) http.Handler {
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
		"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if strings.HasPrefix(r.URL.Path, "/api/") {
			h.Set("Cache-Control", "no-store")
		}
		next.ServeHTTP(w, r)
	})
}

// guard lets through what a TCP listener may answer: requests of our own page
// or of no page at all, addressed to us by a name that is ours, with the token
// if there is one.
func (s *Server) guard(l Listen, next http.Handler) http.Handler {
	token := sha256.Sum256([]byte(l.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !l.knows(r.Host):
			s.refuse(w, r, wrong(http.StatusMisdirectedRequest, "use http://127.0.0.1 or http://localhost",
				"the host %.80q is not this agent", r.Host))
		case foreign(r):
			s.refuse(w, r, wrong(http.StatusForbidden, "", "a page of another origin may not ask"))
		case l.Token != "" && r.URL.Path != "/healthz" && !carries(r, token):
			w.Header().Add("WWW-Authenticate", `Bearer realm="ghostlight"`)
			w.Header().Add("WWW-Authenticate", `Basic realm="ghostlight: any user, the token as password"`)
			s.refuse(w, r, wrong(http.StatusUnauthorized, "send Authorization: Bearer TOKEN", "a token is needed, and this is not it"))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// knows tells whether host, a request's Host header, names a listener on
// loopback. A page that made its own name point to 127.0.0.1 (DNS rebinding)
// still sends its own name. Beyond loopback the certificate does this work.
func (l Listen) knows(host string) bool {
	if exposed(l.Address) {
		return true
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	return isLoopback(strings.Trim(name, "[]"))
}

// foreign tells whether a browser says that the request was not made by our
// own page. Following a link to our page is no request of the other page's.
func foreign(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		return !strings.EqualFold(origin, scheme+r.Host)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	visits := r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	return !visits || strings.HasPrefix(r.URL.Path, "/api/")
}

// carries tells whether the request has the token, as a bearer token or as the
// password a browser asked for. Sums are compared, in constant time: neither
// the token's bytes nor its length can be timed.
func carries(r *http.Request, token [sha256.Size]byte) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, given, _ = r.BasicAuth()
	}
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], token[:]) == 1
}

// exposed tells whether an address can be reached from other hosts. A name
// other than localhost might, whatever it resolves to today.
func exposed(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err != nil || !isLoopback(host)
}

func isLoopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
