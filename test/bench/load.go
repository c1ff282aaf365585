package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// The loads run as processes of their own, so that their CPU time is theirs
// alone: what the kernel does for the agent inside their system calls is in
// it, which is the price we want to know.

const (
	requestBytes = 64
	answerBytes  = 256
)

// serve answers connections until its standard input ends.
func serve(port string) error {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	go func() { // ended by the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, l.Close())
}

// answer reads a request, answers, and waits for the client to close. A first
// byte of 'B' asks for a bulk transfer: everything is read and thrown away.
func answer(c net.Conn) {
	defer c.Close()
	var req [requestBytes]byte
	if _, err := io.ReadFull(c, req[:]); err != nil {
		return
	}
	if req[0] == 'B' {
		io.Copy(io.Discard, c)
		return
	}
	c.Write(make([]byte, answerBytes))
	c.Read(req[:])
}

// storm makes connections at the given rate (0: as many as it can) for d and
// prints how many it made.
func storm(port string, rate int, d time.Duration) error {
	var made, failed atomic.Int64
	var wg sync.WaitGroup
	const clients = 8
	end := time.Now().Add(d)
	for range clients {
		wg.Go(func() {
			every := time.Duration(0)
			if rate > 0 {
				every = time.Second * clients / time.Duration(rate)
			}
			for next := time.Now(); time.Now().Before(end); next = next.Add(every) {
				time.Sleep(time.Until(next)) // returns at once when late
				if err := exchange(port); err != nil {
					failed.Add(1)
					continue
				}
				made.Add(1)
			}
		})
	}
	wg.Wait()
	fmt.Println(made.Load(), failed.Load())
	return nil
}

func exchange(port string) error {
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer c.Close()
	var buf [answerBytes]byte
	if _, err := c.Write(buf[:requestBytes]); err != nil {
		return err
	}
	_, err = io.ReadFull(c, buf[:])
	return err
}

// bulk sends n MiB over one connection and prints how many it sent.
func bulk(port string, n int) error {
	c, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	defer c.Close()
	head := [requestBytes]byte{0: 'B'}
	if _, err := c.Write(head[:]); err != nil {
		return err
	}
	chunk := make([]byte, 1<<20)
	for range n {
		if _, err := c.Write(chunk); err != nil {
			return err
		}
	}
	fmt.Println(n, 0)
	return nil
}

// execs runs /bin/true n times, one after the other.
func execs(n int) error {
	for range n {
		pid, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
		if err != nil {
			return err
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			return err
		}
	}
	fmt.Println(n, 0)
	return nil
}
