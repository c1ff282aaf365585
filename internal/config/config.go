// Package config is the configuration of Ghostlight: one YAML file read
// strictly, its defaults, and what flags put over it, passed down by value.
//
//	Default -> Parse(file) over it -> flags over that -> Check
package config

//go:generate go test -run ^TestDocument$ . -update

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is the whole file. docs/config.md is made of these comments.
type Config struct {
	// Address of the HTTP API and the web page. An address outside of loopback
	// needs `tls` and a token; `off` leaves only the unix socket.
	Listen string `yaml:"listen"`
	// Path of the unix socket, which only its owner can open and which needs no
	// token. `off` leaves it out.
	Socket string `yaml:"socket"`
	// Folder of the store.
	Data string `yaml:"data"`
	// How long records are kept; what goes beyond either bound is deleted,
	// oldest first.
	Retention Retention `yaml:"retention" reload:"live"`
	// How often written records are forced to the disk: the most a crash of the
	// machine can lose. A crash of Ghostlight alone loses at most the last second.
	Sync Duration `yaml:"sync" reload:"live"`
	// What Ghostlight may cost. Above it sensors are let go, in a stated order.
	Budget Budget `yaml:"budget" reload:"live"`
	// Secrets that must not be stored.
	Redact Redact `yaml:"redact" reload:"live"`
	// How the paths of requests are folded into routes.
	Routes Routes `yaml:"routes" reload:"live"`
	// Sensors by name: `ghostlight doctor` lists them. All are on unless said
	// otherwise, and each has options of its own (docs/sensors.md). One that
	// changes while Ghostlight runs is loaded anew, and tells again what is there.
	Sensors map[string]Part `yaml:"sensors" reload:"live"`
	// Exporters by name, like the sensors. Those that send records away are off
	// until they stand here: `otlp: {endpoint: "https://collector:4318"}`
	// (internal/export/otlp/README.md has its options).
	Exporters map[string]Part `yaml:"exporters"`
	// Certificate of the HTTP API.
	TLS TLS `yaml:"tls"`
	// Bearer token that every request must carry, except those by the unix
	// socket. Better kept in `token_file`.
	Token Secret `yaml:"token"`
	// File that holds the token; it must not be readable for others.
	TokenFile string `yaml:"token_file"`
	// The agent's own log, on standard error.
	Log Log `yaml:"log"`
}

// Retention bounds the store.
type Retention struct {
	// Age of the oldest record kept.
	Age Duration `yaml:"age"`
	// Size of the whole store.
	Bytes Bytes `yaml:"bytes"`
}

// Budget bounds the cost of agent and programs together.
type Budget struct {
	// Share of one core. `0%` is no limit.
	CPU Percent `yaml:"cpu"`
	// Resident memory. `0` is no limit.
	Memory Bytes `yaml:"memory"`
}

// Redact names secrets.
type Redact struct {
	// Words that mark a secret beyond the built-in ones (token, password, secret,
	// key, signature, session and their kin): the value of an argument, a URL
	// query or a variable whose name contains one is not stored.
	Deny []string `yaml:"deny"`
}

// Routes folds paths.
type Routes struct {
	// Patterns that are tried before anything is learnt: `/api/v1/{controller}/{id}`,
	// `/files/**`. What fits none is learnt: numbers, UUIDs, hashes and dates are
	// folded by their shape, names once there are many of them at one place.
	Patterns []string `yaml:"patterns"`
}

// Part is the part of one sensor or exporter.
type Part struct {
	// Whether it runs at all.
	Enabled bool `yaml:"enabled"`

	options options
}

// TLS is a certificate and its key, as PEM files. They are read again when
// they change.
type TLS struct {
	// Certificate chain.
	Cert string `yaml:"cert"`
	// Private key.
	Key string `yaml:"key"`
}

// Log is how the agent logs.
type Log struct {
	// Least level that is written.
	Level string `yaml:"level" oneof:"debug,info,warn,error" reload:"live"`
	// `text` for people, `json` for machines.
	Format string `yaml:"format" oneof:"text,json"`
}

// Off, as an address or a path, leaves that listener out.
const Off = "off"

// Default returns the configuration of an empty file.
func Default() Config {
	return Config{
		Listen:    "127.0.0.1:4100",
		Socket:    DefaultSocket(),
		Data:      defaultData(),
		Retention: Retention{Age: Duration(24 * time.Hour), Bytes: 2 << 30},
		Sync:      Duration(time.Second),
		Budget:    Budget{CPU: 3, Memory: 64 << 20},
		Sensors:   map[string]Part{},
		Exporters: map[string]Part{},
		Log:       Log{Level: "info", Format: "text"},
	}
}

// SystemSocket is where an agent of root listens.
const SystemSocket = "/run/ghostlight/ghostlight.sock"

// DefaultSocket returns where an agent of this user listens: in the folder that
// the service manager made, in /run for root, else in the user's own runtime
// folder; Off if there is none, because a folder open to others is no place for
// a socket.
func DefaultSocket() string {
	if dir := os.Getenv("RUNTIME_DIRECTORY"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ghostlight.sock")
	}
	if os.Geteuid() == 0 {
		return SystemSocket
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ghostlight.sock")
	}
	return Off
}

func defaultData() string {
	if dir := os.Getenv("STATE_DIRECTORY"); filepath.IsAbs(dir) {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/ghostlight"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ghostlight")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "ghostlight")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("ghostlight-%d", os.Geteuid()))
}

// maxFile bounds what is read before it is looked at.
const maxFile = 1 << 20

// Read reads a file over the defaults. Its errors are Errors, or of the file
// system.
func Read(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	return Parse(path, text)
}

// Sensor returns the part of the named sensor, with the defaults where the file
// says nothing.
func (c Config) Sensor(name string) Part { return partOf(c.Sensors, name) }

// Exporter returns the part of the named exporter.
func (c Config) Exporter(name string) Part { return partOf(c.Exporters, name) }

func partOf(parts map[string]Part, name string) Part {
	if p, ok := parts[name]; ok {
		return p
	}
	return Part{Enabled: true}
}

// Options fills the owner's own option struct, strictly: it is what
// sensor.Def.New and export.Def.New get. Fields are named by their yaml tag, or
// in snake case.
func (p Part) Options(into any) error { return p.options.decode(into) }

// Blame gives an error of the owner, "option: what is wrong with it", the line
// of the file where that option stands.
func (p Part) Blame(err error) error {
	var known Errors
	if err == nil || p.options.at == nil || errors.As(err, &known) {
		return err
	}
	name, _, _ := strings.Cut(err.Error(), ":")
	at, message := p.options.at, p.options.key+": "+err.Error()
	for _, o := range p.options.entries {
		if o.name == name {
			at, message = o.value.GetToken(), join(p.options.key, err.Error())
		}
	}
	return &Error{File: p.options.file, Line: at.Position.Line, Col: at.Position.Column, Message: message}
}
