package otlp

import "ghostlight/internal/event"

// The scope of everything we send.
const scopeName = "ghostlight"

// schemaURL names the version of the conventions that our names are of.
const schemaURL = "https://opentelemetry.io/schemas/1.44.0"

// appendResource writes the Resource of a process: a backend tells services
// and their instances by it.
func appendResource(m message, who *event.Who, host []event.Attr) message {
	at := m.open(1)
	m = appendWho(m, who)
	for _, a := range host {
		m.attr(1, a.Key, bounded(a.Value))
	}
	m.close(at)
	return m
}

// unknownService is what the conventions call a service without a name.
const unknownService = "unknown_service"

func appendWho(m message, who *event.Who) message {
	if who == nil || who.Service == "" {
		m.attr(1, "service.name", unknownService)
	}
	if who == nil {
		return m
	}
	m.attr(1, "service.name", bounded(who.Service))
	m.attr(1, "service.instance.id", bounded(who.ExecID))
	if who.PID > 0 {
		m.attrInt(1, "process.pid", int64(who.PID))
	}
	m.attr(1, "process.executable.name", bounded(who.Name))
	m.attr(1, "process.executable.path", bounded(who.Executable))
	if c := who.Container; c != nil {
		m.attr(1, "container.id", bounded(c.ID))
		m.attr(1, "container.name", bounded(c.Name))
		m.attr(1, "container.runtime.name", bounded(c.Runtime))
		m.attr(1, "k8s.pod.uid", bounded(c.PodUID))
	}
	return m
}

// appendScope writes an InstrumentationScope.
func appendScope(m message, version string) message {
	at := m.open(1)
	m.text(1, scopeName)
	m.text(2, version)
	m.close(at)
	return m
}

// resourceOf writes what spans, metrics and logs have around them: one
// ResourceX with one ScopeX, whose records body appends.
func resourceOf(m message, who *event.Who, host []event.Attr, version string, body func(message) message) message {
	outer := m.open(1)
	m = appendResource(m, who, host)
	scope := m.open(2)
	m = appendScope(m, version)
	m = body(m)
	m.close(scope)
	m.text(3, schemaURL)
	m.close(outer)
	return m
}
