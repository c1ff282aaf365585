package l7cap

import (
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// story is a way to move bytes, and the chunks that both ends must give,
// whichever hooks see them.
type story struct {
	name string
	move func(t *testing.T, p *pair) (client, server []piece)
}

var stories = []story{
	{"write and read", func(t *testing.T, p *pair) (c, s []piece) {
		p.write(p.client, "ASK one")
		p.read(p.server, 100)
		p.write(p.server, "ANS two")
		p.read(p.client, 100)
		return []piece{sent(0, 7, "ASK one"), received(0, 7, "ANS two")},
			[]piece{received(0, 7, "ASK one"), sent(0, 7, "ANS two")}
	}},
	{"a FIN behind the last bytes", func(t *testing.T, p *pair) (c, s []piece) {
		p.write(p.client, "ASK one")
		if err := unix.Shutdown(p.client, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // it is there before the bytes are read
		p.read(p.server, 3)
		p.read(p.server, 100)
		p.write(p.server, "ANS two")
		p.read(p.client, 100)
		return []piece{sent(0, 7, "ASK one"), received(0, 7, "ANS two")},
			[]piece{received(0, 7, "ASK one"), sent(0, 7, "ANS two")}
	}},
	{"keep-alive", func(t *testing.T, p *pair) (c, s []piece) {
		for i := range uint64(3) {
			p.write(p.client, "ASK one")
			p.read(p.server, 100)
			p.write(p.server, "ANS two")
			p.read(p.client, 100)
			c = append(c, sent(7*i, 7, "ASK one"), received(7*i, 7, "ANS two"))
			s = append(s, received(7*i, 7, "ASK one"), sent(7*i, 7, "ANS two"))
		}
		return c, s
	}},
	{"writev and readv", func(t *testing.T, p *pair) (c, s []piece) {
		n, err := unix.Writev(p.client, [][]byte{[]byte("A"), []byte("SK"), {}, []byte(" of pieces"), []byte(text("", 300))})
		if n != 313 || err != nil {
			t.Fatal(n, err)
		}
		p.arrived(p.server, 313)
		n, err = unix.Readv(p.server, [][]byte{make([]byte, 2), make([]byte, 5), make([]byte, 1000)})
		if n != 313 || err != nil {
			t.Fatal(n, err)
		}
		all := "ASK of pieces" + text("", 300)
		return []piece{sent(0, 313, all)}, []piece{received(0, 313, all)}
	}},
	{"more pieces than are looked at", func(t *testing.T, p *pair) (c, s []piece) {
		v := [][]byte{[]byte("ASK ")}
		for range 9 {
			v = append(v, []byte("0123456789"))
		}
		if n, err := unix.Writev(p.client, v); n != 94 || err != nil {
			t.Fatal(n, err)
		}
		p.arrived(p.server, 94)
		p.read(p.server, 100)
		return []piece{sent(0, 94, "ASK 0123456789012345678901234567890123456789012345678901234567890123456789")},
			[]piece{received(0, 94, "ASK 012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789")}
	}},
	{"sendto and recvfrom", func(t *testing.T, p *pair) (c, s []piece) {
		if err := unix.Sendto(p.client, []byte("ASK send"), unix.MSG_NOSIGNAL, nil); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		// A look is no read.
		if n, _, err := unix.Recvfrom(p.server, b, unix.MSG_PEEK); n != 8 || err != nil {
			t.Fatal(n, err)
		}
		if n, _, err := unix.Recvfrom(p.server, b, 0); n != 8 || err != nil {
			t.Fatal(n, err)
		}
		return []piece{sent(0, 8, "ASK send")}, []piece{received(0, 8, "ASK send")}
	}},
	{"sendmsg and recvmsg", func(t *testing.T, p *pair) (c, s []piece) {
		n, err := unix.SendmsgBuffers(p.client, [][]byte{[]byte("AS"), []byte("K message")}, nil, nil, 0)
		if n != 11 || err != nil {
			t.Fatal(n, err)
		}
		n, _, _, _, err = unix.RecvmsgBuffers(p.server, [][]byte{make([]byte, 1), make([]byte, 1), make([]byte, 100)}, nil, 0)
		if n != 11 || err != nil {
			t.Fatal(n, err)
		}
		return []piece{sent(0, 11, "ASK message")}, []piece{received(0, 11, "ASK message")}
	}},
	{"sendmmsg and recvmmsg", func(t *testing.T, p *pair) (c, s []piece) {
		if n := mmsg(t, unix.SYS_SENDMMSG, p.client, []byte("ASK first"), []byte("second"), []byte("and third")); n != 3 {
			t.Fatal(n)
		}
		p.arrived(p.server, 24)
		if n := mmsg(t, unix.SYS_RECVMMSG, p.server, make([]byte, 9), make([]byte, 15)); n != 2 {
			t.Fatal(n)
		}
		return []piece{sent(0, 9, "ASK first"), sent(9, 6, "second"), sent(15, 9, "and third")},
			[]piece{received(0, 9, "ASK first"), received(9, 15, "secondand third")}
	}},
	{"sendfile", func(t *testing.T, p *pair) (c, s []piece) {
		file := filepath.Join(t.TempDir(), "body")
		if err := os.WriteFile(file, []byte(text("", 3000)), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p.write(p.client, "ANS head")
		if n, err := unix.Sendfile(p.client, int(f.Fd()), nil, 3000); n != 3000 || err != nil {
			t.Fatal(n, err)
		}
		p.write(p.client, "ANS more")
		p.arrived(p.server, 3016)
		p.read(p.server, 8)
		p.read(p.server, 3000)
		p.read(p.server, 8)
		return []piece{sent(0, 8, "ANS head"), sent(8, 3000, ""), sent(3008, 8, "ANS more")},
			[]piece{received(0, 8, "ANS head"), received(8, 3000, text("", 3000)[:1024]), received(3008, 8, "ANS more")}
	}},
	{"splice", func(t *testing.T, p *pair) (c, s []piece) {
		var pipe [2]int
		if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
		p.write(p.client, "ANS head")
		p.write(pipe[1], text("", 2000))
		if n, err := unix.Splice(pipe[0], nil, p.client, nil, 2000, 0); n != 2000 || err != nil {
			t.Fatal(n, err)
		}
		p.write(p.client, "ANS more")
		p.arrived(p.server, 2016)
		p.read(p.server, 8)
		for got := 0; got < 2000; {
			n, err := unix.Splice(p.server, nil, pipe[1], nil, 2000-got, 0)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			got += int(n)
		}
		p.read(p.server, 100)
		// No hook sees what is spliced from a socket: a gap.
		return []piece{sent(0, 8, "ANS head"), sent(8, 2000, ""), sent(2008, 8, "ANS more")},
			[]piece{received(0, 8, "ANS head"), received(2008, 8, "ANS more")}
	}},
	{"nothing to read", func(t *testing.T, p *pair) (c, s []piece) {
		if err := unix.SetNonblock(p.server, true); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		for range 3 {
			if _, err := unix.Read(p.server, b); err != unix.EAGAIN {
				t.Fatal(err)
			}
		}
		p.write(p.client, "ASK one")
		p.arrived(p.server, 7)
		if n, err := unix.Read(p.server, b); n != 7 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := unix.Read(p.server, b); err != unix.EAGAIN {
			t.Fatal(err)
		}
		return []piece{sent(0, 7, "ASK one")}, []piece{received(0, 7, "ASK one")}
	}},
	{"a head after the answer's body", func(t *testing.T, p *pair) (c, s []piece) {
		// 1024 bytes of a call and 4096 of a turn are captured, then only what
		// begins a message again.
		at := uint64(0)
		for i, size := range []int{2000, 2000, 2000, 2000, 2000, 2000} {
			body := text("body", size)
			if i == 0 || i == 5 {
				body = text("ANS ", size)
			}
			p.write(p.server, body)
			for got := 0; got < size; {
				got += len(p.read(p.client, size-got))
			}
			kept := 1024
			if i == 4 {
				kept = 0
			}
			s = append(s, sent(at, size, body[:kept]))
			c = append(c, received(at, size, body[:kept]))
			at += uint64(size)
		}
		p.write(p.client, "ASK")
		p.read(p.server, 100)
		p.write(p.server, "the turn is new")
		p.read(p.client, 100)
		s = append(s, received(0, 3, "ASK"), sent(at, 15, "the turn is new"))
		c = append(c, sent(0, 3, "ASK"), received(at, 15, "the turn is new"))
		return c, s
	}},
	{"frames", func(t *testing.T, p *pair) (c, s []piece) {
		at := uint64(0)
		for _, size := range []int{100, 128, 129, 512, 513, 1024, 1025, 4096, 4097, 16384, 20000} {
			body := text("FRQ ", size)
			p.write(p.client, body)
			p.arrived(p.server, size)
			if got := p.read(p.server, 1<<20); got != body {
				t.Fatal(len(got))
			}
			kept := body[:min(size, 16384)]
			c = append(c, sent(at, size, kept))
			s = append(s, received(at, size, kept))
			at += uint64(size)
		}
		return c, s
	}},
	{"frames in pieces", func(t *testing.T, p *pair) (c, s []piece) {
		at := uint64(0)
		for _, size := range []int{100, 128, 129, 512, 513, 1024, 1025, 4096, 4097, 16384, 20000} {
			body := text("FRQ ", size)
			if n, err := unix.Writev(p.client, [][]byte{[]byte(body[:50]), []byte(body[50:60]), []byte(body[60:])}); n != size || err != nil {
				t.Fatal(n, err)
			}
			p.arrived(p.server, size)
			if n, err := unix.Readv(p.server, [][]byte{make([]byte, 30), make([]byte, 1<<16)}); n != size || err != nil {
				t.Fatal(n, err)
			}
			kept := body[:min(size, 16384)]
			c = append(c, sent(at, size, kept))
			s = append(s, received(at, size, kept))
			at += uint64(size)
		}
		return c, s
	}},
	{"another protocol", func(t *testing.T, p *pair) (c, s []piece) {
		for range 8 {
			p.write(p.client, "nothing that anybody knows")
			p.read(p.server, 100)
		}
		p.write(p.client, "ASK too late")
		p.read(p.server, 100)
		return nil, nil
	}},
	{"encrypted", func(t *testing.T, p *pair) (c, s []piece) {
		p.write(p.client, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
		p.read(p.server, 100)
		p.write(p.client, "ASK in disguise")
		p.read(p.server, 100)
		return nil, nil
	}},
	{"encrypted after some words", func(t *testing.T, p *pair) (c, s []piece) {
		const hello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
		p.write(p.client, "ASK to be private")
		p.read(p.server, 100)
		p.write(p.server, "ANS yes")
		p.read(p.client, 100)
		p.write(p.client, hello)
		p.read(p.server, 100)
		p.write(p.client, "ASK in disguise")
		p.read(p.server, 100)
		p.write(p.server, "ANS in disguise")
		p.read(p.client, 100)
		n := len(hello)
		return []piece{sent(0, 17, "ASK to be private"), received(0, 7, "ANS yes"), sent(17, n, hello)},
			[]piece{received(0, 17, "ASK to be private"), sent(0, 7, "ANS yes"), received(17, n, hello)}
	}},
	{"the middle of a connection", func(t *testing.T, p *pair) (c, s []piece) {
		p.write(p.client, text("the rest of a body ", 600))
		p.read(p.server, 600)
		p.write(p.client, text("and more of it ", 600))
		p.read(p.server, 600)
		p.write(p.client, "ASK one")
		p.read(p.server, 100)
		return []piece{sent(1200, 7, "ASK one")}, []piece{received(1200, 7, "ASK one")}
	}},
}

// mmsg makes one call that moves several messages.
func mmsg(t *testing.T, call uintptr, fd int, buffers ...[]byte) int {
	t.Helper()
	type mmsghdr struct {
		unix.Msghdr
		n uint32
	}
	headers := make([]mmsghdr, len(buffers))
	for i, b := range buffers {
		v := &unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		headers[i].Iov = v
		headers[i].SetIovlen(1)
	}
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), uintptr(len(headers)), 0, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return int(n)
}

func TestConformance(t *testing.T) {
	for _, tier := range tiers {
		t.Run(tier.name, func(t *testing.T) {
			w := begin(t, mode{unix: true, tier: tier})
			for _, n := range []network{tcp4, tcp6, unixStream} {
				for _, s := range stories {
					if n.name == unixStream.name && s.name == "splice" {
						continue // a Unix socket has no sequence numbers to tell a gap by
					}
					t.Run(n.name+"/"+s.name, func(t *testing.T) {
						w.t = t
						p := n.pair(t)
						client, server := s.move(t, p)
						w.want(p.clientCookie, "client", client...)
						w.want(p.serverCookie, "server", server...)
					})
				}
			}
			w.t = t
			if n := w.lost(); n > 0 {
				t.Errorf("%d lost", n)
			}
		})
	}
}

// However a head is cut, none of its bytes is lost.
func TestSplitHeads(t *testing.T) {
	const head = "ASK /what/is/this HTTP or not"
	for _, tier := range tiers {
		t.Run(tier.name, func(t *testing.T) {
			w := begin(t, mode{tier: tier, unix: true})
			for first := 1; first < len(head); first++ {
				for second := 1; second <= 4 && first+second < len(head); second++ {
					p := tcp4.pair(t)
					for _, part := range []string{head[:first], head[first : first+second], head[first+second:]} {
						p.write(p.client, part)
						p.arrived(p.server, len(part))
						p.read(p.server, 100)
					}
					// The next one: a byte ahead, as Go's net/http reads.
					p.write(p.client, "ASK again")
					p.arrived(p.server, 9)
					p.read(p.server, 1)
					p.read(p.server, 100)
					for who, id := range map[string]uint64{"client": p.clientCookie, "server": p.serverCookie} {
						var all string
						for _, c := range w.of(id) {
							if c.Offset != uint64(len(all)) || c.Len != len(c.Data) || c.Proto != turns {
								t.Errorf("%d, %d: %s has %d+%d %q after %q", first, second, who, c.Offset, c.Len, c.Data, all)
							}
							all += string(c.Data)
						}
						if all != head+"ASK again" {
							t.Errorf("%d, %d: %s gives %q", first, second, who, all)
						}
					}
					w.chunks = nil
					unix.Close(p.client)
					unix.Close(p.server)
					p.client, p.server = -1, -1
				}
			}
		})
	}
}
