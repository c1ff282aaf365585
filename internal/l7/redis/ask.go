package redis

import (
	"bytes"
	"strconv"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// ask reads commands.
func (c *conn) ask(chunk *event.Chunk) {
	s := &c.asks
	s.Feed(chunk)
	if s.Lost() { // the last command goes on, or others that cannot be told apart
		c.broken = true
		if p := c.newest(); p != nil && c.asking {
			p.call.Ask(s.Mark(), s.Len())
		}
		s.Lose()
		return
	}
	for s.Waiting() == 0 && c.askNext(s) {
	}
	if s.Rest(); s.Lost() {
		c.broken = true
	}
}

// newest returns the command that was asked last, nil if it is not open.
func (c *conn) newest() *pending {
	if c.open() == 0 || c.queue[len(c.queue)-1].call == nil {
		return nil
	}
	return &c.queue[len(c.queue)-1]
}

// askNext takes the next piece and reports whether there may be another.
func (c *conn) askNext(s *l7.Stream) bool {
	if c.args > 0 {
		return c.argument(s)
	}
	c.asking = false
	b := s.Bytes()
	switch {
	case len(b) == 0:
		return false
	case b[0] == '*':
		return c.command(s, b)
	case b[0] == '\r' || b[0] == '\n':
		s.Next(1)
		return true
	default:
		return c.inline(s, b)
	}
}

// argument steps over one of them.
func (c *conn) argument(s *l7.Stream) bool {
	b := s.Bytes()
	if len(b) == 0 && !s.Cut() {
		return false
	}
	n, next := int64(0), -1
	if len(b) == 0 || b[0] == '$' {
		n, next = 0, 0
		if len(b) > 0 {
			n, next = number(b[1:])
		}
	}
	if next == 0 && !s.Cut() {
		return false
	}
	if next <= 0 || n < 0 || n > maxBulk { // also: its header was not captured
		if p := c.newest(); p != nil && c.asking && next == 0 {
			p.call.Ask(s.Mark(), s.Len())
		}
		c.lose(s)
		return false
	}
	c.args--
	c.asked(s, 1+next+int(n)+2)
	return true
}

// asked adds n bytes to the command at hand and steps over them.
func (c *conn) asked(s *l7.Stream, n int) {
	if p := c.newest(); p != nil && c.asking {
		p.call.Ask(s.Mark(), n)
	}
	s.Next(n)
}

// command reads a command's head: the number of its arguments and its name.
func (c *conn) command(s *l7.Stream, b []byte) bool {
	n, next := number(b[1:])
	if next == 0 && len(b) < maxHead && !s.Cut() {
		return false
	}
	if next <= 0 || n > maxBulk {
		c.lose(s)
		return false
	}
	head := 1 + next
	if n <= 0 { // an empty command has no answer
		s.Next(head)
		return true
	}
	name, size := bulk(b[head:])
	if size == 0 && len(b) < maxHead && !s.Cut() {
		return false
	}
	if size < 0 {
		c.lose(s)
		return false
	}
	if c.unsure && !isCommand(name, len(name)) {
		c.lose(s)
		return false
	}
	if size > 0 {
		head += size
		n--
	}
	var args [2][]byte
	if takesArguments(name) {
		if !firstArguments(args[:min(n, 2)], b[head:]) && len(b) < maxHead && !s.Cut() {
			return false
		}
	}
	c.begin(s, name, args, n)
	c.args = n
	c.asked(s, head)
	return true
}

// takesArguments reports whether what the command means depends on what it is
// given.
func takesArguments(name []byte) bool {
	return is(name, "SELECT") || is(name, "CLIENT")
}

func firstArguments(args [][]byte, b []byte) bool {
	for i := range args {
		value, size := bulk(b)
		if size <= 0 {
			return false
		}
		args[i], b = value, b[size:]
	}
	return true
}

// inline reads a command that is a line of words.
func (c *conn) inline(s *l7.Stream, b []byte) bool {
	i := bytes.IndexByte(b, '\n')
	switch {
	case !isNameByte(b[0]):
		c.lose(s)
		return false
	case i < 0 && !s.Cut():
		return false // Rest loses a line that is too long
	case i < 0:
		c.lose(s)
		return false
	}
	line := bytes.TrimRight(b[:i], "\r")
	name, rest, _ := bytes.Cut(line, []byte(" "))
	if !isCommand(name, len(name)) || bytes.IndexByte(name, '.') >= 0 {
		if c.unsure { // in the middle of a value
			c.lose(s)
			return false
		}
		name = nil
	}
	var args [2][]byte
	n := int64(0)
	for word := range bytes.FieldsSeq(rest) {
		if n < 2 {
			args[n] = word
		}
		n++
	}
	c.begin(s, name, args, n)
	c.asked(s, i+1)
	return true
}

// begin opens the call of a command with n arguments, or counts it where too
// many are open.
func (c *conn) begin(s *l7.Stream, name []byte, args [2][]byte, n int64) {
	c.asking, c.unsure = false, false
	if c.hasNoAnswer(name, args) {
		return
	}
	if c.broken { // what is answered next was asked before
		return
	}
	if c.skipped > 0 || c.open() >= maxOpen {
		c.skipped++
		return
	}
	call := c.out.Begin(s.Mark())
	c.describe(call, name, n)
	p := pending{call: call, want: 1}
	switch {
	case is(name, "SELECT"):
		p.kind, p.oldDB = selects, c.db
		c.db = database(args[0])
	case isSubscription(name):
		p.kind, p.want = subscribes, max(int(min(n, 1<<20)), 1)
		c.listens = true
	case is(name, "PSYNC") || is(name, "SYNC"):
		c.gone = true
	}
	c.asking = true
	c.push(p)
	if c.early.size > 0 && call.Asked.Time < c.early.mark.Time {
		call.Answer(&c.early.mark, c.early.size)
		call.Answer(&c.early.end, 0)
		c.pop(false)
		c.asking = false
	}
	c.early = early{}
}

// hasNoAnswer follows CLIENT REPLY and reports whether the command at hand will
// stay without an answer.
func (c *conn) hasNoAnswer(name []byte, args [2][]byte) bool {
	if !is(name, "CLIENT") || !is(args[0], "REPLY") {
		silent := c.silent
		if c.skipNext {
			c.skipNext, silent = false, true
		}
		return silent
	}
	c.silent = is(args[1], "OFF")
	c.skipNext = is(args[1], "SKIP")
	return c.silent || c.skipNext
}

// describe fills the words of a call.
func (c *conn) describe(call *l7.Call, name []byte, n int64) {
	call.Protocol, call.Family, call.System = "redis", event.DB, "redis"
	call.Namespace = c.db
	var text [maxCommand + 2*maxShown + 4]byte
	t := text[:0]
	if isName(name) {
		for _, b := range name {
			if b-'a' < 26 {
				b -= 0x20
			}
			t = append(t, b)
		}
	} else {
		t = append(t, '?')
	}
	end := len(t)
	for range min(n, maxShown) {
		t = append(t, " ?"...)
	}
	if n > maxShown {
		t = append(t, " ..."...)
	}
	call.Text = call.Keep(t)
	if isName(name) {
		call.Operation = call.Text[:end]
	}
	if c.pushed > 0 {
		call.Add("messaging.batch.message_count", keepInt(call, c.pushed))
		c.pushed = 0
	}
}

func keepInt(call *l7.Call, n int) string {
	var digits [20]byte
	return call.Keep(strconv.AppendInt(digits[:0], int64(n), 10))
}

func isSubscription(name []byte) bool {
	if len(name) > 0 && (name[0]|0x20 == 'p' || name[0]|0x20 == 's') && !is(name, "SUBSCRIBE") {
		name = name[1:]
	}
	return is(name, "SUBSCRIBE") || is(name, "UNSUBSCRIBE")
}

// is compares a name with one in upper case.
func is(name []byte, upper string) bool {
	if len(name) != len(upper) {
		return false
	}
	for i, b := range name {
		if b-'a' < 26 {
			b -= 0x20
		}
		if b != upper[i] {
			return false
		}
	}
	return true
}

// isName reports whether name may be a command's: modules' have a dot.
func isName(name []byte) bool {
	if len(name) == 0 || len(name) > maxCommand || (name[0]|0x20)-'a' >= 26 {
		return false
	}
	for _, b := range name {
		if !isNameByte(b) {
			return false
		}
	}
	return true
}

func isNameByte(b byte) bool {
	return (b|0x20)-'a' < 26 || b-'0' < 10 || b == '.' || b == '_' || b == '-'
}
