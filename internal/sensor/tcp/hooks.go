package tcp

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"ghostlight/internal/kernel"
)

// Cookies come first: they must be there when the others look.
var hooks = []kernel.Hook{
	cookies("cookies of sockets that ask", "cgroup sock_create", "tcp_ask_create", ebpf.AttachCGroupInetSockCreate),
	cookies("cookies of sockets that are accepted", "cgroup sockops", "tcp_ask_accept", ebpf.AttachCGroupSockOps),
	{
		What:    "TCP state changes",
		Without: "all TCP connections",
		Tiers: []kernel.Tier{{
			Name: "tp_btf inet_sock_set_state", Program: "tcp_set_state",
			Needs: []*kernel.Probe{kernel.HaveTpBTF},
		}},
	},
	{
		What:    "the end of a TCP socket",
		Without: "how connections ended and what the short ones carried",
		Tiers: []kernel.Tier{{
			Name: "tp_btf tcp_destroy_sock", Program: "tcp_destroy",
			Needs: []*kernel.Probe{kernel.HaveTpBTF},
		}},
	},
	{
		What:    "TCP state changes that interrupt another",
		Without: "few connections on busy hosts; they are counted as lost",
		Tiers: []kernel.Tier{{
			Name: "second tp_btf inet_sock_set_state", Program: "twin_set_state", Twin: true,
			Needs: []*kernel.Probe{kernel.HaveTpBTF},
		}},
	},
	{
		What:    "ends of TCP sockets that interrupt another",
		Without: "how few connections ended on busy hosts; they are counted as lost",
		Tiers: []kernel.Tier{{
			Name: "second tp_btf tcp_destroy_sock", Program: "twin_destroy", Twin: true,
			Needs: []*kernel.Probe{kernel.HaveTpBTF},
		}},
	},
	{
		What:    "resets sent",
		Without: "that this host reset a connection, and why",
		Tiers: []kernel.Tier{{
			Name: "tp_btf tcp_send_reset", Program: "tcp_send_reset",
			Needs: []*kernel.Probe{kernel.HaveTpBTF},
		}},
	},
	{
		What:    "resets received",
		Without: "that the other end reset a connection",
		Tiers: []kernel.Tier{{
			Name: "tp_btf tcp_receive_reset", Program: "tcp_recv_reset",
			Needs: []*kernel.Probe{kernel.HaveTpBTF},
		}},
	},
	{
		What:    "reads: the process that serves, and receive windows that were closed",
		Without: "the worker: accepted connections belong to the process that listens; and zero windows, save those that last",
		Tiers: []kernel.Tier{{
			Name: "tp_btf tcp_rcv_space_adjust", Program: "tcp_read", Repeats: true, // at the next read, or the close
			Needs: []*kernel.Probe{kernel.HaveTpBTF},
		}},
	},
	{
		What:    "connections that stay open",
		Without: "connections before they end",
		Tiers: []kernel.Tier{{
			Name: "iter bpf_map_elem", Program: "tcp_sweep", Over: "conn_by_socket",
			Needs: []*kernel.Probe{kernel.HaveIter},
		}},
	},
	{
		What:    "the owners of sockets that were open before the start",
		Without: "their process, until one reads from them",
		Tiers: []kernel.Tier{
			{
				// The helper that makes a socket of a file came with this one.
				Name: "iter task_file", Program: "tcp_task_file",
				Needs: []*kernel.Probe{kernel.HaveSkStorageTracing},
			},
			{
				Name: "iter task_file by address", Program: "tcp_file_old",
				Needs: []*kernel.Probe{kernel.HaveIter},
			},
		},
	},
	{
		What:    "sockets that were open before the start and that no process holds",
		Without: "connections whose process has closed them already",
		Tiers: []kernel.Tier{{
			Name: "iter tcp", Program: "tcp_iter",
			Needs: []*kernel.Probe{kernel.HaveIter},
		}},
	},
}

// cookies sees to it that sockets have one, on kernels where tracing programs
// cannot give them one themselves.
func cookies(what, name, program string, at ebpf.AttachType) kernel.Hook {
	return kernel.Hook{
		What: what, Without: "that flows and requests of a connection name each other",
		Tiers: []kernel.Tier{
			{Name: "not needed: tracing programs give them", Program: program, Needs: []*kernel.Probe{kernel.HaveTracingCookie}, Attach: nowhere},
			{Name: name, Program: program, Attach: kernel.AttachCgroupRoot(at)},
		},
	}
}

func nowhere(*kernel.Object, *ebpf.Program) (link.Link, error) { return nil, nil }
