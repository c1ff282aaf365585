// Command bench measures what Ghostlight costs and writes docs/bench.md. The
// machines it runs on are shared and noisy: it compares by turns (off, on, off,
// on ...), counts CPU time and not wall time, and reports medians.
//
//	go run ./test/bench [-only storm,idle,loss,requests,store,peers] [-o docs/bench.md]
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// section is one table of the page.
type section struct {
	name  string
	title string
	run   func(*bench) (string, error)
}

var sections = []section{
	{"storm", "What the agent adds to a connection storm, a bulk transfer and an exec storm", (*bench).storm},
	{"start", "From the start to the first flow, and the size of the binary", (*bench).start},
	{"idle", "CPU and memory of the agent, idle and under load", (*bench).idle},
	{"loss", "Loss at rising rates", (*bench).loss},
	{"requests", "Requests: what is captured, and what it costs", (*bench).requests},
	{"store", "Store: ten million rows", (*bench).store},
	{"peers", "The same storm under bpftrace", (*bench).peers},
}

// bench is one run of this program.
type bench struct {
	self, agent string // programs
	rounds      int
	quick       bool
}

func main() {
	only := flag.String("only", "", "comma-separated `names` of sections")
	out := flag.String("o", "docs/bench.md", "the `file` to write")
	agent := flag.String("agent", "bin/ghostlight", "the `binary` to measure")
	rounds := flag.Int("rounds", 5, "rounds of each comparison")
	quick := flag.Bool("quick", false, "short rounds, to see that it works")
	flag.Parse()
	if err := dispatch(flag.Args()); err != errNoLoad {
		exit(err)
	}
	self, err := os.Executable()
	exitOn(err)
	b := &bench{self: self, agent: *agent, rounds: *rounds, quick: *quick}
	exitOn(b.run(*only, *out))
}

var errNoLoad = fmt.Errorf("bench: not a load")

// dispatch runs this program as one of its own loads.
func dispatch(args []string) error {
	if len(args) == 0 {
		return errNoLoad
	}
	number := func(i int) int {
		if i >= len(args) {
			return 0
		}
		n, err := strconv.Atoi(args[i])
		exitOn(err)
		return n
	}
	switch args[0] {
	case "serve":
		return serve(args[1])
	case "storm":
		return storm(args[1], number(2), time.Duration(number(3))*time.Millisecond)
	case "bulk":
		return bulk(args[1], number(2))
	case "execs":
		return execs(number(1))
	case "web":
		return web(args[1])
	case "paced":
		return paced(args[1], args[2], number(3), time.Duration(number(4))*time.Millisecond)
	case "calls":
		return calls(args[1], number(2))
	}
	return fmt.Errorf("bench: no load is called %q", args[0])
}

func exitOn(err error) {
	if err != nil {
		exit(err)
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run runs the sections and writes each into the page as soon as it is done.
func (b *bench) run(only, file string) error {
	for _, s := range sections {
		if only != "" && !slices.Contains(strings.Split(only, ","), s.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", s.title)
		body, err := s.run(b)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		text := fmt.Sprintf("## %s\n\n`go run ./test/bench -only %s`, %s, Linux %s, %s.\n\n%s", s.title, s.name, time.Now().UTC().Format(time.DateOnly), release(), machine(), body)
		old, _ := os.ReadFile(file) // none the first time
		if err := os.WriteFile(file, page(string(old), s.name, text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// page is the old page with one section replaced.
func page(old, name, text string) []byte {
	var page bytes.Buffer
	page.WriteString(head())
	for _, s := range sections {
		body := keep(old, s)
		if s.name == name {
			body = text
		}
		if body != "" {
			page.WriteString("\n" + strings.TrimSpace(body) + "\n")
		}
	}
	return page.Bytes()
}

// keep returns the section of the old page.
func keep(old string, s section) string {
	_, rest, found := strings.Cut(old, "## "+s.title+"\n")
	if !found {
		return ""
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return "## " + s.title + "\n" + body
}

func head() string {
	return `# Benchmarks

Written by ` + "`make bench`" + `. CPU time is user and system time of the whole process, as the kernel accounts it; what the
BPF programs cost is inside the time of the programs they watch. "Added" is the median over rounds that alternate off
and on. Wall time is not compared: the machines are shared.
`
}
