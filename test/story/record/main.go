// Command record is a proxy that writes what passes through it as a story:
//
//	go run ./test/story/record -listen 127.0.0.1:18301 -to 127.0.0.1:18302 -out testdata/curl.txt -comment "curl 7.88 asks nginx 1.22"
//
// The first connection is written to the file of -out, the second to curl-2.txt,
// and so on; after -connections of them it ends. Addresses that begin with a
// slash are Unix sockets; -udp passes datagrams between one client and the
// server until -idle has gone by.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

var (
	listenAt    = flag.String("listen", "", "where the client connects to")
	server      = flag.String("to", "", "where the server listens")
	out         = flag.String("out", "", "file of the first connection's story")
	comment     = flag.String("comment", "", "first line of each story")
	connections = flag.Int("connections", 1, "how many to wait for")
	capture     = flag.Int("capture", 1<<20, "bytes written of a chunk; the rest is only counted")
	udp         = flag.Bool("udp", false, "pass datagrams")
	idle        = flag.Duration("idle", 2*time.Second, "how long datagrams are waited for")
)

func main() {
	flag.Parse()
	log.SetFlags(0)
	run := proxy
	if *udp {
		run = datagrams
	}
	if err := run(); err != nil {
		log.Fatal("record: ", err)
	}
}

// story is the file of one connection.
type story struct {
	mu   sync.Mutex
	file *os.File
}

func create(n int) (*story, error) {
	name := *out
	if n > 0 {
		ext := filepath.Ext(name)
		name = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, ext), n+1, ext)
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	if *comment != "" {
		fmt.Fprintln(f, "#", *comment)
	}
	return &story{file: f}, nil
}

func (s *story) add(way string, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprint(s.file, way, " ", strconv.QuoteToASCII(string(p[:min(len(p), *capture)])))
	if more := len(p) - *capture; more > 0 {
		fmt.Fprint(s.file, " +", more)
	}
	fmt.Fprintln(s.file)
}

func (s *story) end() error {
	_, err := s.file.WriteString("----\n")
	return errors.Join(err, s.file.Close())
}

func network(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

func proxy() error {
	l, err := net.Listen(network(*listenAt), *listenAt)
	if err != nil {
		return err
	}
	defer l.Close()
	var all sync.WaitGroup
	for n := range *connections {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		all.Go(func() {
			if err := pass(c, n); err != nil {
				log.Print("record: ", err)
			}
		})
	}
	all.Wait()
	return nil
}

// pass carries one connection until both ends are done.
func pass(client net.Conn, n int) error {
	defer client.Close()
	up, err := net.Dial(network(*server), *server)
	if err != nil {
		return err
	}
	defer up.Close()
	s, err := create(n)
	if err != nil {
		return err
	}
	var both sync.WaitGroup
	both.Go(func() { s.way(">", client, up) })
	both.Go(func() { s.way("<", up, client) })
	both.Wait()
	return s.end()
}

// way writes each chunk down before it is passed on, so that the answer never
// stands before what it answers.
func (s *story) way(name string, from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			s.add(name, buf[:n])
			if _, err := to.Write(buf[:n]); err != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			if half, ok := to.(interface{ CloseWrite() error }); ok && err == io.EOF {
				half.CloseWrite()
				return
			}
			to.Close()
			return
		}
	}
}

func datagrams() error {
	l, err := net.ListenPacket("udp", *listenAt)
	if err != nil {
		return err
	}
	defer l.Close()
	up, err := net.Dial("udp", *server)
	if err != nil {
		return err
	}
	defer up.Close()
	s, err := create(0)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, client, err := l.ReadFrom(buf)
	if err != nil {
		return err
	}
	go func() { // ends when up is closed
		buf := make([]byte, 64<<10)
		for {
			n, err := up.Read(buf)
			if err != nil {
				return
			}
			s.add("<", buf[:n])
			l.WriteTo(buf[:n], client)
		}
	}()
	for err == nil {
		s.add(">", buf[:n])
		if _, err := up.Write(buf[:n]); err != nil {
			return err
		}
		l.SetReadDeadline(time.Now().Add(*idle))
		n, _, err = l.ReadFrom(buf)
	}
	s.mu.Lock() // an answer that comes now is too late
	return s.end()
}
