package enrich

import (
	"path"
	"strings"
	"unicode"

	"ghostlight/internal/event"
)

// service names the service that who is part of: what its environment
// declares, its container, its systemd unit, its program.
func service(who *event.Who, declared, unit string) string {
	if declared != "" {
		return declared
	}
	if who.Container != nil {
		if who.Container.Name != "" {
			return who.Container.Name
		}
		return program(who)
	}
	if name, ok := strings.CutSuffix(unit, ".service"); ok && name != "" && !strings.HasPrefix(unit, "user@") {
		return name
	}
	return program(who)
}

// program names what who runs: its executable, or where that is an
// interpreter, the script, module or archive that its arguments clearly give.
func program(who *event.Who) string {
	name := strings.TrimRight(who.Name, "0123456789.")
	values, ok := interpreters[name]
	if !ok {
		return calledBy(who)
	}
	if script := scriptOf(name, values, who.Args); script != "" {
		return script
	}
	return who.Name
}

// calledBy is the name a program was called by, where that is a plain file
// name: some files are many programs (busybox; redis-server is redis-check-rdb
// on Debian). Of a sentence that a process wrote over its arguments ("nginx:
// master process", "redis-server *:6379") the first word counts.
func calledBy(who *event.Who) string {
	name, _, _ := strings.Cut(who.Args, "\x00")
	if strings.HasPrefix(name, "/proc/") {
		return who.Name // a program that runs itself again
	}
	if !strings.HasPrefix(name, "/") {
		name, _, _ = strings.Cut(name, " ")
	}
	name, _, _ = strings.Cut(path.Base(name), " ") // "/usr/bin/redis-server 127.0.0.1:6379"
	name = strings.TrimSuffix(name, ":")
	if strings.Trim(name, plainName) != "" || strings.Trim(name, "0123456789.-") == "" || name[0] == '-' || name[0] == '.' {
		return who.Name
	}
	return name
}

const plainName = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+"

// interpreters are programs that run the program of another file, and those of
// their flags that take a value.
var interpreters = map[string]string{
	"python": "-W -X --check-hash-based-pycs", "pypy": "-W -X",
	"node": "-r --require --import --loader --experimental-loader -C --conditions --env-file", "nodejs": "-r --require --import",
	"bun": "", "deno": "",
	"java": "-cp -classpath --class-path -p --module-path --add-opens --add-exports --add-modules --add-reads --upgrade-module-path",
	"ruby": "-I -r -C -E", "perl": "-I -M", "php": "-c -d -z", "php-cgi": "-c -d",
	"sh": "-o", "bash": "-o -O --rcfile --init-file", "dash": "-o", "ash": "-o", "zsh": "-o",
}

// inline are flags after which the program itself is an argument: no name.
var inline = map[string]bool{"-c": true, "-e": true, "-p": true, "-r": true, "-E": true, "--eval": true, "--print": true, "-s": true, "-i": true}

func scriptOf(interpreter, values, args string) string {
	_, rest, _ := strings.Cut(args, "\x00")
	for rest != "" {
		var arg string
		arg, rest, _ = strings.Cut(rest, "\x00")
		next, _, _ := strings.Cut(rest, "\x00")
		switch {
		case arg == "-jar" && interpreter == "java":
			return scriptName(next)
		case (arg == "-m" || arg == "--module") && (interpreter == "java" || interpreter == "python" || interpreter == "pypy"):
			return safeName(next)
		case arg == "run" && (interpreter == "bun" || interpreter == "deno"):
		case takesValue(values, arg), isShellFlag(interpreter, arg, 'o'):
			_, rest, _ = strings.Cut(rest, "\x00")
		case isShellFlag(interpreter, arg, 'c'):
			return ""
		case inline[arg], arg == "", arg == "-":
			return ""
		case arg == "--":
			return scriptName(next)
		case arg[0] != '-':
			return scriptName(arg)
		}
	}
	return ""
}

func takesValue(values, flag string) bool {
	for v := range strings.SplitSeq(values, " ") {
		if v == flag {
			return true
		}
	}
	return false
}

// isShellFlag reports short flags of a shell that end with the given one: -euo.
func isShellFlag(interpreter, arg string, last byte) bool {
	return strings.HasSuffix(interpreter, "sh") && len(arg) > 1 && arg[0] == '-' && arg[1] != '-' && arg[len(arg)-1] == last
}

// suffixes of scripts and archives are not part of a service's name.
var suffixes = []string{".py", ".pyc", ".pyz", ".js", ".mjs", ".cjs", ".ts", ".mts", ".rb", ".pl", ".php", ".sh", ".jar", ".war", ".phar"}

func scriptName(file string) string {
	if strings.HasPrefix(file, "/dev/fd/") || strings.HasPrefix(file, "/proc/") {
		return "" // a pipe has a number, not a name
	}
	name := path.Base(file)
	for _, s := range suffixes {
		if rest, ok := strings.CutSuffix(name, s); ok && rest != "" {
			name = rest
			break
		}
	}
	return safeName(name)
}

// safeName refuses what can't be the name of a file that someone runs.
func safeName(name string) string {
	if name == "." || name == "/" || len(name) > 128 || strings.ContainsAny(name, " \t\n*\"'") {
		return ""
	}
	return name
}

// declared returns the service name in an environment, entries joined by NUL:
// OTEL_SERVICE_NAME, else service.name in OTEL_RESOURCE_ATTRIBUTES.
func declared(environ []byte) string {
	name := variable(environ, "OTEL_SERVICE_NAME=")
	if name == "" {
		name = attribute(environ)
	}
	if len(name) > maxDeclared || strings.ContainsFunc(name, unicode.IsControl) {
		return ""
	}
	return name
}

// maxDeclared bounds the name that a process may give itself.
const maxDeclared = 255

func attribute(environ []byte) string {
	for pair := range strings.SplitSeq(variable(environ, "OTEL_RESOURCE_ATTRIBUTES="), ",") {
		if name, ok := strings.CutPrefix(strings.TrimSpace(pair), "service.name="); ok {
			return percentDecoded(strings.TrimSpace(name))
		}
	}
	return ""
}
