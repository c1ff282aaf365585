package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// problem is a value that cannot be used, by the key it stands at.
type problem struct{ key, message string }

// Check tells what cannot be used, whether it came from the file or a flag. A
// configuration that Parse returned has been checked.
func (c Config) Check() error {
	var errs Errors
	for _, p := range c.problems() {
		errs = append(errs, &Error{Message: p.key + ": " + p.message})
	}
	return errs.orNil()
}

// CheckNames refuses parts of sensors and exporters that do not exist.
func (c Config) CheckNames(sensors, exporters []string) error {
	errs := append(strangers("sensor", c.Sensors, sensors), strangers("exporter", c.Exporters, exporters)...)
	return errs.orNil()
}

func strangers(what string, parts map[string]Part, known []string) (errs Errors) {
	for name, p := range parts {
		if slices.Contains(known, name) {
			continue
		}
		e := &Error{File: p.options.file, Message: fmt.Sprintf("there is no %s %q%s", what, name, didYouMean(name, known))}
		if at := p.options.at; at != nil {
			e.Line, e.Col = at.Position.Line, at.Position.Column
		}
		errs = append(errs, e)
	}
	return errs
}

const (
	minAge    = Duration(time.Minute)
	minStore  = Bytes(16 << 20)
	minMemory = Bytes(16 << 20)
	maxSync   = Duration(time.Minute)
)

// problems is the rules beyond the types.
func (c Config) problems() []problem {
	var found []problem
	rule := func(ok bool, key, format string, args ...any) {
		if !ok {
			found = append(found, problem{key, fmt.Sprintf(format, args...)})
		}
	}
	if c.Listen != Off {
		err := checkAddress(c.Listen)
		rule(err == nil, "listen", "%v", err)
	}
	rule(c.Socket == Off || filepath.IsAbs(c.Socket), "socket", "%q must be an absolute path, or off", c.Socket)
	// sun_path has 108 bytes, with the NUL at its end (unix(7)).
	rule(len(c.Socket) < 108, "socket", "a path of %d bytes is too long for a unix socket: 107 fit", len(c.Socket))
	rule(c.Listen != Off || c.Socket != Off, "listen", "with listen and socket off, nobody could ask anything")
	rule(c.Data != "", "data", "a folder is needed")
	rule(c.Retention.Age >= minAge, "retention.age", "%s is shorter than %s", c.Retention.Age, minAge)
	rule(c.Retention.Bytes >= minStore, "retention.bytes", "%s is less than %s", c.Retention.Bytes, minStore)
	rule(c.Sync <= maxSync, "sync", "%s is longer than %s", c.Sync, maxSync)
	rule(c.Budget.Memory == 0 || c.Budget.Memory >= minMemory, "budget.memory", "%s is less than %s, which the agent needs for itself", c.Budget.Memory, minMemory)
	rule(!slices.Contains(c.Redact.Deny, ""), "redact.deny", "an empty word would hide everything")
	for _, pattern := range c.Routes.Patterns {
		err := checkRoute(pattern)
		rule(err == nil, "routes.patterns", "%v", err)
	}
	rule(c.TLS.Cert == "" || c.TLS.Key != "", "tls.key", "a certificate needs its key")
	rule(c.TLS.Key == "" || c.TLS.Cert != "", "tls.cert", "a key needs its certificate")
	rule(c.Token != hidden, "token", "this is what is shown in the place of a secret, not a secret")
	rule(c.Token == "" || c.TokenFile == "", "token_file", "token is given too: keep one of them")
	return found
}

func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address: write it like 127.0.0.1:4100, or off", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port between 0 and 65535", address)
	}
	return nil
}

// checkRoute tells what is wrong with a route pattern.
func checkRoute(pattern string) error {
	if !strings.HasPrefix(pattern, "/") {
		return fmt.Errorf("%q must begin with a slash", pattern)
	}
	segments := strings.Split(pattern[1:], "/")
	for i, s := range segments {
		isName := strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") && len(s) > 2
		switch {
		case s == "**" && i < len(segments)-1:
			return fmt.Errorf("%q: ** can only be the last segment", pattern)
		case s == "*", s == "**", isName && !strings.ContainsAny(s[1:len(s)-1], "{}*"):
		case strings.ContainsAny(s, "{}*"):
			return fmt.Errorf("%q: %q is neither a word nor {name}, :name, * or **", pattern, s)
		}
	}
	return nil
}
