// Package redact replaces the secrets in command lines, URLs and headers by ***.
//
// A pass goes from left to right over arguments that are joined by NUL:
//
//	at a word    a flag whose value follows (--password x, mysql -px), Bearer x, a token known by its shape
//	at = and :   look back for the key; if it is denied, replace the value
//	at ://       the password of user:password@
//	at -----     a PEM block
//
// In doubt a value is replaced: a lost argument is a nuisance, a kept secret is
// a leak. README.md beside enrich lists what is and what is not recognised.
package redact

import "bytes"

const mask = "***"

// maxWord bounds the user and password of a Go data source, so that no input
// takes quadratic time.
const maxWord = 256

// Rules decide which values are secret. They are never changed after New and
// can be used by any goroutine.
type Rules struct {
	extra [][]byte // what the user denies: lower case, words joined by '-'
}

// New returns the rules of the deny list, extended by extra: names of keys,
// "license" or "license_code". Case and the way words are joined don't matter.
func New(extra []string) *Rules {
	r := &Rules{}
	for _, name := range extra {
		var k key
		k.split([]byte(name))
		if k.n > 0 {
			r.extra = append(r.extra, bytes.Clone(k.joined('-')))
		}
	}
	return r
}

// Args appends the redacted form of src to dst and returns it. src is a list
// of arguments joined by NUL, or one text. cut says that src lacks its end, so
// that what looks harmless may be the beginning of a secret.
//
// Where something was replaced, the outcome is looked at again until nothing
// changes: text that is put together against the rules of quoting can look
// different without its secrets.
func (r *Rules) Args(dst, src []byte, cut bool) []byte {
	from := len(dst)
	dst = r.pass(dst, src, cut)
	for n := 0; n < maxPasses && !bytes.Equal(dst[from:], src); n++ {
		end := len(dst)
		dst = r.pass(dst, dst[from:end], cut)
		src = dst[from:end]
		if bytes.Equal(dst[end:], src) {
			return dst[:end]
		}
		dst = dst[:from+copy(dst[from:], dst[end:])]
		src = nil
	}
	return dst
}

// maxPasses bounds how often an outcome is looked at again; two are rarely
// needed.
const maxPasses = 8

func (r *Rules) pass(dst, src []byte, cut bool) []byte {
	s := scan{rules: r, in: src, out: dst, cut: cut, stop: -1}
	for s.i < len(s.in) {
		if s.in[s.i] == 0 {
			s.argument()
			continue
		}
		if s.wordStart() && s.word() {
			continue
		}
		if !s.separator() {
			s.copyByte()
		}
	}
	return s.out
}

// scan is the state of one pass. in[:i] is done, and out is its redacted form.
type scan struct {
	rules   *Rules
	in, out []byte
	i       int
	cut     bool

	start   int  // of the argument at i
	stop    int  // its end, if not before i
	atLess  int  // up to here there is no @
	floor   int  // end of the last replaced value: keys don't reach before it
	quote   byte // quote that is open at i, in this argument
	script  bool // the argument is a shell's script (sh -c): values in it end with their words
	program program
	login   bool
}

func (s *scan) argument() {
	previous := s.in[s.start:s.i]
	s.out = append(s.out, 0)
	s.i++
	s.start, s.stop, s.quote = s.i, -1, 0
	s.script = s.program == shell && isScriptFlag(previous)
}

// isScriptFlag reports -c, -ec, -lc and the like.
func isScriptFlag(arg []byte) bool {
	n := len(arg)
	return n >= 2 && n <= 5 && arg[0] == '-' && arg[1] != '-' && arg[n-1] == 'c'
}

func (s *scan) copyByte() {
	switch c := s.in[s.i]; {
	case c == s.quote:
		s.quote = 0
	case s.quote == 0 && (c == '"' || c == '\''):
		s.quote = c
	}
	s.copyTo(s.i + 1)
}

func (s *scan) copyTo(end int) {
	s.out = append(s.out, s.in[s.i:end]...)
	s.i = end
}

// hide replaces in[i:end], keeps quotes around it, and goes on behind it.
func (s *scan) hide(end int) {
	if end <= s.i {
		return
	}
	v := s.in[s.i:end]
	quote := v[:quoteLength(v)]
	closed := len(quote) > 0 && len(v) >= 2*len(quote) && bytes.HasSuffix(v, quote)
	if closed && len(v) == 2*len(quote) {
		s.copyTo(end) // nothing to hide
		s.floor = s.i
		return
	}
	if !closed && len(quote) > 0 && bytes.Contains(v[len(quote):], quote) {
		quote = nil // it ends before the value does
	}
	s.out = append(s.out, quote...)
	s.out = append(s.out, mask...)
	if closed {
		s.out = append(s.out, quote...)
	}
	s.i, s.floor = end, end
}

// quoteLength is the length of the quote that b begins with: " or \".
func quoteLength(b []byte) int {
	switch {
	case b[0] == '"' || b[0] == '\'' || b[0] == '`':
		return 1
	case len(b) > 1 && b[0] == '\\' && (b[1] == '"' || b[1] == '\''):
		return 2
	}
	return 0
}

func (s *scan) wordStart() bool {
	if s.i == s.start {
		return true
	}
	switch s.in[s.i-1] {
	case ' ', '\t', '\n', '\r', '"', '\'', '`', ';', '|', '&', '(', '=', ',':
		return true
	}
	return false
}

// word handles what begins a word, and reports whether it went on.
func (s *scan) word() bool {
	in := s.in[s.i:]
	if bytes.HasPrefix(in, []byte("-----BEGIN ")) {
		return s.pem()
	}
	if in[0] == '-' {
		return s.flag()
	}
	if s.bearer() || s.tokenShape() || s.dataSource() || s.setting() {
		return true
	}
	if s.i > s.start && (s.in[s.i-1] == ',' || s.in[s.i-1] == '=') {
		return false // words that overlap would take quadratic time
	}
	word := in[:wordEnd(in)]
	if p, ok := programOf(base(word)); ok {
		s.program, s.login = p, false
	}
	if string(word) == "login" {
		s.login = true
	}
	return false
}

// pem hides the body of a PEM block, to the end of the argument where its end
// is missing.
func (s *scan) pem() bool {
	arg := s.in[s.i:s.argEnd()]
	head := bytes.Index(arg[len("-----BEGIN "):], []byte("-----"))
	if head < 0 {
		s.copyTo(s.i + len(arg))
		return true
	}
	body := s.i + len("-----BEGIN ") + head + len("-----")
	end := s.i + len(arg)
	if n := bytes.Index(s.in[body:end], []byte("-----END ")); n >= 0 {
		end = body + n
	}
	s.copyTo(body)
	s.hide(end)
	return true
}

// flag handles "--name value" and "-nVALUE". "--name=value" is left to
// separator.
func (s *scan) flag() bool {
	in := s.in[s.i:min(len(s.in), s.i+maxKey+2)]
	dashes := 1
	if len(in) > 1 && in[1] == '-' {
		dashes = 2
	}
	n := dashes
	for n < len(in) && isKeyByte(in[n]) {
		n++
	}
	name := in[dashes:n]
	if len(name) == 0 {
		return false
	}
	if dashes == 1 {
		if how, length := s.program.short(name, s.login); how != 0 {
			done := s.shortFlag(how, length)
			if done && len(name) > length && s.rules.flag(name) {
				s.hideNext() // -pwd x: the secret may be "wd", or x
			}
			return done
		}
	}
	if s.i+n == len(s.in) || n == len(in) || (in[n] != 0 && !isBlank(in[n])) || !s.rules.flag(name) {
		return false
	}
	next := s.i + n + 1
	for s.in[next-1] != 0 && next < len(s.in) && isBlank(s.in[next]) {
		next++
	}
	if s.looksLikeFlag(next) || s.harmless(name, next) {
		return false
	}
	s.copyFlag(next)
	s.hide(s.followingEnd(next))
	return true
}

// hideNext hides the argument or word that follows i.
func (s *scan) hideNext() {
	next := s.i + 1
	if s.i >= len(s.in) || (s.in[s.i] != 0 && !isBlank(s.in[s.i])) {
		return
	}
	for s.in[next-1] != 0 && next < len(s.in) && isBlank(s.in[next]) {
		next++
	}
	if s.looksLikeFlag(next) {
		return
	}
	s.copyFlag(next)
	s.hide(s.followingEnd(next))
}

// copyFlag copies up to the value at next, which may be in the next argument.
func (s *scan) copyFlag(next int) {
	if s.in[next-1] == 0 {
		s.copyTo(next - 1)
		s.argument()
		return
	}
	s.copyTo(next)
}

// followingEnd returns where the value at i that follows a flag ends: with its
// argument, or where the flag stands in the middle of a text, with the word.
func (s *scan) followingEnd(i int) int {
	if i > 0 && s.in[i-1] == 0 {
		return i + end(s.in[i:], 0)
	}
	return s.shellWordEnd(i)
}

// looksLikeFlag reports whether the word at i is the next flag rather than a
// value: "--lower-case", or a dash and one letter.
func (s *scan) looksLikeFlag(i int) bool {
	if i >= len(s.in) || s.in[i] != '-' {
		return false
	}
	w := s.in[i:]
	w = w[:wordEnd(w)]
	if len(w) <= 2 {
		return true
	}
	if eq := bytes.IndexByte(w, '='); eq > 0 {
		w = w[:eq]
	}
	if len(w) < 2 || w[1] != '-' {
		return false
	}
	for _, c := range w[2:] {
		if c != '-' && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func (s *scan) shortFlag(how shortKind, length int) bool {
	flag, value := s.i, s.i+1+length
	attached := value < len(s.in) && s.in[value] != 0 && !isBlank(s.in[value])
	if !attached {
		if how == attachedOnly || value >= len(s.in) {
			return false
		}
		value++
		for s.in[value-1] != 0 && value < len(s.in) && isBlank(s.in[value]) {
			value++
		}
		s.copyFlag(value)
	} else {
		s.copyTo(value)
	}
	end := s.followingEnd(s.i)
	if attached && flag == s.start && !s.script {
		end = s.argEnd()
	}
	if by := how.splits(); by != 0 {
		n := bytes.IndexByte(s.in[s.i:end], by)
		if n < 0 {
			return true // a user without password
		}
		quote := openQuote(s.in[s.i:s.i+n], s.in[s.i+n:end])
		s.copyTo(s.i + n + 1)
		if len(quote) > 0 && s.i < end && s.in[s.i] == quote[0] {
			s.copyTo(s.i + 1)
			quote = nil
		}
		s.hide(end)
		s.out = append(s.out, quote...)
		return true
	}
	s.hide(end)
	if s.program == passFlag {
		s.program = noProgram // sshpass -p secret ssh -p 22
	}
	return true
}

// openQuote returns the quote that is open at the end of user and closed in
// rest, to be closed again: -u "user:password".
func openQuote(user, rest []byte) []byte {
	for _, q := range [...]string{`"`, "'"} {
		if bytes.Count(user, []byte(q))%2 == 1 && bytes.Contains(rest, []byte(q)) {
			return []byte(q)
		}
	}
	return nil
}

// bearer hides the token behind the word Bearer.
func (s *scan) bearer() bool {
	const word = "bearer"
	in := s.in[s.i:]
	if len(in) < len(word)+2 || !bytes.EqualFold(in[:len(word)], []byte(word)) {
		return false
	}
	next := s.i + len(word)
	if s.in[next] != 0 && !isBlank(s.in[next]) {
		return false
	}
	next++
	for s.in[next-1] != 0 && next < len(s.in) && isBlank(s.in[next]) {
		next++
	}
	s.copyFlag(next)
	s.hide(s.shellWordEnd(s.i))
	return true
}

// tokenShape hides tokens that say by their prefix what they are.
func (s *scan) tokenShape() bool {
	in := s.in[s.i:]
	for _, t := range tokenShapes {
		if in[0] != t.prefix[0] || !bytes.HasPrefix(in, []byte(t.prefix)) {
			continue
		}
		n := 0
		for n < len(in) && isTokenByte(in[n]) {
			n++
		}
		if n < t.length {
			continue
		}
		s.hide(s.i + n)
		return true
	}
	return false
}

// dataSource hides the password of a Go data source, user:password@tcp(host).
func (s *scan) dataSource() bool {
	in := s.in[s.i:min(len(s.in), s.i+maxWord)]
	word := in[:blankEnd(in)]
	at := bytes.Index(word, []byte("@tcp("))
	if at < 0 {
		at = bytes.Index(word, []byte("@unix("))
	}
	if at < 0 {
		return false
	}
	colon := bytes.IndexByte(word[:at], ':')
	if colon < 0 || bytes.HasPrefix(word[colon:], []byte("://")) {
		return false
	}
	s.copyTo(s.i + colon + 1)
	s.hide(s.i + at - colon - 1)
	return true
}

// setting hides the value of "config set key value".
func (s *scan) setting() bool {
	in := s.in[s.i:]
	if !bytes.HasPrefix(in, []byte("set")) || len(in) < 5 || (in[3] != 0 && in[3] != ' ') {
		return false
	}
	name := in[4:]
	n := 0
	for n < len(name) && (isKeyByte(name[n]) || name[n] == '/' || name[n] == ':') {
		n++
	}
	if n == 0 || n+1 >= len(name) || name[n] != in[3] || s.rules.judge(lastKey(name[:n])) == harmless {
		return false
	}
	value := s.i + 4 + n + 1
	for s.i < value {
		if s.in[s.i] == 0 {
			s.argument()
			continue
		}
		s.copyByte()
	}
	s.hide(s.followingEnd(value))
	return true
}

// separator handles the separators between a key and its value at i, and
// reports whether it went on.
func (s *scan) separator() bool {
	switch s.in[s.i] {
	case '=':
		return s.assignment(1)
	case ':':
		if bytes.HasPrefix(s.in[s.i:], []byte("://")) {
			return s.url()
		}
		return s.colon()
	case '%':
		if hasPrefixFold(s.in[s.i:], "%3D") {
			return s.assignment(3)
		}
		if hasPrefixFold(s.in[s.i:], "%3A") && !hasPrefixFold(s.in[s.i:], "%3A%2F%2F") {
			return s.assignment(3)
		}
	}
	return false
}

// assignment handles key=value. Where the key begins the argument, the value
// is all of its rest.
func (s *scan) assignment(width int) bool {
	k := s.keyBefore()
	verdict := s.rules.judge(k.name)
	if verdict == harmless {
		return false
	}
	next := s.i + width
	if k.from == s.start && !s.script && width == 1 {
		if s.harmless(k.name, next) {
			return false
		}
		s.copyTo(next)
		s.hide(s.argEnd())
		return true
	}
	next = s.skipSeparators(next)
	if verdict == weak && s.harmless(k.name, next) {
		return false
	}
	s.copyTo(next)
	s.hide(s.valueEnd(k.quoted))
	return true
}

// colon handles "key": value, Header: value and key:value. The last is believed
// only where the key leaves no doubt: image:tag and host:port look the same.
func (s *scan) colon() bool {
	k := s.keyBefore()
	verdict := s.rules.judge(k.name)
	next := s.i + 1
	if verdict == harmless || next >= len(s.in) || s.in[next] == ':' {
		return false
	}
	header := isHeader(k.name)
	spaced := isBlank(s.in[next])
	if !k.quoted && !spaced && !header && (verdict == weak || k.path) {
		return false
	}
	next = s.skipSeparators(next)
	if next >= len(s.in) {
		return false
	}
	if verdict == weak && !header && s.harmless(k.name, next) {
		return false
	}
	s.copyTo(next)
	if !k.quoted && (spaced || header) && !s.opensValue() {
		s.hide(s.lineEnd())
		return true
	}
	s.hide(s.valueEnd(k.quoted))
	return true
}

// opensValue reports whether a quote or bracket at i says where the value ends.
func (s *scan) opensValue() bool {
	switch s.in[s.i] {
	case '"', '\'', '`', '[', '{':
		return s.in[s.i] != s.quote
	}
	return false
}

// found is a key before a separator.
type found struct {
	name   []byte
	from   int  // where it begins, dashes before it included
	quoted bool // a quote stands between key and separator
	path   bool // it is the last element of a path, or what follows an @
}

// keyBefore looks back from the separator at i.
func (s *scan) keyBefore() found {
	low := max(s.start, s.floor)
	j := s.i
	for n := 0; j > low && n < 4 && isBlank(s.in[j-1]); n++ {
		j--
	}
	var k found
	for n := 0; j > low && n < 4 && bytes.IndexByte([]byte(`"'\])`), s.in[j-1]) >= 0; n++ {
		k.quoted = k.quoted || s.in[j-1] == '"' || s.in[j-1] == '\''
		j--
	}
	end := j
	for j > low && end-j < maxKey && isKeyByte(s.in[j-1]) {
		j--
	}
	k.name, k.from = s.in[j:end], j
	for len(k.name) > 0 && k.name[0] == '-' {
		k.name = k.name[1:]
	}
	k.path = j > low && (s.in[j-1] == '/' || s.in[j-1] == '@')
	return k
}

// skipSeparators goes over what may follow the first separator: ==, :=, =>
// and blanks.
func (s *scan) skipSeparators(i int) int {
	for n := 0; i < len(s.in) && n < 8; n++ {
		c := s.in[i]
		if c != '=' && c != '>' && c != ' ' && c != '\t' && !(c == '\n' && n > 0) {
			break
		}
		i++
	}
	return i
}

// argEnd is the end of the argument at i, looked for once per argument.
func (s *scan) argEnd() int {
	if s.stop < s.i || s.stop < s.start {
		s.stop = s.i + end(s.in[s.i:], 0)
	}
	return s.stop
}

// lineEnd is the end of a header's value: of the line, of the argument or of
// the quotes around it.
func (s *scan) lineEnd() int {
	for j := s.i; j < len(s.in); j++ {
		switch c := s.in[j]; {
		case c == 0, c == '\n', c == '\r', c == s.quote:
			return j
		}
	}
	return len(s.in)
}

// valueEnd is the end of the value at i in the middle of a text.
func (s *scan) valueEnd(quotedKey bool) int {
	end := s.argEnd()
	if s.i >= end {
		return s.i
	}
	from := s.i
	switch c := s.in[s.i]; {
	case quoteLength(s.in[s.i:end]) == 2:
		from = s.escapedEnd(end)
	case c == '"' || c == '\'' || c == '`':
		from = s.quotedEnd(s.i, end)
	case c == '[':
		from = s.bracketEnd('[', ']', end)
	case c == '{':
		from = s.bracketEnd('{', '}', end)
	case c == '$' && s.i+1 < end && s.in[s.i+1] == '(':
		from = s.bracketEnd('(', ')', end)
	default:
		from += schemeLength(s.in[s.i:end])
	}
	return s.bareEnd(from, quotedKey, end)
}

// escapedEnd is the end of \"value\".
func (s *scan) escapedEnd(end int) int {
	q := s.in[s.i : s.i+2]
	if n := bytes.Index(s.in[s.i+2:end], q); n >= 0 {
		return s.i + 2 + n + 2
	}
	return end
}

func (s *scan) quotedEnd(from, end int) int {
	for j := from + 1; j < end; j++ {
		switch s.in[j] {
		case '\\':
			j++
		case s.in[from]:
			return j + 1
		}
	}
	return end
}

// bracketEnd is behind the bracket that closes the one at or just after i.
func (s *scan) bracketEnd(open, shut byte, end int) int {
	depth := 0
	for j := s.i; j < end; j++ {
		switch s.in[j] {
		case '\\':
			j++
		case open:
			depth++
		case shut:
			if depth--; depth <= 0 {
				return j + 1
			}
		}
	}
	return end
}

// bareEnd is the end of a value without quotes: of its word, or of the
// parameter it is in.
func (s *scan) bareEnd(j int, quotedKey bool, end int) int {
	for ; j < end; j++ {
		switch c := s.in[j]; c {
		case ' ', '\t', '\n', '\r', '&', ';', '"', '\'', '`', '}', ']', ')':
			return j
		case '%':
			if hasPrefixFold(s.in[j:end], "%26") {
				return j
			}
		case '\\':
			if j+1 < end && s.in[j+1] == '"' {
				return j
			}
		case ',':
			if quotedKey || startsPair(s.in[j+1:end]) {
				return j
			}
		}
	}
	return j
}

// shellWordEnd is the end of the shell word at i, quotes considered.
func (s *scan) shellWordEnd(i int) int {
	for j := i; j < len(s.in); j++ {
		switch c := s.in[j]; c {
		case 0, ' ', '\t', '\n', '\r', ';', '|', '&', ')':
			return j
		case '"', '\'', '`':
			if c == s.quote {
				return j
			}
			j = s.quotedEnd(j, j+end(s.in[j:], 0)) - 1
		}
	}
	return len(s.in)
}

// url handles scheme://user:password@host. Passwords that hold a / against the
// rules are found by what can't be a port.
func (s *scan) url() bool {
	web := s.i >= 4 && (hasSuffixFold(s.in[s.start:s.i], "http") || hasSuffixFold(s.in[s.start:s.i], "https"))
	from := s.i + len("://")
	arg := s.argEnd()
	stop := from
	for stop < arg && bytes.IndexByte([]byte("/?# \t\r\n\"'`<>"), s.in[stop]) < 0 {
		stop++
	}
	authority := s.in[from:stop]
	s.copyTo(from)
	if at := bytes.LastIndexByte(authority, '@'); at >= 0 {
		s.userInfo(web, from+at)
		return true
	}
	colon := bytes.IndexByte(authority, ':')
	if colon >= 0 && bytes.IndexAny(authority[:colon], "=&") >= 0 {
		return true // not a user: what follows is looked at like any text
	}
	if colon >= 0 && authority[0] != '[' && !isNumber(authority[colon+1:]) {
		if at := s.lastAt(from); at >= 0 {
			s.userInfo(web, at)
			return true
		}
		if s.cut && stop == arg && !bytes.Contains(authority, []byte(mask)) {
			s.copyTo(from + colon + 1)
			s.hide(stop)
			return true
		}
	}
	if s.cut && stop == len(s.in) && !bytes.Contains(authority, []byte(mask)) {
		s.copyTo(from + colon + 1) // -1 + 1: all of it where there is no colon
		s.hide(stop)
	}
	return true
}

// lastAt is the place of the last @ in the word at from, -1 if there is none;
// a word without is looked through once.
func (s *scan) lastAt(from int) int {
	if from < s.atLess {
		return -1
	}
	word := s.in[from:]
	word = word[:blankEnd(word)]
	at := bytes.LastIndexByte(word, '@')
	if at < 0 {
		s.atLess = from + len(word)
		return -1
	}
	return from + at
}

// userInfo hides the password before the @ at the given place. Tokens are often
// given as the user of a web address: one without password is hidden too.
func (s *scan) userInfo(web bool, at int) {
	colon := bytes.IndexByte(s.in[s.i:at], ':')
	if web && (colon < 0 || colon >= 20 || colon+1 == at-s.i) {
		s.hide(at)
		return
	}
	if colon >= 0 {
		s.copyTo(s.i + colon + 1)
		s.hide(at)
	}
}
