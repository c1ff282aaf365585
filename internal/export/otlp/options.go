package otlp

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// options is the exporter's part of the configuration file. README.md says
// what each is for.
type options struct {
	Endpoint        string        `yaml:"endpoint"`
	Protocol        string        `yaml:"protocol" oneof:"http,grpc"`
	Signals         []string      `yaml:"signals"`
	Headers         []string      `yaml:"headers"`
	HeadersFile     string        `yaml:"headers_file"`
	TLS             tlsOptions    `yaml:"tls"`
	Compression     string        `yaml:"compression" oneof:"gzip,none"`
	Temporality     string        `yaml:"temporality" oneof:"cumulative,delta"`
	Timeout         time.Duration `yaml:"timeout"`          // of one request
	FlushInterval   time.Duration `yaml:"flush_interval"`   // the longest a span waits for others
	MetricsInterval time.Duration `yaml:"metrics_interval"` // from one export of metrics to the next
	RetryFor        time.Duration `yaml:"retry_for"`        // the longest a request is tried again
	QueueBytes      int           `yaml:"queue_bytes"`
	BatchBytes      int           `yaml:"batch_bytes"`
}

type tlsOptions struct {
	CA         string `yaml:"ca"`
	Cert       string `yaml:"cert"`
	Key        string `yaml:"key"`
	ServerName string `yaml:"server_name"`
}

func defaults() options {
	return options{
		Protocol: "http", Signals: []string{traces.String(), metrics.String(), logs.String()},
		Compression: "gzip", Temporality: "cumulative",
		Timeout: 10 * time.Second, FlushInterval: time.Second, MetricsInterval: 30 * time.Second, RetryFor: 5 * time.Minute,
		QueueBytes: 4 << 20, BatchBytes: 256 << 10,
	}
}

// The bounds of what can be asked for.
const (
	minQueue = 64 << 10
	maxQueue = 1 << 30
	maxBatch = 2 << 20 // a Collector refuses gRPC messages above 4 MiB
)

// check says what cannot be, and fills in the endpoint: a Collector on this
// host.
func (o *options) check() error {
	if o.Endpoint == "" {
		o.Endpoint = map[string]string{"http": "http://127.0.0.1:4318", "grpc": "http://127.0.0.1:4317"}[o.Protocol]
	}
	for _, s := range o.Signals {
		if s != traces.String() && s != metrics.String() && s != logs.String() {
			return fmt.Errorf("signals: %q is none of traces, metrics, logs", s)
		}
	}
	for name, d := range map[string]time.Duration{"timeout": o.Timeout, "flush_interval": o.FlushInterval, "metrics_interval": o.MetricsInterval} {
		if d < 10*time.Millisecond {
			return fmt.Errorf("%s: %v is too short", name, d)
		}
	}
	switch {
	case o.QueueBytes < minQueue || o.QueueBytes > maxQueue:
		return fmt.Errorf("queue_bytes: %d is not between %d and %d", o.QueueBytes, minQueue, maxQueue)
	case o.BatchBytes < 1 || o.BatchBytes > maxBatch:
		return fmt.Errorf("batch_bytes: %d is not between 1 and %d", o.BatchBytes, maxBatch)
	}
	return nil
}

func (o *options) wants(s signal) bool { return slices.Contains(o.Signals, s.String()) }

// headers returns those of the file and those of the options. What is in the
// options can be printed, so a secret cannot be there.
func (o *options) headers() (http.Header, error) {
	h := http.Header{}
	for _, line := range o.Headers {
		name, err := addHeader(h, line)
		if err != nil {
			return nil, fmt.Errorf("headers: %w", err)
		}
		if isSecret(name) {
			return nil, fmt.Errorf("headers: %s is a secret: keep it in headers_file", name)
		}
	}
	if o.HeadersFile == "" {
		return h, nil
	}
	if err := addFile(h, o.HeadersFile); err != nil {
		return nil, fmt.Errorf("headers_file: %w", err)
	}
	return h, nil
}

func addFile(h http.Header, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s can be read by others: chmod 600", path)
	case info.Size() > 64<<10:
		return fmt.Errorf("%s is larger than 64 KiB", path)
	}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
			if _, err := addHeader(h, line); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// addHeader adds "Name: value". Its errors do not show the value.
func addHeader(h http.Header, line string) (name string, err error) {
	name, value, ok := strings.Cut(line, ":")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	isBad := func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>@,;\\\"/[]?={}", r) }
	if !ok || name == "" || strings.ContainsFunc(name, isBad) {
		return "", errors.New("a header is written like Name: value")
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return "", fmt.Errorf("the value of %s has control characters", name)
	}
	h.Add(name, value)
	return name, nil
}

// isSecret tells by its name that a header is a credential.
func isSecret(name string) bool {
	name = strings.ToLower(name)
	for _, word := range []string{"auth", "token", "key", "secret", "cookie", "password", "credential"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}
