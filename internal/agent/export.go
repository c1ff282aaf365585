package agent

import (
	"runtime"

	"ghostlight/internal/event"
	"ghostlight/internal/export"
)

// hostAttrs describes this host and this Ghostlight, by the names of
// OpenTelemetry.
func hostAttrs() []event.Attr {
	h := hostInfo()
	return []event.Attr{
		{Key: "host.name", Value: h.Name},
		{Key: "host.arch", Value: archName(runtime.GOARCH)},
		{Key: "os.type", Value: "linux"},
		{Key: "telemetry.distro.name", Value: "ghostlight"},
		{Key: "telemetry.distro.version", Value: Version()},
	}
}

// archName is OpenTelemetry's name of Go's.
func archName(goarch string) string {
	names := map[string]string{"386": "x86", "arm": "arm32"}
	if name, ok := names[goarch]; ok {
		return name
	}
	return goarch
}

// exportLosses tells what the exporters had to let go of since it was last
// called.
func (a *Agent) exportLosses(now int64) {
	for _, e := range a.exporters {
		s, ok := e.(export.Sender)
		if !ok {
			continue
		}
		if n := s.Lost(); n > 0 {
			a.batch.Lost = append(a.batch.Lost, event.Lost{Time: now, Stage: "export", Count: n})
		}
	}
}
