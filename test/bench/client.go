package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const benchPath = "/bench"

// web is a Go HTTP server that counts what it serves; it ends with its standard
// input.
func web(port string) error {
	var served atomic.Int64
	body := []byte("ok\n")
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+benchPath, func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)
		w.Write(body)
	})
	mux.HandleFunc("GET /served", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, served.Load()) })
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(l) // ended by Close
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, srv.Close())
}

// speech is how a paced client asks, and reads one answer.
type speech struct {
	ask    []byte
	answer func(*bufio.Reader) error
}

var speeches = map[string]speech{
	"http":  {[]byte("GET " + benchPath + " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\n\r\n"), httpAnswer},
	"redis": {[]byte("*2\r\n$3\r\nGET\r\n$5\r\nbench\r\n"), redisAnswer},
}

func httpAnswer(r *bufio.Reader) error {
	size := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			_, err := r.Discard(size)
			return err
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); bytes.EqualFold(name, []byte("Content-Length")) {
			if size, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		}
	}
}

func redisAnswer(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil || line[0] != '$' {
		return err
	}
	size, err := strconv.Atoi(string(bytes.TrimSpace(line[1:])))
	if err != nil || size < 0 {
		return err
	}
	_, err = r.Discard(size + 2)
	return err
}

const pacedClients = 16

// paced asks at the given rate (0: as often as it can) for d over connections
// that stay, and prints how often it did. A client that is late catches up: the
// rate does not give way to a slow server.
func paced(port, language string, rate int, d time.Duration) error {
	s, known := speeches[language]
	if !known {
		return fmt.Errorf("nobody speaks %q", language)
	}
	var made, failed atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(d)
	for range pacedClients {
		wg.Go(func() {
			n, err := s.converse(port, rate, end)
			made.Add(int64(n))
			if err != nil {
				failed.Add(1)
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		})
	}
	wg.Wait()
	fmt.Println(made.Load(), failed.Load())
	return nil
}

func (s *speech) converse(port string, rate int, end time.Time) (n int, err error) {
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	every := time.Duration(0)
	if rate > 0 {
		every = time.Second * pacedClients / time.Duration(rate)
	}
	r := bufio.NewReader(c)
	for next := time.Now(); time.Now().Before(end); next = next.Add(every) {
		time.Sleep(time.Until(next)) // returns at once when late
		if _, err := c.Write(s.ask); err != nil {
			return n, err
		}
		if err := s.answer(r); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// calls makes n system calls that have nothing to do with sockets and prints
// what one took of the CPU, in picoseconds.
func calls(name string, n int) error {
	call := func() { syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0) }
	if name == "zero" {
		fd, err := syscall.Open("/dev/zero", syscall.O_RDONLY, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		var buf [64]byte
		call = func() {
			syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&buf)), uintptr(len(buf)))
		}
	}
	began, err := cpuTime(os.Getpid())
	if err != nil {
		return err
	}
	for range n {
		call()
	}
	ended, err := cpuTime(os.Getpid())
	fmt.Println(int64(ended-began)*1000/int64(n), 0)
	return err
}
