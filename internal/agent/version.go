package agent

import "runtime/debug"

// version is set by the linker (Makefile).
var version string

// Version returns what this binary calls itself.
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
