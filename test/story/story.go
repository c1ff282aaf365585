// Package story runs a protocol's parser over recorded traffic and compares what
// it finds with what stands beside the traffic:
//
//	# nginx 1.22 answers curl
//	> "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
//	< "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
//	----
//	http GET / 200 asked=26 answered=41 complete
//
// Lines are: > and < bytes that went from and to the client, as a Go string and
// optionally +N for N more bytes that were moved and not captured; `missing > N`
// for bytes nobody saw (0: unknown how many); `idle` for a second without
// traffic; `close`; `client`: what follows is seen by the client, not by the
// server; `datagrams`: what follows are messages of UDP, which nothing cuts. The
// end of a story closes the connection. Chunk n is at n milliseconds. `go test
// -rewrite` writes what was found.
package story

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

var rewrite = flag.Bool("rewrite", false, "write what the parsers find into the stories")

// Step is one line of a story.
type Step struct {
	Side    l7.Side
	Data    []byte
	More    int // moved and not captured
	Missing bool
	Idle    bool
	Close   bool
	Client  bool // from here on the client's end is seen
	UDP     bool // from here on
}

// Run runs every story of testdata, whole and cut anywhere.
func Run(t *testing.T, p l7.Proto) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { one(t, p, file) })
	}
}

func one(t *testing.T, p l7.Proto, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	traffic, want, _ := strings.Cut(string(text), "----\n")
	steps, err := Parse(traffic)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	got := Play(p, steps)
	if *rewrite {
		if err := os.WriteFile(file, []byte(traffic+"----\n"+got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Fatalf("found:\n%swant:\n%s", got, want)
	}
	if slices.ContainsFunc(steps, func(s Step) bool { return s.More > 0 || s.Missing || s.UDP }) {
		return // a cut elsewhere sees something else
	}
	for range 20 {
		seed := rand.Uint64()
		if again := Play(p, Cut(steps, seed)); words(again) != words(want) {
			t.Fatalf("cut by seed %d:\n%swant:\n%s", seed, again, want)
		}
	}
}

// words are the findings without their times, which depend on the cuts.
func words(found string) string {
	lines := strings.Split(found, "\n")
	for i, l := range lines {
		lines[i], _, _ = strings.Cut(l, " | ")
	}
	return strings.Join(lines, "\n")
}

// Parse reads the steps of a story.
func Parse(traffic string) ([]Step, error) {
	var steps []Step
	for i, line := range strings.Split(traffic, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := parseStep(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

func parseStep(line string) (s Step, err error) {
	switch line {
	case "idle":
		return Step{Idle: true}, nil
	case "close":
		return Step{Close: true}, nil
	case "client":
		return Step{Client: true}, nil
	case "datagrams":
		return Step{UDP: true}, nil
	}
	if rest, ok := strings.CutPrefix(line, "missing "); ok {
		s.Missing, line = true, rest
	}
	switch line[0] {
	case '>':
		s.Side = l7.Asks
	case '<':
		s.Side = l7.Answers
	default:
		return s, fmt.Errorf("what is %q?", line)
	}
	line = strings.TrimSpace(line[1:])
	if s.Missing {
		s.More, err = strconv.Atoi(line)
		return s, err
	}
	if line[0] == '"' {
		quoted, err := strconv.QuotedPrefix(line)
		if err != nil {
			return s, err
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return s, err
		}
		s.Data, line = []byte(text), strings.TrimSpace(line[len(quoted):])
	}
	if line != "" {
		s.More, err = strconv.Atoi(strings.TrimPrefix(line, "+"))
	}
	return s, err
}

// Cut cuts the bytes of a story into other chunks. Sides stay in order.
func Cut(steps []Step, seed uint64) []Step {
	r := rand.New(rand.NewPCG(seed, 1))
	var out []Step
	for _, s := range steps {
		for len(s.Data) > 1 && r.IntN(4) > 0 {
			n := 1 + r.IntN(len(s.Data)-1)
			out = append(out, Step{Side: s.Side, Data: s.Data[:n]})
			s.Data = s.Data[n:]
		}
		out = append(out, s)
	}
	return out
}

// Play feeds the steps to a new parser, as the server saw them unless they say
// otherwise, and returns what it found, a line each.
func Play(p l7.Proto, steps []Step) string {
	f := &finder{}
	conn := p.New(f)
	var offset [3]uint64
	sender, transport := l7.Answers, event.TCP
	for i, s := range steps {
		now := int64(i+1) * 1e6
		switch {
		case s.Client:
			sender = l7.Asks
		case s.UDP:
			transport = event.UDP
		case s.Close:
			conn.Close()
		case s.Idle:
			if idler, ok := conn.(l7.Idler); ok {
				idler.Idle(now + 1e9)
			}
		case s.Missing:
			conn.Missing(s.Side, uint64(s.More))
			offset[s.Side] += uint64(s.More)
		default:
			n := len(s.Data) + s.More
			data := slices.Clip(bytes.Clone(s.Data))
			conn.Data(s.Side, &event.Chunk{
				Time: now, Offset: offset[s.Side], Seq: uint32(offset[s.Side]) + 1000, Len: n, Data: data,
				Sent: s.Side == sender, Transport: transport, PID: 1, TID: 1, Conn: 1,
			})
			for i := range data {
				data[i] = 0xAA // it was borrowed
			}
			offset[s.Side] += uint64(n)
		}
		if u, ok := conn.(l7.Upgrader); ok && u.Upgraded() != nil {
			fmt.Fprintf(&f.text, "upgraded to %s\n", u.Upgraded().Proto)
			break
		}
	}
	conn.Close()
	return f.text.String()
}

// finder writes down what a parser finds.
type finder struct {
	text  strings.Builder
	open  int
	noted map[[16]byte]string
}

// Note implements l7.Notebook.
func (f *finder) Note(id [16]byte, name []byte) {
	if f.noted == nil {
		f.noted = map[[16]byte]string{}
	}
	f.noted[id] = string(name)
}

// Noted implements l7.Notebook.
func (f *finder) Noted(id [16]byte) string { return f.noted[id] }

func (f *finder) Begin(m *l7.Mark) *l7.Call {
	c := &l7.Call{}
	c.Start(m)
	f.open++
	return c
}

func (f *finder) End(c *l7.Call, complete bool) {
	f.open--
	c.Complete = complete
	f.text.WriteString(Line(c))
}

func (f *finder) Learn(name string, addr []byte) {
	fmt.Fprintf(&f.text, "learn %s %x\n", name, addr)
}

// Line describes a call; after the bar stands what depends on the cuts.
func Line(c *l7.Call) string {
	var b strings.Builder
	b.WriteString(c.Protocol)
	word := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, " %s=%q", name, value)
		}
	}
	word("version", c.Version)
	word("system", c.System)
	word("operation", c.Operation)
	word("target", c.Target)
	word("namespace", c.Namespace)
	word("summary", c.Summary)
	word("text", c.Text)
	word("query", c.Query)
	if c.Status != 0 {
		fmt.Fprintf(&b, " status=%d", c.Status)
	}
	word("outcome", c.Outcome)
	word("error", c.Error)
	if c.Remote.ID != [16]byte{} {
		fmt.Fprintf(&b, " trace=%x parent=%x", c.Remote.ID, c.Remote.Parent)
	}
	for _, a := range c.Attrs {
		if !strings.HasSuffix(a.Key, "_ns") {
			word(a.Key, a.Value)
		}
	}
	if c.Link != 0 {
		fmt.Fprintf(&b, " link=%d", c.Link)
	}
	fmt.Fprintf(&b, " asked=%d answered=%d", c.RequestBytes, c.ResponseBytes)
	if c.Complete {
		b.WriteString(" complete")
	}
	fmt.Fprintf(&b, " | from %dms, first byte after %dms, all after %dms, offset %d", c.Time/1e6, c.FirstByteNS/1e6, c.DurationNS/1e6, c.Asked.Offset)
	for _, a := range c.Attrs {
		if strings.HasSuffix(a.Key, "_ns") {
			word(a.Key, a.Value)
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// Fuzz feeds arbitrary bytes, cut anywhere, to the parser: it must neither panic
// nor keep a call it never ends.
func Fuzz(f *testing.F, p l7.Proto) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		traffic, _, _ := strings.Cut(string(text), "----\n")
		steps, err := Parse(traffic)
		if err != nil {
			f.Fatal(err)
		}
		var asks, answers []byte
		for _, s := range steps {
			if s.Side == l7.Asks {
				asks = append(asks, s.Data...)
			} else {
				answers = append(answers, s.Data...)
			}
		}
		f.Add(asks, answers, uint64(1))
	}
	f.Fuzz(func(t *testing.T, asks, answers []byte, seed uint64) {
		if len(asks)+len(answers) > 1<<16 {
			return
		}
		p.Sniff(asks)
		r := rand.New(rand.NewPCG(seed, 2))
		out := &finder{}
		conn := p.New(out)
		for len(asks)+len(answers) > 0 {
			side, way := l7.Asks, &asks
			if len(asks) == 0 || len(answers) > 0 && r.IntN(2) == 0 {
				side, way = l7.Answers, &answers
			}
			n := 1 + r.IntN(len(*way))
			captured := n
			switch r.IntN(8) {
			case 0:
				captured = r.IntN(n + 1)
			case 1:
				conn.Missing(side, uint64(r.IntN(100)))
			}
			conn.Data(side, &event.Chunk{Time: 1, Len: n, Data: (*way)[:captured], Sent: side == l7.Answers})
			*way = (*way)[n:]
			if u, ok := conn.(l7.Upgrader); ok && u.Upgraded() != nil {
				break
			}
		}
		conn.Close()
		if out.open != 0 {
			t.Errorf("%d calls were begun and never ended", out.open)
		}
	})
}

// Secrets plays every story of testdata many times, with chunks cut, truncated
// and lost anywhere: none of the secrets that the traffic holds may be in what
// is found.
func Secrets(t *testing.T, p l7.Proto, secrets ...string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in testdata: %v", err)
	}
	held := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		traffic, _, _ := strings.Cut(string(text), "----\n")
		steps, err := Parse(traffic)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, secret := range secrets {
			held += strings.Count(traffic, secret)
		}
		for range 100 {
			seed := rand.Uint64()
			found := Play(p, Lose(Cut(steps, seed), seed))
			for _, secret := range secrets {
				if strings.Contains(found, secret) {
					t.Fatalf("%s, seed %d: %q shows:\n%s", file, seed, secret, found)
				}
			}
		}
	}
	if held == 0 {
		t.Fatal("no story holds a secret")
	}
}

// Lose truncates some of the steps' bytes and lets others go missing.
func Lose(steps []Step, seed uint64) []Step {
	r := rand.New(rand.NewPCG(seed, 4))
	var out []Step
	for _, s := range steps {
		n := len(s.Data)
		switch {
		case n == 0 || r.IntN(4) > 0:
		case r.IntN(2) == 0:
			k := r.IntN(n)
			s.Data, s.More = s.Data[:k], s.More+n-k
		default:
			k := r.IntN(n)
			lost := k
			if r.IntN(2) == 0 {
				lost = 0 // unknown how many
			}
			out = append(out, Step{Side: s.Side, Missing: true, More: lost})
			s.Data = s.Data[k:]
		}
		out = append(out, s)
	}
	return out
}
