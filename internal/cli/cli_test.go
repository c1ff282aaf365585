package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ghostlight/internal/api"
	"ghostlight/internal/config"
	"ghostlight/internal/event"
)

var update = flag.Bool("update", false, "write what was got into testdata")

// run runs a command and returns what it wrote and its exit code.
func run(t testing.TB, a Agent, change func(*Terminal), args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	term := Terminal{In: strings.NewReader("select 2"), Out: &o, Err: &e, Zone: time.UTC, Now: func() time.Time { return now }}
	if change != nil {
		change(&term)
	}
	if a.Version == "" {
		a.Version = "1.0"
	}
	code = Main(a, term, args)
	return o.String(), e.String(), code
}

// TestCommands shows commands with what they write: standard output, then
// standard error with ! before each line, then the exit code if it is not 0.
func TestCommands(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", "/run/test")
	t.Setenv("STATE_DIRECTORY", "/var/lib/test")
	server, _ := agentOf(t)
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	right := filepath.Join(filepath.Dir(broken), "right.yaml")
	os.WriteFile(broken, []byte("budget:\n  cpuu: 3%\n"), 0o600)
	os.WriteFile(right, []byte("budget:\n  cpu: 3%\n"), 0o600)
	const path = "testdata/commands.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for block := range strings.SplitSeq(string(text), "====\n") {
		input, want, found := strings.Cut(block, "----\n")
		if !found {
			t.Fatalf("a block without ----:\n%s", block)
		}
		args := words(strings.TrimSpace(input))
		for i, a := range args {
			args[i] = strings.NewReplacer("@agent", server, "@broken", broken, "@right", right).Replace(a)
		}
		colour := func(term *Terminal) {}
		o, e, code := run(t, Agent{}, colour, args...)
		result := strings.ReplaceAll(o, "\x1b", "^[")
		for line := range strings.Lines(e) {
			result += "! " + strings.ReplaceAll(line, "\x1b", "^[")
		}
		if code != 0 {
			result += fmt.Sprintf("exit %d\n", code)
		}
		result = strings.NewReplacer(server, "@agent", broken, "@broken", right, "@right").Replace(result)
		if result != want && !*update {
			t.Errorf("%s\ngot:\n%s\nwant:\n%s", input, result, want)
		}
		got = append(got, input+"----\n"+result)
	}
	if *update {
		if err := os.WriteFile(path, []byte(strings.Join(got, "====\n")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// words splits a line as a shell does, with single quotes.
func words(line string) (all []string) {
	for line != "" {
		word := ""
		if line[0] == '\'' {
			word, line, _ = strings.Cut(line[1:], "'")
			line = strings.TrimPrefix(line, " ")
		} else {
			word, line, _ = strings.Cut(line, " ")
		}
		all = append(all, word)
	}
	return all
}

// -o json is one object a line, and exactly what the API says.
func TestJSONIsTheAPIs(t *testing.T) {
	server, st := agentOf(t)
	out, _, code := run(t, Agent{}, nil, "flows", "--server", server, "--last", "0", "-o", "json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != len(story().Flows) {
		t.Fatalf("exit %d, %d lines", code, len(lines))
	}
	for _, line := range lines {
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil || row["kind"] != "flow" || row["source"] == nil {
			t.Errorf("%v: %s", err, line)
		}
	}
	_ = st
}

// While following, rows show at once, and a gap in the rows is told.
func TestFollow(t *testing.T) {
	server, st := agentOf(t)
	in, out := io.Pipe()
	done := make(chan int, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ended by cancel
		r := &root{agent: Agent{}, term: Terminal{Err: io.Discard, Zone: time.UTC, Now: func() time.Time { return now }}}
		done <- r.main(ctx, out, []string{"flows", "-f", "--last", "1", "--server", server, "--port", "80,5432"})
		out.Close()
	}()
	first := make([]byte, 4096)
	n, err := in.Read(first)
	if err != nil || !strings.Contains(string(first[:n]), "dropped (no_socket) ×4") {
		t.Fatalf("%v %s", err, first[:n])
	}
	st.Append(&event.Batch{Wall: now.UnixNano(), Flows: []event.Flow{story().Flows[3]}})
	n, err = in.Read(first)
	if err != nil || !strings.Contains(string(first[:n]), "10.0.0.7:5432") {
		t.Fatalf("%v %s", err, first[:n])
	}
	cancel()
	go io.Copy(io.Discard, in)
	if code := <-done; code != 0 {
		t.Errorf("an interrupt gives exit %d", code)
	}
}

func TestLostBetweenRows(t *testing.T) {
	for output, want := range map[string]string{
		"compact": "... 12 flows are missing here: they came faster than they were read ...\n",
		"json":    `{"kind":"lost","time":"2026-01-31T12:01:00Z","lost":{"stage":"cursor","count":12}}` + "\n",
	} {
		agent := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "event: lost\ndata: {\"count\":12,\"stage\":\"cursor\"}\n\n")
		})
		address := serveHTTP(t, agent)
		out, errs, code := run(t, Agent{}, nil, "flows", "-f", "--server", address, "-o", output)
		if out != want || code != 1 || !strings.Contains(errs, "the agent went away") {
			t.Errorf("%s: exit %d\n%s%s", output, code, out, errs)
		}
	}
}

// With no agent, flows and processes watch by themselves, and say so.
func TestAttach(t *testing.T) {
	s, _ := serverOf(t)
	ended := 0
	agent := Agent{Attach: func(ctx context.Context) (http.RoundTripper, func() error, error) {
		return s.InProcess(ctx), func() error { ended++; return nil }, nil
	}}
	out, errs, code := run(t, agent, alone, "processes", "--pid", "88")
	if code != 0 || !strings.Contains(out, "nginx: master") || !strings.Contains(errs, "no agent is running") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	began := time.Now()
	out, errs, code = run(t, agent, func(term *Terminal) { alone(term); term.Look = 300 * time.Millisecond }, "flows", "--port", "80")
	if code != 0 || strings.Count(out, "\n") != 4 || !strings.Contains(errs, "for 300 ms; -f goes on until Ctrl-C") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if took := time.Since(began); took < 300*time.Millisecond || took > 10*time.Second {
		t.Errorf("it watched for %v", took)
	}
	out, errs, code = run(t, agent, func(term *Terminal) { alone(term); term.Look = 300 * time.Millisecond }, "requests", "--status", "error")
	if code != 0 || strings.Count(out, "✗") != 3 || !strings.Contains(errs, "no agent is running") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	for _, command := range []string{"services", "traces"} {
		out, errs, code = run(t, agent, func(term *Terminal) { alone(term); term.Look = 10 * time.Millisecond }, command)
		if code != 0 || !strings.Contains(out, "shop") || !strings.Contains(errs, "watching without one for 10 ms") {
			t.Errorf("%s: exit %d\n%s%s", command, code, out, errs)
		}
	}
	failing := Agent{Attach: func(context.Context) (http.RoundTripper, func() error, error) {
		return nil, nil, errors.New("needs root")
	}}
	if _, errs, code := run(t, failing, alone, "flows"); code != 1 || !strings.Contains(errs, "watching without one failed: needs root") {
		t.Errorf("exit %d\n%s", code, errs)
	}
	if _, errs, code := run(t, agent, alone, "status"); code != 1 || !strings.Contains(errs, "no agent is running on this host: start one with: ghostlight run") {
		t.Errorf("exit %d\n%s", code, errs)
	}
	if ended != 5 {
		t.Errorf("%d of 5 agents were ended", ended)
	}
	// An agent that was named is not replaced by one of our own.
	if _, errs, code := run(t, agent, nil, "flows", "--server", "unix:/nonexistent"); code != 1 || !strings.Contains(errs, "no agent answers") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}

// alone is a terminal on a host without an agent, whatever runs on this one.
func alone(term *Terminal) { term.Agents = []string{"unix:/nonexistent"} }

// Commands ask the agent of this host, in the first place where one answers.
func TestAgents(t *testing.T) {
	server, _ := agentOf(t)
	at := func(term *Terminal) { term.Agents = []string{"unix:/nonexistent", server} }
	if out, errs, code := run(t, Agent{}, at, "query", "select 1"); code != 0 || !strings.Contains(out, "1") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestDoctorExit(t *testing.T) {
	sick := Agent{Doctor: func(context.Context) (api.Doctor, error) { return api.Doctor{Kernel: "4.19"}, nil }}
	for _, output := range []string{"compact", "json"} {
		out, errs, code := run(t, sick, alone, "doctor", "-o", output)
		if code != 1 || errs != "" || !strings.Contains(out, "4.19") {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
	}
}

// brokenPipe is a reader that has seen enough.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}
}

func TestBrokenPipeIsQuiet(t *testing.T) {
	server, _ := agentOf(t)
	for _, args := range [][]string{{"flows"}, {"flows", "-f"}, {"requests"}, {"requests", "-f"}, {"services"}, {"services", "shop"}, {"traces"}, {"traces", strings.Repeat("1", 32)}, {"processes"}, {"query", "-o", "json", "select 1"}, {"status"}} {
		_, errs, code := run(t, Agent{}, func(term *Terminal) { term.Out = brokenPipe{} }, append(args, "--server", server)...)
		if code != 0 || errs != "" {
			t.Errorf("%v: exit %d\n%s", args, code, errs)
		}
	}
}

func TestToken(t *testing.T) {
	const token = "0123456789abcdef"
	file := filepath.Join(t.TempDir(), "token")
	os.WriteFile(file, []byte(token), 0o600)
	var asked []string
	address := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":{"message":"a token is needed"}}`)
	}))
	_, errs, code := run(t, Agent{}, nil, "status", "--server", address, "--token-file", file)
	if code != 1 || !strings.Contains(errs, "give it with --token-file") || len(asked) != 1 || asked[0] != "Bearer "+token {
		t.Errorf("exit %d, asked with %v\n%s", code, asked, errs)
	}
	_, errs, code = run(t, Agent{}, nil, "status", "--server", "http://192.0.2.1:4100", "--token-file", file)
	if code != 2 || !strings.Contains(errs, "a token is not sent over plain http") || strings.Contains(errs, token) {
		t.Errorf("exit %d\n%s", code, errs)
	}
}

// A redirect does not carry the token elsewhere.
func TestNoRedirect(t *testing.T) {
	followed := false
	other := serveHTTP(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	address := serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) }))
	if _, errs, code := run(t, Agent{}, nil, "status", "--server", address); code != 1 || followed {
		t.Errorf("exit %d, followed %v\n%s", code, followed, errs)
	}
}

func TestMan(t *testing.T) {
	dir := t.TempDir()
	if _, errs, code := run(t, Agent{}, nil, "man", dir); code != 0 {
		t.Fatal(errs)
	}
	for _, page := range []string{"ghostlight", "ghostlight-flows", "ghostlight-requests", "ghostlight-traces", "ghostlight-services", "ghostlight-config-check", "ghostlight-completion-bash"} {
		if b, err := os.ReadFile(filepath.Join(dir, page+".1")); err != nil || !bytes.Contains(b, []byte(".SH NAME")) {
			t.Errorf("%s: %v", page, err)
		}
	}
}

// Every command says what it does and shows an example.
func TestHelpIsThere(t *testing.T) {
	r := &root{agent: Agent{Version: "1.0"}}
	for _, cmd := range r.command().Commands() {
		if cmd.Short == "" || cmd.Example == "" && !cmd.HasSubCommands() {
			t.Errorf("%s has no example", cmd.Name())
		}
		if strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: one line without a full stop", cmd.Name())
		}
	}
}

func TestRunReads(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	os.WriteFile(file, []byte("listen: 127.0.0.1:4999\nretention: {age: 2h}\n"), 0o600)
	var got config.Config
	agent := Agent{Run: func(_ context.Context, s Start) error {
		got = s.Config
		s.Ready()
		return nil
	}}
	_, errs, code := run(t, agent, nil, "run", "--config", file, "--data", "/x", "--socket", "off")
	if code != 0 || got.Listen != "127.0.0.1:4999" || got.Data != "/x" || got.Socket != config.Off || time.Duration(got.Retention.Age) != 2*time.Hour {
		t.Errorf("exit %d, %+v\n%s", code, got, errs)
	}
	for _, args := range [][]string{{"run", "--listen", "0.0.0.0:4100"}, {"run", "--config", file, "--listen", "10.0.0.1:4100"}} {
		if _, errs, code := run(t, agent, nil, args...); code != 1 || !strings.Contains(errs, "tls.cert") {
			t.Errorf("%v: exit %d\n%s", args, code, errs)
		}
	}
}

// SIGHUP gives the agent what the file says now, unless it is wrong.
func TestReload(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("log: {level: info}\n")
	hup := func() { syscall.Kill(os.Getpid(), syscall.SIGHUP) }
	agent := Agent{Run: func(ctx context.Context, s Start) error {
		next := func() (config.Config, bool) {
			select {
			case c := <-s.Reload:
				return c, true
			case <-time.After(300 * time.Millisecond):
				return config.Config{}, false
			}
		}
		write("log: {level: wrong}\n")
		hup()
		if c, ok := next(); ok {
			t.Errorf("a wrong file gives %+v", c)
		}
		write("log: {level: debug}\ndata: /elsewhere\n")
		hup()
		if c, ok := next(); !ok || c.Log.Level != "debug" {
			t.Errorf("got %+v", c)
		}
		s.Log.Debug("seen")
		return nil
	}}
	_, errs, code := run(t, agent, nil, "run", "--config", file)
	for _, want := range []string{"going on with the old one", `"wrong\" is not one of`, `keys=data`, `changed=log.level`, "msg=seen"} {
		if !strings.Contains(errs, want) {
			t.Errorf("exit %d, no %s in:\n%s", code, want, errs)
		}
	}
}

func serveHTTP(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := newHTTPServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

// A waterfall fits into the terminal, however narrow or wide.
func TestWaterfallFits(t *testing.T) {
	server, _ := agentOf(t)
	for _, columns := range []int{0, 20, 60, 80, 133, 200, 500} {
		at := func(term *Terminal) { term.Width = columns }
		out, errs, code := run(t, Agent{}, at, "traces", "--server", server, strings.Repeat("1", 32))
		room := (Terminal{Width: columns}).columns()
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if code != 0 || len(lines) != 7 {
			t.Fatalf("exit %d\n%s%s", code, out, errs)
		}
		for _, line := range lines[1:] {
			if n := width(line); n > room || !strings.Contains(line, "█") {
				t.Errorf("%d of %d characters: %s", n, room, line)
			}
		}
	}
}

// The shell completes what the agent knows, and nothing where there is none.
func TestCompletion(t *testing.T) {
	server, _ := agentOf(t)
	for _, args := range [][]string{{"services", "--server", server, ""}, {"requests", "--server", server, "--service", ""}, {"traces", "--server", server, "--service", "s"}} {
		out, _, code := run(t, Agent{}, nil, append([]string{"__complete"}, args...)...)
		if code != 0 || !strings.Contains(out, "shop\n") || !strings.HasSuffix(strings.TrimSpace(out), ":4") {
			t.Errorf("%v: exit %d\n%s", args, code, out)
		}
	}
	if out, _, _ := run(t, Agent{}, alone, "__complete", "services", ""); strings.TrimSpace(out) != ":4" {
		t.Errorf("without an agent: %s", out)
	}
	if out, _, _ := run(t, Agent{}, nil, "__complete", "requests", "--status", "5"); !strings.Contains(out, "5xx") {
		t.Errorf("%s", out)
	}
}
