package http1

import (
	"bytes"

	"ghostlight/internal/l7"
)

// body takes n bytes of a body.
func (c *conn) body(w *way, n int) {
	switch {
	case w.side == l7.Asks && c.asking != nil:
		c.open[len(c.open)-1].expects = false
	case w.side == l7.Answers && c.answering && c.events:
		b := w.Bytes()
		c.open[0].stream.read(b[:min(n, len(b))], w.Now().Time)
		if n > len(b) {
			c.open[0].stream.miss()
		}
	}
	c.take(w, n)
}

// longestLine bounds a chunk's size with its extensions.
const longestLine = 256

// chunkSize reads "1f;name=value\r\n".
func (c *conn) chunkSize(w *way) bool {
	b := w.Bytes()
	end := bytes.IndexByte(b, '\n')
	switch {
	case end < 0 && w.Cut() && w.Len() == len("0\r\n\r\n"): // as much as fits the last chunk
		c.giveUp(w)
		if w.side == l7.Answers && c.answering {
			c.open[0].ended = true
		}
		return true
	case end < 0 && !w.Cut() && len(b) <= longestLine:
		if _, ok := sizeOf(b); ok {
			return false
		}
	}
	size, ok := sizeOf(b[:max(end, 0)])
	if end <= 0 || !ok {
		c.lose(w)
		return true
	}
	c.take(w, end+1)
	w.at, w.left = inChunk, size
	if size == 0 {
		w.at = atTrailer
	}
	return true
}

// sizeOf returns the size that a chunk's first line tells, of which the end may
// be missing.
func sizeOf(line []byte) (uint64, bool) {
	var n uint64
	for i, c := range line {
		d := digit(c)
		if d > 15 {
			return n, i > 0 && (c == ';' || c == ' ' || c == '\t' || c == '\r')
		}
		if i == 15 {
			return 0, false
		}
		n = n<<4 | uint64(d)
	}
	return n, len(line) > 0
}

// isChunk reports that b begins with a chunk's first line, and if that is the
// last chunk, holds it to its end.
func isChunk(b []byte) bool {
	end := bytes.Index(b[:min(len(b), 16)], []byte("\r\n"))
	if end <= 0 {
		return false
	}
	size, ok := sizeOf(b[:end])
	return ok && (size > 0 || string(b) == "0\r\n\r\n")
}

// afterChunk reads the line end behind a chunk.
func (c *conn) afterChunk(w *way) bool {
	b := w.Bytes()
	n := 2
	switch {
	case len(b) == 0 && w.Len() < n, len(b) > 0 && b[0] != '\r' && b[0] != '\n', len(b) > 1 && b[0] == '\r' && b[1] != '\n':
		c.lose(w)
		return true
	case len(b) > 0 && b[0] == '\n':
		n = 1
	case len(b) == 1 && !w.Cut():
		return false
	}
	c.take(w, n)
	w.at = atChunkSize
	return true
}

// trailer reads a line of the trailer; the empty one ends the message.
func (c *conn) trailer(w *way) bool {
	b := w.Bytes()
	end := bytes.IndexByte(b, '\n')
	if end < 0 && !w.Cut() {
		return false
	}
	if end < 0 && w.Len() > 2 {
		c.lose(w)
		return true
	}
	n := end + 1
	if end < 0 {
		n = w.Len()
	}
	c.take(w, n)
	if n <= 2 && (n == 1 || end < 0 || b[0] == '\r') {
		c.end(w)
	}
	return true
}

// digit returns the value of a hexadecimal digit, 255 if it is none.
func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
