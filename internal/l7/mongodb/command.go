package mongodb

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"ghostlight/internal/l7"
)

// Flags of OP_MSG.
const (
	checksumPresent = 1 << 0
	moreToCome      = 1 << 1
)

// maxName bounds the bytes of a name that is kept: MongoDB's own bound of a
// database with a collection.
const maxName = 255

// command reads an OP_MSG that asks, and reports that nobody will answer.
func command(call *l7.Call, b []byte) (silent bool) {
	if len(b) < 4 {
		return false
	}
	flags := binary.LittleEndian.Uint32(b)
	silent = flags&moreToCome != 0
	b = b[4:]
	for len(b) > 5 {
		kind, size := b[0], int(int32(binary.LittleEndian.Uint32(b[1:])))
		if size < 5 || kind > 1 {
			return silent
		}
		section := b[1:min(1+size, len(b))]
		if kind == 0 {
			words(call, document(section))
		} else if len(section) == size {
			count(call, section[4:])
		}
		b = b[1+len(section):]
	}
	return silent
}

// words reads a command: its first field is its name.
func words(call *l7.Call, d elements) {
	e, ok := d.next()
	if !ok || !isWord(e.key) {
		return
	}
	call.Operation = call.Keep(e.key)
	onCollection := collectionCommands[string(e.key)]
	if name := e.text(); onCollection && isName(name) {
		call.Target = call.Keep(name)
	}
	for e, ok = d.next(); ok; e, ok = d.next() {
		switch {
		case string(e.key) == "$db":
			if isName(e.text()) {
				call.Namespace = call.Keep(e.text())
			}
		case string(e.key) == "collection" && call.Operation == "getMore":
			if isName(e.text()) {
				call.Target = call.Keep(e.text())
			}
		}
	}
}

// count counts the documents of a sequence: name, documents.
func count(call *l7.Call, b []byte) {
	end := bytes.IndexByte(b, 0)
	if end < 0 {
		return
	}
	n := 0
	for b = b[end+1:]; len(b) >= 5; n++ {
		size := int(int32(binary.LittleEndian.Uint32(b)))
		if size < 5 || size > len(b) {
			return
		}
		b = b[size:]
	}
	if n > 1 {
		var text [20]byte
		call.Add("db.operation.batch.size", call.Keep(strconv.AppendInt(text[:0], int64(n), 10)))
	}
}

// query reads an OP_QUERY: servers are still greeted with it.
func query(call *l7.Call, b []byte) {
	if len(b) < 4 {
		return
	}
	b = b[4:]
	end := bytes.IndexByte(b, 0)
	if end < 0 || end+9 > len(b) {
		return
	}
	namespace, collection, _ := bytes.Cut(b[:end], []byte("."))
	if string(collection) == "$cmd" {
		words(call, document(b[end+9:]))
	} else if call.Operation = "query"; isName(collection) {
		call.Target = call.Keep(collection)
	}
	if call.Namespace == "" && isName(namespace) {
		call.Namespace = call.Keep(namespace)
	}
}

// summarize says what was done to which collection.
func summarize(call *l7.Call) {
	if call.Target == "" {
		call.Summary = call.Operation
		return
	}
	var text [maxWord + 1 + maxName]byte
	s := append(text[:0], call.Operation...)
	call.Summary = call.Keep(append(append(s, ' '), call.Target...))
}

const maxWord = 48

// isWord reports whether name may be a command's or a code's name.
func isWord(name []byte) bool {
	if len(name) == 0 || len(name) > maxWord {
		return false
	}
	for _, x := range name {
		if !(x|0x20 >= 'a' && x|0x20 <= 'z' || x >= '0' && x <= '9' || x == '_') {
			return false
		}
	}
	return true
}

func isName(name []byte) bool {
	if len(name) == 0 || len(name) > maxName {
		return false
	}
	for _, x := range name {
		if x < ' ' || x == 0x7f {
			return false
		}
	}
	return true
}

// collectionCommands are the commands whose own value is a collection.
var collectionCommands = map[string]bool{
	"find": true, "insert": true, "update": true, "delete": true, "aggregate": true, "count": true, "distinct": true, "findAndModify": true,
	"findandmodify": true, "mapReduce": true, "create": true, "drop": true, "createIndexes": true, "dropIndexes": true, "listIndexes": true,
	"collMod": true, "collStats": true, "killCursors": true, "reIndex": true, "compact": true, "validate": true, "convertToCapped": true,
	"createSearchIndexes": true, "dropSearchIndex": true, "updateSearchIndex": true, "planCacheClear": true,
}

// reply reads an answer.
func reply(call *l7.Call, op opcode, b []byte) {
	switch op {
	case opMsg:
		if len(b) > 5 && b[4] == 0 {
			verdict(call, document(b[5:]))
		}
	case opReply: // flags, cursor, from, number
		if len(b) > 20 {
			verdict(call, document(b[20:]))
		}
	}
}

// verdict reads how a command went. Whatever could not be done for single
// documents fails it too.
func verdict(call *l7.Call, d elements) {
	var code int64
	var name []byte
	failed := false
	for e, ok := d.next(); ok; e, ok = d.next() {
		switch string(e.key) {
		case "ok":
			failed = failed || e.isNumber() && e.number() == 0
		case "code":
			code = e.number()
		case "codeName":
			name = e.text()
		case "writeErrors":
			errors := document(e.value)
			if first, ok := errors.next(); ok && first.kind == kindDocument {
				failed = true
				code, name = codeOf(document(first.value))
			}
		case "writeConcernError":
			if e.kind == kindDocument && !failed {
				failed = true
				code, name = codeOf(document(e.value))
			}
		}
	}
	if !failed {
		return
	}
	if call.Error = "_OTHER"; code != 0 {
		var text [20]byte
		call.Outcome = call.Keep(strconv.AppendInt(text[:0], code, 10))
		call.Error = call.Outcome
	}
	switch {
	case isWord(name):
		call.Error = call.Keep(name)
	case codeNames[code] != "":
		call.Error = codeNames[code]
	}
}

func codeOf(d elements) (code int64, name []byte) {
	for e, ok := d.next(); ok; e, ok = d.next() {
		switch string(e.key) {
		case "code":
			code = e.number()
		case "codeName":
			name = e.text()
		}
	}
	return code, name
}

// codeNames are the codes that stand without their name in a list of errors.
var codeNames = map[int64]string{
	2: "BadValue", 13: "Unauthorized", 14: "TypeMismatch", 50: "MaxTimeMSExpired", 64: "WriteConcernFailed", 66: "ImmutableField", 112: "WriteConflict",
	121: "DocumentValidationFailure", 10107: "NotWritablePrimary", 11000: "DuplicateKey",
}
