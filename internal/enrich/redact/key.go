package redact

import "bytes"

// maxKey bounds how far a key reaches back from its separator.
const maxKey = 128

type verdict uint8

const (
	harmless verdict = iota
	weak             // a word that has other uses too: key, session, auth
	strong           // a word that leaves no doubt: password, token, secret
)

// strongWords deny a key that has one of them, or a word that ends with one
// (dbpassword), at any place.
var strongWords = []string{
	"password", "passwords", "passwd", "passphrase", "passcode", "passwort",
	"secret", "secrets", "token", "tokens", "credential", "credentials",
	"apikey", "privatekey", "secretkey", "accesskey", "authkey", "sharedkey", "signingkey", "encryptionkey", "masterkey", "accountkey",
}

// weakWords deny a key whose last word they are.
var weakWords = map[string]bool{
	"key": true, "pass": true, "pwd": true, "pw": true, "psk": true,
	"auth": true, "authorization": true, "bearer": true, "jwt": true, "otp": true, "totp": true, "pin": true,
	"session": true, "sessionid": true, "sessionkey": true, "sessid": true, "sid": true,
	"sig": true, "signature": true, "cookie": true, "cookies": true, "cred": true, "creds": true,
	"passin": true, "passout": true, "storepass": true, "keypass": true, "sshpass": true, "dbpass": true,
	"userpass": true, "adminpass": true, "rootpass": true, "requirepass": true, "masterauth": true, "ldappass": true, "smtppass": true,
}

// weakEnds are ends of a last word that deny it too.
var weakEnds = []string{"signature", "cookie", "sessionid", "sessid", "authorization"}

// plainLast says by the last word that the value tells of a secret, but isn't
// one: --password-file, token_ttl.
var plainLast = map[string]bool{
	"file": true, "files": true, "filename": true, "path": true, "paths": true, "dir": true, "directory": true, "folder": true,
	"name": true, "type": true, "ttl": true, "timeout": true, "expiry": true, "expires": true, "expiration": true, "lifetime": true,
	"age": true, "size": true, "length": true, "len": true, "bits": true, "count": true, "limit": true,
	"algorithm": true, "alg": true, "algo": true, "format": true, "mode": true, "method": true, "methods": true, "provider": true,
	"policy": true, "url": true, "uri": true, "endpoint": true, "enabled": true, "required": true, "interval": true, "version": true,
	"prompt": true, "stdin": true, "env": true, "fd": true, "store": true, "class": true, "header": true, "field": true,
	"location": true, "rotation": true, "manager": true, "backend": true, "service": true, "server": true, "host": true, "port": true,
}

// valueWords at the end of a key change nothing: session_id, SECRET_KEY_BASE.
var valueWords = map[string]bool{
	"id": true, "value": true, "string": true, "str": true, "text": true, "hash": true, "base": true, "data": true,
	"hex": true, "b64": true, "base64": true, "new": true, "old": true, "raw": true, "prod": true, "dev": true, "test": true,
}

// plainKeys before "key" make it a key of another kind.
var plainKeys = map[string]bool{
	"public": true, "pub": true, "primary": true, "foreign": true, "partition": true, "sort": true, "routing": true, "cache": true,
	"row": true, "shard": true, "hot": true, "group": true, "dedup": true, "range": true, "index": true, "hotkey": true, "object": true,
}

// plainFirst are first words that make a number or a switch of what follows.
var plainFirst = map[string]bool{"max": true, "min": true, "num": true}

// switchFirst are first words of flags that take no value.
var switchFirst = map[string]bool{"no": true, "without": true, "disable": true, "skip": true, "ignore": true, "require": true}

// headers are keys whose value is all of the line.
var headers = []string{"authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-auth-token"}

// key is a name split into lower-case words: apiKey, API_KEY and api-key are
// the same.
type key struct {
	buf   [maxKey + maxKey]byte
	ends  [maxKey]uint8 // of each word in buf
	n     int           // words
	size  int
	glued [2 * maxKey]byte
}

// split fills k from name. Words end at punctuation, at percent escapes, and
// where lower case turns into upper case. Digits at the end of a word are left
// out.
func (k *key) split(name []byte) {
	if len(name) > maxKey {
		name = name[len(name)-maxKey:]
	}
	begin := 0
	finish := func() {
		for k.size > begin && isDigit(k.buf[k.size-1]) {
			k.size--
		}
		if k.size > begin {
			k.ends[k.n] = uint8(k.size)
			k.n++
			begin = k.size
		}
	}
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case c == '%' && i+2 < len(name):
			finish()
			i += 2
			continue
		case !isAlnum(c):
			finish()
			continue
		case isUpper(c) && i > 0 && (isLower(name[i-1]) || (isUpper(name[i-1]) && i+1 < len(name) && isLower(name[i+1]))):
			finish()
		}
		k.buf[k.size] = lower(c)
		k.size++
	}
	finish()
}

func (k *key) word(i int) []byte {
	from := 0
	if i > 0 {
		from = int(k.ends[i-1])
	}
	return k.buf[from:k.ends[i]]
}

// joined returns the words with by between them, or without anything if 0.
func (k *key) joined(by byte) []byte {
	out := k.glued[:0]
	for i := range k.n {
		if i > 0 && by != 0 {
			out = append(out, by)
		}
		out = append(out, k.word(i)...)
	}
	return out
}

// judge says whether name is the name of a secret.
func (r *Rules) judge(name []byte) verdict {
	if len(name) == 0 {
		return harmless
	}
	var k key
	k.split(name)
	return r.judgeWords(&k)
}

func (r *Rules) judgeWords(k *key) verdict {
	if k.n == 0 {
		return harmless
	}
	extra := r.isExtra(k)
	if extra == all {
		return strong
	}
	if plainLast[string(k.word(k.n-1))] || plainFirst[string(k.word(0))] {
		return harmless
	}
	if extra == part {
		return strong
	}
	for i := range k.n {
		if endsStrong(k.word(i)) {
			return strong
		}
	}
	last := k.n - 1
	for last > 0 && valueWords[string(k.word(last))] {
		last--
	}
	if isPlainKey(k, last) {
		return harmless
	}
	if endsStrong(k.joined(0)) {
		return strong
	}
	return weakWord(k, last)
}

func isPlainKey(k *key, last int) bool {
	w := string(k.word(last))
	return (w == "key" || w == "keys") && last > 0 && plainKeys[string(k.word(last-1))]
}

func weakWord(k *key, last int) verdict {
	w := k.word(last)
	if weakWords[string(w)] || (string(w) == "keys" && last > 0) {
		return weak
	}
	for _, end := range weakEnds {
		if bytes.HasSuffix(w, []byte(end)) {
			return weak
		}
	}
	return harmless
}

func endsStrong(word []byte) bool {
	for _, s := range strongWords {
		if len(word) >= len(s) && string(word[len(word)-len(s):]) == s {
			return true
		}
	}
	return false
}

type extent uint8

const (
	none extent = iota
	part
	all
)

// isExtra says whether the user denies k: all of it, some words of it in a
// row, or its end.
func (r *Rules) isExtra(k *key) extent {
	for _, e := range r.extra {
		name := k.joined('-')
		if bytes.Equal(name, e) {
			return all
		}
		if bytes.HasSuffix(name, e) || hasWords(name, e) {
			return part
		}
	}
	return none
}

// hasWords reports whether words are whole words of name; '-' joins both.
func hasWords(name, words []byte) bool {
	for len(name) >= len(words) {
		if bytes.HasPrefix(name, words) && (len(name) == len(words) || name[len(words)] == '-') {
			return true
		}
		dash := bytes.IndexByte(name, '-')
		if dash < 0 {
			return false
		}
		name = name[dash+1:]
	}
	return false
}

// flag reports whether the value after the flag of this name is a secret.
func (r *Rules) flag(name []byte) bool {
	var k key
	k.split(name)
	return k.n > 0 && !switchFirst[string(k.word(0))] && r.judgeWords(&k) != harmless
}

// harmless reports whether the value at i of a key with other uses is plainly
// none: a switch, a column number (sort --key=2), the name of a key file.
func (s *scan) harmless(name []byte, i int) bool {
	if s.rules.judge(name) != weak || i > len(s.in) {
		return false
	}
	v := s.in[i:]
	v = v[:wordEnd(v)]
	switch string(v) {
	case "true", "false", "yes", "no", "on", "off", "none", "null":
		return true
	}
	if len(name) < 3 || !hasSuffixFold(name, "key") {
		return false
	}
	if len(v) <= 3 && isNumber(bytes.ReplaceAll(v, []byte(","), nil)) {
		return true
	}
	for _, ext := range keyFiles {
		if hasSuffixFold(v, ext) {
			return true
		}
	}
	return false
}

// keyFiles are ends of the names of files that hold keys.
var keyFiles = []string{".pem", ".key", ".crt", ".cer", ".der", ".p12", ".pfx", ".jks", ".pub", ".asc", ".gpg"}

func isHeader(name []byte) bool {
	for _, h := range headers {
		if len(name) == len(h) && hasPrefixFold(name, h) {
			return true
		}
	}
	return hasSuffixFold(name, "-authorization")
}

// lastKey is the last part of a path of keys: //host/:_authToken.
func lastKey(name []byte) []byte {
	return name[bytes.LastIndexAny(name, "/:")+1:]
}

// startsPair reports whether b begins with key= or key:, so that the comma
// before it ends a value.
func startsPair(b []byte) bool {
	n := 0
	for n < len(b) && (isKeyByte(b[n]) || b[n] == ' ' || b[n] == '"') {
		n++
	}
	return n > 0 && n < len(b) && (b[n] == '=' || b[n] == ':')
}

// schemes of an Authorization header are part of its value.
var schemes = []string{"bearer ", "basic ", "digest ", "token ", "negotiate ", "apikey "}

func schemeLength(b []byte) int {
	for _, s := range schemes {
		if hasPrefixFold(b, s) {
			n := len(s)
			for n < len(b) && b[n] == ' ' {
				n++
			}
			return n
		}
	}
	return 0
}

func isKeyByte(c byte) bool { return isAlnum(c) || c == '_' || c == '-' || c == '.' || c == '%' }

func isTokenByte(c byte) bool { return isAlnum(c) || c == '_' || c == '-' || c == '.' }

func isAlnum(c byte) bool { return isLower(c) || isUpper(c) || isDigit(c) }
func isLower(c byte) bool { return c >= 'a' && c <= 'z' }
func isUpper(c byte) bool { return c >= 'A' && c <= 'Z' }
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func lower(c byte) byte {
	if isUpper(c) {
		return c + 'a' - 'A'
	}
	return c
}

func isNumber(b []byte) bool {
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// end is the index of stop in b, or its length.
func end(b []byte, stop byte) int {
	if n := bytes.IndexByte(b, stop); n >= 0 {
		return n
	}
	return len(b)
}

// wordEnd is where the first word of b ends.
func wordEnd(b []byte) int {
	for i, c := range b {
		switch c {
		case 0, ' ', '\t', '\n', '\r', '"', '\'', '`', ';', '|', '&', '(', ')':
			return i
		}
	}
	return len(b)
}

// blankEnd is where b has its first blank, NUL or quote.
func blankEnd(b []byte) int {
	for i, c := range b {
		switch c {
		case 0, ' ', '\t', '\n', '\r', '"', '\'', '`':
			return i
		}
	}
	return len(b)
}

func hasPrefixFold(b []byte, prefix string) bool {
	if len(b) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		if lower(b[i]) != lower(prefix[i]) {
			return false
		}
	}
	return true
}

func hasSuffixFold(b []byte, suffix string) bool {
	return len(b) >= len(suffix) && hasPrefixFold(b[len(b)-len(suffix):], suffix)
}
