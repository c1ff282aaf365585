package aggregate

import (
	"strings"
	"unicode/utf8"

	"ghostlight/internal/event"
)

// Key is what a series is about. Empty fields have no label.
type Key struct {
	Metric    Metric
	Service   string
	Container string
	Operation string // http.request.method, rpc.method, db.operation.name, messaging.operation.name, dns.question.type
	Target    string // http.route, db.collection.name, messaging.destination.name
	Namespace string // db.namespace
	System    string // db.system.name, rpc.system.name, messaging.system
	Protocol  string // network.protocol.name, where it is not http
	Status    int32  // http.response.status_code
	Outcome   string // rpc.response.status_code, db.response.status_code, dns.response.code
	Error     string // error.type
	Peer      string // client: server.address
	Port      uint16 // client: server.port
	TLS       bool   // url.scheme
}

// keyOf describes a request by what does not grow with traffic, and by what
// its family has a label for. Its strings are the batch's.
func keyOf(r *event.Request) Key {
	k := Key{Metric: MetricOf(r), Operation: r.Operation, Error: r.Error}
	if r.Who != nil {
		k.Service = r.Who.Service
		if r.Who.Container != nil {
			k.Container = r.Who.Container.Name
		}
	}
	switch r.Family {
	case event.HTTP:
		k.Target, k.Status, k.TLS = r.Route, r.Status, r.TLS
		if r.Protocol != "http" {
			k.Protocol = r.Protocol
		}
	case event.RPC:
		k.System, k.Outcome = r.System, r.Outcome
	case event.DB:
		k.System, k.Target, k.Namespace, k.Outcome = r.System, r.Target, r.Namespace, r.Outcome
	case event.Messaging:
		k.System, k.Target = r.System, r.Target
	default:
		k.Outcome = r.Outcome // the names that are asked for are without bound
	}
	if r.Role == event.Client {
		if k.Peer = r.Attr("server.address"); k.Peer == "" && r.Peer != nil {
			k.Peer = r.Peer.Service
		}
		k.Port = r.Destination.Port()
	}
	return k
}

// kept gives the key texts of its own, such as a label can hold.
func (k Key) kept() Key {
	for _, text := range k.texts() {
		*text = kept(*text)
	}
	return k
}

func (k *Key) isValid() bool {
	for _, text := range k.texts() {
		if !utf8.ValidString(*text) {
			return false
		}
	}
	return true
}

func (k *Key) texts() [10]*string {
	return [...]*string{&k.Service, &k.Container, &k.Operation, &k.Target, &k.Namespace, &k.System, &k.Protocol, &k.Outcome, &k.Error, &k.Peer}
}

// kept copies a text. What is not UTF-8 in it is replaced here and not by who
// shows it: two series must not come to look alike.
func kept(s string) string { return strings.ToValidUTF8(strings.Clone(s), "\uFFFD") }

// words are the names of Operation, Target, System and Outcome in each family;
// empty is what the family does not have.
var words = [metrics]struct{ operation, target, system, outcome string }{
	HTTPServer:      {"http.request.method", "http.route", "", ""},
	HTTPClient:      {"http.request.method", "http.route", "", ""},
	RPCServer:       {"rpc.method", "", "rpc.system.name", "rpc.response.status_code"},
	RPCClient:       {"rpc.method", "", "rpc.system.name", "rpc.response.status_code"},
	DBServer:        {"db.operation.name", "db.collection.name", "db.system.name", "db.response.status_code"},
	DBClient:        {"db.operation.name", "db.collection.name", "db.system.name", "db.response.status_code"},
	MessagingServer: {"messaging.operation.name", "messaging.destination.name", "messaging.system", ""},
	MessagingClient: {"messaging.operation.name", "messaging.destination.name", "messaging.system", ""},
	DNSServer:       {"dns.question.type", "", "", "dns.response.code"},
	DNSClient:       {"dns.question.type", "", "", "dns.response.code"},
}

// Whose a series is: OpenTelemetry tells it of the
// resource, Prometheus by labels.
const (
	ServiceName   = "service.name"
	ContainerName = "container.name"
)

// Labels calls text and number for each attribute of the series but
// ServiceName and ContainerName, by the names of OpenTelemetry.
func (s *Series) Labels(text func(name, value string), number func(name string, n int64)) {
	if s.Overflow {
		text(Overflow, "true")
		return
	}
	w := words[s.Metric]
	for _, l := range [...]struct{ name, value string }{
		{w.operation, s.Operation}, {w.target, s.Target}, {w.system, s.System}, {w.outcome, s.Outcome},
		{"db.namespace", s.Namespace}, {"network.protocol.name", s.Protocol}, {"error.type", s.Error}, {"server.address", s.Peer},
	} {
		if l.value != "" {
			text(l.name, l.value)
		}
	}
	if s.Metric == HTTPServer || s.Metric == HTTPClient {
		text("url.scheme", Scheme(s.TLS))
	}
	if s.Status > 0 {
		number("http.response.status_code", int64(s.Status))
	}
	if s.Port > 0 {
		number("server.port", int64(s.Port))
	}
}

// Overflow is the label of what is beyond the bound.
const Overflow = "otel.metric.overflow"

// Scheme is the url.scheme of HTTP.
func Scheme(tls bool) string {
	if tls {
		return "https"
	}
	return "http"
}
