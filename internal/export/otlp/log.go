package otlp

import "ghostlight/internal/event"

// severities are OpenTelemetry's numbers of ours.
var severities = map[string]uint64{"info": 9, "warning": 13, "critical": 18}

// appendLog writes an alert as a LogRecord.
func appendLog(m message, a *event.Alert, wall int64) message {
	at := uint64(a.Time + wall)
	m.fixed64(1, at)
	m.varint(2, severities[a.Severity])
	m.text(3, bounded(a.Severity))
	body := m.open(5)
	m.text(1, bounded(a.Message))
	m.close(body)
	for _, x := range a.Attrs {
		m.attr(6, x.Key, bounded(x.Value))
	}
	m.fixed64(11, at)
	m.text(12, bounded(a.Name))
	return m
}
