package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"
)

// answer is what a backend said to a request, or why it said nothing.
type answer struct {
	err      error         // nil: it took the request
	retry    bool          // it may take it later
	after    time.Duration // not before, if the backend said so
	rejected int           // records it took the request without
	message  string        // what it says about it
}

// wire carries requests to a backend.
type wire struct {
	base    string
	isGRPC  bool
	headers http.Header
	timeout time.Duration
	rt      *http.Transport
	zip     *gzip.Writer // nil: as it is
	body    bytes.Buffer
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 10

func newWire(o *options) (*wire, error) {
	base, err := url.Parse(o.Endpoint)
	if err == nil && (base.User != nil || base.RawQuery != "" || base.Fragment != "") {
		return nil, errors.New("endpoint: a user, a query or a fragment cannot be in it; secrets are kept in headers_file")
	}
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("endpoint: %q is not a URL like http://127.0.0.1:4318", o.Endpoint)
	}
	w := &wire{base: base.JoinPath("/").String(), isGRPC: o.Protocol == "grpc", timeout: o.Timeout}
	if w.headers, err = o.headers(); err != nil {
		return nil, err
	}
	if w.rt, err = transportOf(o); err != nil {
		return nil, err
	}
	if o.Compression == "gzip" {
		w.zip, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // fails only for a level that does not exist
	}
	return w, nil
}

// transportOf speaks HTTP/2 for gRPC, in plain text too. No proxy: the
// environment is not read.
func transportOf(o *options) (*http.Transport, error) {
	c, err := o.TLS.config()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		TLSClientConfig: c, DisableCompression: true, MaxIdleConnsPerHost: 2, IdleConnTimeout: 90 * time.Second,
		MaxResponseHeaderBytes: maxAnswer, Protocols: &http.Protocols{},
	}
	if o.Protocol == "grpc" {
		t.Protocols.SetHTTP2(true)
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP1(true)
	}
	return t, nil
}

func (o *tlsOptions) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("tls: read the authority: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: %s holds no certificate", o.CA)
		}
	}
	if o.Cert == "" && o.Key == "" {
		return c, nil
	}
	if o.Cert == "" || o.Key == "" {
		return nil, errors.New("tls: a certificate and its key go together")
	}
	if _, err := tls.LoadX509KeyPair(o.Cert, o.Key); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(o.Cert, o.Key) // read again: it may have been renewed
		return &pair, err
	}
	return c, nil
}

// send carries one request and returns what came of it. It is called by one
// goroutine.
func (w *wire) send(ctx context.Context, s signal, request []byte) answer {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	path, header := w.envelope(s)
	if err := w.pack(request); err != nil {
		return answer{err: err}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+path, bytes.NewReader(w.body.Bytes()))
	if err != nil {
		return answer{err: err}
	}
	r.Header = header
	response, err := w.rt.RoundTrip(r)
	if err != nil {
		return answer{err: err, retry: true}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return answer{err: fmt.Errorf("read the answer: %w", err), retry: true}
	}
	if w.isGRPC {
		return grpcAnswer(response, body, s)
	}
	return httpAnswer(response, body, s)
}

// envelope is where a request goes and what stands on it.
func (w *wire) envelope(s signal) (path string, header http.Header) {
	header = w.headers.Clone()
	header.Set("User-Agent", "ghostlight")
	if w.isGRPC {
		header.Set("Content-Type", "application/grpc")
		header.Set("Te", "trailers")
		header.Set("Grpc-Timeout", strconv.FormatInt(w.timeout.Milliseconds(), 10)+"m")
		if w.zip != nil {
			header.Set("Grpc-Encoding", "gzip")
		}
		return services[s], header
	}
	header.Set("Content-Type", "application/x-protobuf")
	if w.zip != nil {
		header.Set("Content-Encoding", "gzip")
	}
	return "v1/" + s.String(), header
}

// pack writes the body: compressed, and framed for gRPC.
func (w *wire) pack(request []byte) error {
	w.body.Reset()
	if w.isGRPC {
		w.body.Write(make([]byte, framePrefix))
	}
	if err := w.compress(request); err != nil {
		return err
	}
	if w.isGRPC {
		frame(w.body.Bytes(), w.zip != nil)
	}
	return nil
}

func (w *wire) compress(request []byte) error {
	if w.zip == nil {
		w.body.Write(request)
		return nil
	}
	w.zip.Reset(&w.body)
	if _, err := w.zip.Write(request); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	return w.zip.Close()
}

// httpAnswer reads an answer as the specification of OTLP/HTTP says
// (opentelemetry.io/docs/specs/otlp/#otlphttp-response).
func httpAnswer(r *http.Response, body []byte, s signal) answer {
	if r.StatusCode/100 == 2 {
		rejected, message := partial(body)
		return answer{rejected: rejected, message: message}
	}
	_, message := status(body)
	a := answer{err: fmt.Errorf("%s: HTTP status %d: %s", s, r.StatusCode, message)}
	switch r.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		a.retry, a.after = true, retryAfter(r.Header.Get("Retry-After"), time.Now())
	}
	return a
}

// maxAfter bounds how long a backend can make us wait.
const maxAfter = 5 * time.Minute

// retryAfter reads that header: seconds, or a date (RFC 9110, 10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(value); err == nil {
		return min(max(time.Duration(min(n, int(maxAfter/time.Second)))*time.Second, 0), maxAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxAfter)
}

// partial reads an Export…ServiceResponse: how many records were rejected.
func partial(p []byte) (rejected int, message string) {
	for f, rest, ok := next(p); ok; f, rest, ok = next(rest) {
		if f.number != 1 || f.wire != wireBytes {
			continue
		}
		for g, rest, ok := next(f.bytes); ok; g, rest, ok = next(rest) {
			switch {
			case g.number == 1 && g.wire == wireVarint:
				rejected = int(min(g.n, 1<<31-1))
			case g.number == 2 && g.wire == wireBytes:
				message = said(g.bytes)
			}
		}
	}
	return rejected, message
}

// status reads a google.rpc.Status: how long to wait, and what is wrong.
func status(p []byte) (after time.Duration, message string) {
	for f, rest, ok := next(p); ok; f, rest, ok = next(rest) {
		switch {
		case f.number == 2 && f.wire == wireBytes:
			message = said(f.bytes)
		case f.number == 3 && f.wire == wireBytes:
			after = max(after, retryInfo(f.bytes))
		}
	}
	return after, message
}

// said is a text of the other end, as a log can show it.
func said(p []byte) string {
	const most = 200
	if len(p) > most {
		p = p[:most]
	}
	return string(bytes.ToValidUTF8(p, []byte("?")))
}
