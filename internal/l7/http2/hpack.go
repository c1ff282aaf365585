package http2

// A header block is read into fields; what later blocks may refer to stays in
// the way's table:
//
//	table.decode(block, &fields)
//
// Both know the few names a call is made of (field) and keep no other value.
//
// A connection met in its middle has a table of which nothing is known. Indexes
// count from the newest entry, so an entry added since is found at its index all
// the same; an index beyond those leads to what was missed and is counted as
// unknown. To evict late is no harm: nobody refers to what was evicted.

const (
	defaultTable = 4096     // RFC 9113, 6.5.2
	maxTable     = 64 << 10 // of a table that its encoder made larger; beyond it is unknown
	entryBytes   = 32       // what an entry counts besides its texts (RFC 7541, 4.1)
	maxName      = 128
	maxValue     = 8 << 10
	maxInt       = 1 << 24
)

// field is a name whose value is wanted.
type field uint8

const (
	other   field = iota // known not to be wanted
	unknown              // of an entry that was never seen
	authority
	method
	path
	status
	contentLength
	contentType
	userAgent
	traceparent
	b3
	b3Trace
	b3Span
	grpcTrace
	grpcStatus
	grpcTimeout
	fieldCount
)

func fieldOf(name []byte) field {
	switch string(name) {
	case ":authority":
		return authority
	case ":method":
		return method
	case ":path":
		return path
	case ":status":
		return status
	case "content-length":
		return contentLength
	case "content-type":
		return contentType
	case "user-agent":
		return userAgent
	case "traceparent":
		return traceparent
	case "b3":
		return b3
	case "x-b3-traceid":
		return b3Trace
	case "x-b3-spanid":
		return b3Span
	case "grpc-trace-bin":
		return grpcTrace
	case "grpc-status":
		return grpcStatus
	case "grpc-timeout":
		return grpcTimeout
	}
	return other
}

// staticTable is RFC 7541, appendix A, as far as it matters here: the length of
// each name, and the values of wanted ones.
var staticTable = [...]struct {
	field field
	name  int // its length
	value string
}{
	{}, {authority, 10, ""}, {method, 7, "GET"}, {method, 7, "POST"}, {path, 5, "/"}, {path, 5, "/index.html"},
	{other, 7, ""}, {other, 7, ""}, // :scheme
	{status, 7, "200"}, {status, 7, "204"}, {status, 7, "206"}, {status, 7, "304"}, {status, 7, "400"}, {status, 7, "404"}, {status, 7, "500"},
	{other, 14, ""}, {other, 15, ""}, {other, 15, ""}, {other, 13, ""}, {other, 6, ""}, {other, 27, ""}, {other, 3, ""}, {other, 5, ""},
	{other, 13, ""}, {other, 13, ""}, {other, 19, ""}, {other, 16, ""}, {other, 16, ""}, {contentLength, 14, ""}, {other, 16, ""}, {other, 13, ""},
	{contentType, 12, ""}, {other, 6, ""}, {other, 4, ""}, {other, 4, ""}, {other, 6, ""}, {other, 7, ""}, {other, 4, ""}, {other, 4, ""},
	{other, 8, ""}, {other, 17, ""}, {other, 13, ""}, {other, 8, ""}, {other, 19, ""}, {other, 13, ""}, {other, 4, ""}, {other, 8, ""},
	{other, 12, ""}, {other, 18, ""}, {other, 19, ""}, {other, 5, ""}, {other, 7, ""}, {other, 7, ""}, {other, 11, ""}, {other, 6, ""},
	{other, 10, ""}, {other, 25, ""}, {other, 17, ""}, {userAgent, 10, ""}, {other, 4, ""}, {other, 3, ""}, {other, 16, ""},
}

// fields are what one header block said.
type fields struct {
	value   [fieldCount][]byte // nil: not said
	unknown int                // fields of which nothing is known
	text    []byte             // memory of the values
}

func (f *fields) reset() {
	f.value, f.unknown, f.text = [fieldCount][]byte{}, 0, f.text[:0]
	if cap(f.text) > 2*maxValue {
		f.text = nil
	}
}

// take makes what stands in text from from on the value of a field. The first
// one counts.
func (f *fields) take(name field, from int) {
	if name == unknown {
		f.unknown++
	}
	if name <= unknown || f.value[name] != nil {
		f.text = f.text[:from]
		return
	}
	f.value[name] = f.text[from:len(f.text):len(f.text)]
}

// table is one way's dynamic table.
type table struct {
	entries []entry // those before dead are evicted; the newest is the last
	dead    int
	text    []byte // values of the entries
	used    int    // bytes as RFC 7541 counts them
	max     int
	missed  bool // there are, or may be, older entries than these
}

type entry struct {
	field field
	name  uint16 // length
	size  int32
	at    int32 // of the value in text
	value int32 // length
}

// forget says that nothing is known of the table any more.
func (t *table) forget() {
	*t = table{entries: t.entries[:0], text: t.text[:0], max: defaultTable, missed: true}
}

// begin says that the table is empty: the connection begins here.
func (t *table) begin() {
	t.forget()
	t.missed = false
}

// decode reads a header block, or the first part of one, and reports whether it
// could be read to its end. If not, the table is forgotten.
func (t *table) decode(p []byte, f *fields) bool {
	for len(p) > 0 {
		rest, ok := t.one(p, f)
		if !ok {
			t.forget()
			return false
		}
		p = rest
	}
	return true
}

// one reads one representation (RFC 7541, 6).
func (t *table) one(p []byte, f *fields) ([]byte, bool) {
	prefix := prefixOf(p[0])
	i, p, ok := readInt(p, prefix)
	if !ok {
		return p, false
	}
	switch prefix {
	case 7:
		t.indexed(i, f)
		return p, i > 0
	case 5:
		t.resize(i)
		return p, true
	}
	return t.literal(p, i, prefix == 6, f)
}

// indexed adds the field at an index.
func (t *table) indexed(i int, f *fields) {
	from := len(f.text)
	if i < len(staticTable) {
		s := &staticTable[i]
		f.text = append(f.text, s.value...)
		f.take(s.field, from)
		return
	}
	e := t.at(i)
	if e == nil {
		f.take(unknown, from)
		return
	}
	if f.value[e.field] == nil { // copied once, however often it is referred to
		f.text = append(f.text, t.text[e.at:e.at+e.value]...)
	}
	f.take(e.field, from)
}

// at returns the entry at an index, nil if it was never seen.
func (t *table) at(i int) *entry {
	i -= len(staticTable)
	if i >= len(t.entries)-t.dead {
		t.missed = true // if it was not: somebody is wrong here
		return nil
	}
	return &t.entries[len(t.entries)-1-i]
}

// literal reads a field whose value is spelled out, and its name too if i is 0.
func (t *table) literal(p []byte, i int, keep bool, f *fields) ([]byte, bool) {
	name, length, ok := other, 0, true
	if i == 0 {
		name, length, p, ok = readName(p, f)
	} else {
		name, length = t.nameAt(i)
	}
	if !ok {
		return p, false
	}
	from := len(f.text)
	size, p, ok := readValue(p, name, f)
	if !ok {
		return p, false
	}
	if name == unknown && isTraceparent(f.text[from:]) {
		name, length = traceparent, len("traceparent")
	}
	if keep {
		t.insert(name, length, f.text[from:], size)
	}
	f.take(name, from)
	return p, true
}

func (t *table) nameAt(i int) (field, int) {
	if i < len(staticTable) {
		return staticTable[i].field, staticTable[i].name
	}
	if e := t.at(i); e != nil {
		return e.field, int(e.name)
	}
	return unknown, 0
}

// insert adds an entry. Size is the length of its value, of which only a wanted
// one's is kept.
func (t *table) insert(name field, length int, value []byte, size int) {
	if name <= unknown {
		value = nil
	}
	size += length + entryBytes
	t.evict(t.max - size)
	if size > t.max {
		return
	}
	t.compact()
	t.entries = append(t.entries, entry{field: name, name: uint16(length), size: int32(size), at: int32(len(t.text)), value: int32(len(value))})
	t.text = append(t.text, value...)
	t.used += size
}

// evict removes the oldest entries until what is used is at most most.
func (t *table) evict(most int) {
	for t.dead < len(t.entries) && t.used > most {
		t.used -= int(t.entries[t.dead].size)
		t.dead++
	}
	if t.dead == len(t.entries) {
		t.entries, t.text, t.dead = t.entries[:0], t.text[:0], 0
	}
}

// compact moves the living to the front when half of all, or a table's worth of
// text, is dead.
func (t *table) compact() {
	if t.dead == 0 {
		return
	}
	from := t.entries[t.dead].at
	if 2*t.dead < len(t.entries) && int(from) < t.max {
		return
	}
	t.entries = t.entries[:copy(t.entries, t.entries[t.dead:])]
	t.text = t.text[:copy(t.text, t.text[from:])]
	t.dead = 0
	for i := range t.entries {
		t.entries[i].at -= from
	}
}

// resize is what the encoder says about its table. One larger than ours holds
// entries that we do not have.
func (t *table) resize(n int) {
	t.missed = t.missed || n > maxTable
	t.max = min(n, maxTable)
	t.evict(t.max)
}

// readInt reads an integer (RFC 7541, 5.1).
func readInt(p []byte, prefix int) (n int, rest []byte, ok bool) {
	if len(p) == 0 {
		return 0, p, false
	}
	mask := 1<<prefix - 1
	n, p = int(p[0])&mask, p[1:]
	if n < mask {
		return n, p, true
	}
	for shift := 0; len(p) > 0 && shift <= 21; shift += 7 {
		b := p[0]
		n, p = n+int(b&0x7f)<<shift, p[1:]
		if b < 0x80 {
			return n, p, n <= maxInt
		}
	}
	return 0, p, false
}

// readText returns a string as it stands there.
func readText(p []byte) (text []byte, packed bool, rest []byte, ok bool) {
	n, rest, ok := readInt(p, 7)
	if !ok || n > len(rest) {
		return nil, false, rest, false
	}
	return rest[:n], p[0]&0x80 != 0, rest[n:], true
}

// readName reads a name that is spelled out.
func readName(p []byte, f *fields) (name field, length int, rest []byte, ok bool) {
	text, packed, rest, ok := readText(p)
	if !ok || !packed {
		return fieldOf(text), min(len(text), maxName), rest, ok
	}
	from := len(f.text)
	f.text, ok = code.append(f.text, text, maxName)
	plain := f.text[from:]
	f.text = f.text[:from]
	if !ok {
		return other, len(plain), rest, len(plain) == maxName // too long to be one of ours
	}
	return fieldOf(plain), len(plain), rest, true
}

// readValue reads a value behind f.text if it is wanted, and returns its length;
// that of others is at least what it returns.
func readValue(p []byte, name field, f *fields) (length int, rest []byte, ok bool) {
	text, packed, rest, ok := readText(p)
	if !ok {
		return 0, rest, false
	}
	if name == other {
		return leastLength(len(text), packed), rest, true
	}
	from := len(f.text)
	if !packed {
		f.text = append(f.text, text[:min(len(text), maxValue)]...)
		return len(text), rest, true
	}
	f.text, ok = code.append(f.text, text, maxValue)
	length = len(f.text) - from
	return length, rest, ok || length == maxValue
}

// leastLength is how long a text at least is: no code has more than longBits.
func leastLength(n int, packed bool) int {
	if packed {
		return n * 8 / longBits
	}
	return n
}
