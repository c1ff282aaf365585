package cli

import (
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
	"time"
)

// flowRecord is a row of flows as the API sends it.
type flowRecord struct {
	Kind    string
	Time    time.Time
	EndTime time.Time `json:"end_time"`
	Flow    struct{ ID int64 }
	Network struct {
		Transport string
		Interface struct{ Name string }
	}
	Source, Destination struct {
		Address string
		Port    *int
	}
	Direction string
	Verdict   string
	Process   processPart
	Container struct{ ID, Name string }
	Service   struct{ Name string }
	Peer      struct {
		PID       int
		Service   struct{ Name string }
		Container struct{ Name string }
	}
	TCP struct {
		State           string
		ConnectNS       int64  `json:"connect_ns"`
		RTTMinNS        int64  `json:"rtt_min_ns"`
		RTTNS           int64  `json:"rtt_ns"`
		WindowLimitedNS int64  `json:"window_limited_ns"`
		CloseReason     string `json:"close_reason"`
		ResetReason     string `json:"reset_reason"`
		ZeroWindows     int64  `json:"zero_windows"`
		ListenDrops     int64  `json:"listen_drops"`
		Retransmits     int64
	}
	Bytes, Packets struct{ Sent, Received int64 }
	Drop           struct {
		Reason string
		Count  int64
	}
	Complete   *bool
	Attributes map[string]string
}

// processPart is what rows of several tables say of a process.
type processPart struct {
	PID       int
	ParentPID int    `json:"parent_pid"`
	ExecID    string `json:"exec_id"`
	StartNS   int64  `json:"start_ns"`
	Parent    struct {
		ExecID string `json:"exec_id"`
	}
	Executable struct{ Path, Name string }
	Args       []string `json:"command_args"`
	ArgsCut    bool     `json:"args_truncated"`
	Cwd        string   `json:"working_directory"`
	User       struct{ ID *int64 }
	Exit       struct{ Code, Signal int }
}

// processRecord is a row of processes.
type processRecord struct {
	Time      time.Time
	Action    string
	Process   processPart
	Container struct{ ID, Name string }
	Service   struct{ Name string }
	Complete  *bool
}

// clock writes a time of day in the terminal's zone, with the day if it is not
// today.
func (t Terminal) clock(at time.Time) string {
	at = at.In(t.Zone)
	if y, m, d := t.Now().In(t.Zone).Date(); at.Year() == y && at.Month() == m && at.Day() == d {
		return at.Format("15:04:05.000")
	}
	return at.Format("2006-01-02 15:04:05.000")
}

// who writes a process: curl[1234].
func who(name string, pid int) string {
	name = clean(name)
	switch {
	case pid > 0 && name == "":
		return "[" + strconv.Itoa(pid) + "]"
	case pid > 0:
		return name + "[" + strconv.Itoa(pid) + "]"
	}
	return name
}

// end writes one end of a flow: its process, if we know it, and its address.
func end(process, address string, port *int) string {
	at := address
	if port != nil && *port > 0 { // ICMP has none
		at = net.JoinHostPort(address, strconv.Itoa(*port))
	}
	return strings.TrimSpace(process + " " + clean(at))
}

// ends returns the end the record belongs to, an arrow from the client to the
// server, and the other end.
func (f *flowRecord) ends() (own, arrow, other string) {
	name := f.Service.Name // as the other end is named: by what it is, not by its interpreter
	if name == "" {
		name = f.Process.Executable.Name
	}
	me, peer := who(name, f.Process.PID), who(f.Peer.Service.Name, f.Peer.PID)
	if f.Direction == "inbound" {
		return end(me, f.Destination.Address, f.Destination.Port), "<-", end(peer, f.Source.Address, f.Source.Port)
	}
	return end(me, f.Source.Address, f.Source.Port), "->", end(peer, f.Destination.Address, f.Destination.Port)
}

// outcome tells how the flow stands or ended, in words.
func (f *flowRecord) outcome() cell {
	switch {
	case f.Verdict == "dropped":
		text := "dropped"
		if f.Drop.Reason != "" {
			text += " (" + clean(f.Drop.Reason) + ")"
		}
		if f.Drop.Count > 1 {
			text += fmt.Sprintf(" ×%d", f.Drop.Count)
		}
		return cell{text, yellow}
	case f.TCP.CloseReason == "fin_sent", f.TCP.CloseReason == "fin_received":
		return cell{"closed (" + f.TCP.CloseReason + ")", plainStyle}
	case strings.HasPrefix(f.TCP.CloseReason, "reset_"):
		text := "reset (" + strings.TrimPrefix(f.TCP.CloseReason, "reset_")
		if f.TCP.ResetReason != "" {
			text += ", " + clean(f.TCP.ResetReason)
		}
		return cell{text + ")", red}
	case f.TCP.CloseReason != "":
		return cell{clean(f.TCP.CloseReason), red}
	case f.Verdict == "error":
		return cell{"failed", red}
	case f.TCP.State == "established":
		return cell{"open", green}
	case f.TCP.State == "":
		return cell{clean(f.Verdict), plainStyle}
	}
	return cell{clean(f.TCP.State), dim}
}

func (f *flowRecord) transport() string {
	if f.Network.Transport == "" {
		return "ip"
	}
	return clean(f.Network.Transport)
}

// remarks is what a person should notice beside the bytes.
func (f *flowRecord) remarks() string {
	var all []string
	if f.TCP.RTTNS > 0 {
		all = append(all, "rtt "+spanText(time.Duration(f.TCP.RTTNS)))
	}
	if f.TCP.Retransmits > 0 {
		all = append(all, fmt.Sprintf("retransmits %d", f.TCP.Retransmits))
	}
	if f.TCP.ZeroWindows > 0 {
		all = append(all, fmt.Sprintf("zero windows %d", f.TCP.ZeroWindows))
	}
	if f.TCP.ListenDrops > 0 {
		all = append(all, fmt.Sprintf("listen queue overflows %d", f.TCP.ListenDrops))
	}
	if f.Complete != nil && !*f.Complete {
		all = append(all, "(not seen whole)")
	}
	return strings.Join(all, "  ")
}

// more is the rest of what is known, for the wide view.
func (f *flowRecord) more() string {
	var b strings.Builder
	add := func(key, value string) {
		if value != "" && value != "0 ns" {
			fmt.Fprintf(&b, "  %s=%s", key, quoteBlanks(clean(value)))
		}
	}
	add("lasted", spanText(f.EndTime.Sub(f.Time)))
	add("packets", fmt.Sprintf("%d/%d", f.Packets.Sent, f.Packets.Received))
	add("connect", spanText(time.Duration(f.TCP.ConnectNS)))
	add("rtt_min", spanText(time.Duration(f.TCP.RTTMinNS)))
	add("window_limited", spanText(time.Duration(f.TCP.WindowLimitedNS)))
	add("service", f.Service.Name)
	add("container", containerName(f.Container.Name, f.Container.ID))
	add("peer_container", f.Peer.Container.Name)
	add("interface", f.Network.Interface.Name)
	if len(f.Process.Args) > 0 {
		add("command", f.Process.command())
	}
	return strings.TrimSpace(b.String())
}

func quoteBlanks(s string) string {
	if strings.ContainsAny(s, " \"=") {
		return strconv.Quote(s)
	}
	return s
}

func containerName(name, id string) string {
	if name != "" {
		return name
	}
	return id[:min(len(id), 12)]
}

// command is the process's arguments as one line, or the name where a kernel
// thread has none.
func (p *processPart) command() string {
	switch {
	case len(p.Args) == 1: // a program that wrote its own title over its arguments
		return clean(p.Args[0])
	case len(p.Args) > 0:
		words := make([]string, len(p.Args))
		for i, a := range p.Args {
			words[i] = shellWord(a)
		}
		line := strings.Join(words, " ")
		if p.ArgsCut {
			line += " …"
		}
		return line
	case p.Executable.Path != "":
		return clean(p.Executable.Path)
	}
	return "[" + clean(p.Executable.Name) + "]"
}

// shellWord quotes an argument that would not be one word in a shell.
func shellWord(a string) string {
	a = clean(a)
	if a == "" || strings.ContainsAny(a, " \t'\"|&;<>()$`*?#") {
		return "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return a
}

func (p *processPart) name() string {
	if p.Executable.Name != "" {
		return p.Executable.Name
	}
	return path.Base(p.Executable.Path)
}
