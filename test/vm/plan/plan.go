// Package plan is what the host and the guest of a test machine say to each
// other: a Plan goes in with the initramfs, Frames come back over a serial line.
package plan

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"time"
)

// Path is where the guest finds its plan.
const Path = "/plan.json"

// Line is the guest's serial port that carries frames and nothing else: the
// kernel's console is another port, so its messages cannot tear a frame.
const Line = "/dev/ttyS1"

// A Plan tells the guest what to do before it powers off.
type Plan struct {
	Release string   // of the kernel, as in uname -r
	Modules []string // files to insert, in this order
	Jobs    []Job
}

// A Job is one program for the guest to run.
type Job struct {
	Name    string
	Dir     string
	Args    []string
	Timeout time.Duration // then the whole process group is killed
}

// A Frame is one line from guest to host. The fields that are set tell its
// kind: a note, a line of a job's output, a job's end, or the guest's end.
type Frame struct {
	Seq  int    `json:"seq"` // from 1, no gaps
	Note string `json:"note,omitempty"`
	Job  string `json:"job,omitempty"`
	Out  string `json:"out,omitempty"` // with its newline, if it had one
	End  *End   `json:"end,omitempty"`
	Done bool   `json:"done,omitempty"`
}

// An End says how a job ended.
type End struct {
	Code    int           `json:"code"` // -1 when killed or not started
	Error   string        `json:"error,omitempty"`
	Elapsed time.Duration `json:"elapsed"`
}

// A Writer numbers frames and writes them out. It is not safe for concurrent
// use.
type Writer struct {
	out io.Writer
	seq int
}

// NewWriter returns a Writer to out.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out} }

// Write sends f under the next number.
func (w *Writer) Write(f Frame) error {
	w.seq++
	f.Seq = w.seq
	line, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	_, err = fmt.Fprintf(w.out, "%08x %s\n", crc32.ChecksumIEEE(line), line)
	return err
}

// MaxOut bounds the output one frame carries; MaxLine a frame's line, which
// JSON may make six times as long.
const (
	MaxOut  = 16 << 10
	MaxLine = 6*MaxOut + 1024
)

// Read hands every whole frame to emit and returns how many were lost: lines
// that are no frame, and gaps in the numbers.
func Read(in io.Reader, emit func(Frame)) (lost int, err error) {
	lines := bufio.NewReaderSize(in, MaxLine)
	last, tooLong := 0, false
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			tooLong = true
			continue
		}
		if f, ok := decode(line, last); ok && !tooLong {
			lost += f.Seq - last - 1
			last = f.Seq
			emit(f)
		} else if tooLong || len(bytes.TrimSpace(line)) > 0 {
			lost++
		}
		tooLong = false
		if errors.Is(err, io.EOF) {
			return lost, nil
		}
		if err != nil {
			return lost, fmt.Errorf("read frames: %w", err)
		}
	}
}

// decode accepts only a whole frame, by its checksum: what a machine lost in
// the middle of two lines may well read as one. It must follow number last; the
// bound keeps a damaged number from making the loss absurd.
func decode(line []byte, last int) (Frame, bool) {
	var f Frame
	sum, text, found := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if !found || err != nil || uint32(want) != crc32.ChecksumIEEE(text) {
		return f, false
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, false
	}
	return f, f.Seq > last && f.Seq-last < 1<<20
}
