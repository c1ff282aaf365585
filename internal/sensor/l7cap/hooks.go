package l7cap

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"ghostlight/internal/kernel"
)

// The end comes first: what is known of a socket by its address must not outlive
// it, nor while the others are attached.
var hooks = []kernel.Hook{
	{
		What:    "the end of a connection",
		Without: "that a connection ended: its open requests end by their age",
		Tiers: []kernel.Tier{{
			Name: "tp_btf tcp_destroy_sock", Program: "l7cap_close",
			Needs: []*kernel.Probe{kernel.HaveTpBTF},
		}},
	},
	{
		What:    "who asks for a connection",
		Without: "for which request an event loop opened a connection: the last one it read is taken",
		Tiers: []kernel.Tier{{
			Name: "tp_btf inet_sock_set_state", Program: "l7cap_open",
			Needs: []*kernel.Probe{kernel.HaveTpBTF}, Repeats: true,
		}},
	},
	{
		What:    "bytes sent",
		Without: "all requests",
		Tiers: []kernel.Tier{
			lengthTier("tp_btf sock_send_length", "l7cap_send"),
			functionTier("fexit inet_sendmsg", "l7cap_x_send"),
		},
	},
	{
		What:    "bytes received",
		Without: "all requests",
		Tiers: []kernel.Tier{
			lengthTier("tp_btf sock_recv_length", "l7cap_recv"),
			functionTier("fexit inet_recvmsg", "l7cap_x_recv"),
		},
	},
	twin("bytes sent at the same time", "sock_send_length", "l7cap_send"),
	twin("bytes received at the same time", "sock_recv_length", "l7cap_recv"),
	older("bytes sent over IPv6", "requests over IPv6", "fexit inet6_sendmsg", "l7cap_x_send6"),
	older("bytes received over IPv6", "requests over IPv6", "fexit inet6_recvmsg", "l7cap_x_recv6"),
	older("files sent", "the size of what sendfile and splice send", "fexit inet_sendpage", "l7cap_x_page"),
	olderUnix("bytes sent over Unix sockets", "fexit unix_stream_sendmsg", "l7cap_x_sendu"),
	olderUnix("files sent over Unix sockets", "fexit unix_stream_sendpage", "l7cap_x_pageu"),
	olderUnix("bytes received over Unix sockets", "fexit unix_stream_recvmsg", "l7cap_x_recvu"),
	{
		What:    "bytes that io_uring moves",
		Without: "requests of programs that serve them by io_uring",
		Tiers: []kernel.Tier{
			{Name: "tp_btf io_uring_complete", Program: "l7cap_uring", Needs: []*kernel.Probe{kernel.HaveTpBTF, kernel.HaveUringRequests}},
			{Name: "tp_btf io_uring_complete of Linux 5.19", Program: "l7cap_uring_7", Needs: []*kernel.Probe{kernel.HaveTpBTF, kernel.HaveUringRequests}},
		},
	},
	{
		What:    "bytes that can be read",
		Without: "how long requests wait in the socket",
		Tiers: []kernel.Tier{
			unmissed(lengthTier("tp_btf sk_data_ready", "l7cap_ready")),
			unmissed(functionTier("fentry sock_def_readable", "l7cap_x_ready")),
		},
	},
	senders("IPv4", "recvmsg4", "l7cap_from4", ebpf.AttachCGroupUDP4Recvmsg),
	senders("IPv6", "recvmsg6", "l7cap_from6", ebpf.AttachCGroupUDP6Recvmsg),
}

// The three tracepoints came together.
func lengthTier(name, program string) kernel.Tier {
	return kernel.Tier{Name: name, Program: program, Needs: []*kernel.Probe{kernel.HaveSockLength}}
}

func functionTier(name, program string) kernel.Tier {
	return kernel.Tier{Name: name, Program: program, Needs: []*kernel.Probe{kernel.HaveFentry}}
}

// unmissed is a tier that may miss a run: the time stays unknown.
func unmissed(t kernel.Tier) kernel.Tier {
	t.Repeats = true
	return t
}

// twin sees what the first program at the tracepoint missed.
func twin(what, tracepoint, program string) kernel.Hook {
	t := lengthTier("second tp_btf "+tracepoint, program+"_twin")
	t.Twin = true
	t.Needs = append(t.Needs, kernel.PreemptsTracepoints)
	return kernel.Hook{What: what, Without: "some of what is moved on one CPU at once", Tiers: []kernel.Tier{
		t, {Name: "one program: this kernel does not preempt tracepoints", Program: "l7cap_close", Attach: nowhere},
	}}
}

// older is a hook that the tracepoints make needless.
func older(what, without, name, program string) kernel.Hook {
	needless := lengthTier("tp_btf, which sees every socket", "l7cap_send")
	needless.Attach = nowhere
	return kernel.Hook{What: what, Without: without, Tiers: []kernel.Tier{needless, functionTier(name, program)}}
}

// senders is where the kernel tells who sent what a socket receives that is
// not connected: the other hooks see no address.
func senders(family, name, program string, at ebpf.AttachType) kernel.Hook {
	return kernel.Hook{
		What: "who sends datagrams over " + family, Without: "who asks a server of datagrams over " + family,
		Tiers: []kernel.Tier{{Name: "cgroup " + name, Program: program, Attach: kernel.AttachCgroupRoot(at)}},
	}
}

// olderUnix is attached if Unix sockets are watched.
func olderUnix(what, name, program string) kernel.Hook {
	h := older(what, "requests over Unix sockets", name, program)
	h.Tiers[1].Attach = func(o *kernel.Object, p *ebpf.Program) (link.Link, error) {
		var watched bool
		if err := o.Variables["watch_unix"].Get(&watched); err != nil || !watched {
			return nil, err
		}
		return link.AttachTracing(link.TracingOptions{Program: p})
	}
	return h
}

func nowhere(*kernel.Object, *ebpf.Program) (link.Link, error) { return nil, nil }
