package kafka

import (
	"encoding/binary"

	"ghostlight/internal/l7"
)

// sniff tells a request by its size, its kind, a version that exists, a small
// correlation id and the client's name. Answers have nothing to be told by.
func sniff(b []byte) l7.Side {
	if len(b) < 14 {
		return l7.Neither
	}
	size, key, version := binary.BigEndian.Uint32(b), int(binary.BigEndian.Uint16(b[4:])), int16(binary.BigEndian.Uint16(b[6:]))
	if size > 256<<20 || key >= len(apis) || version < 0 || version > apis[key].newest+2 || b[8] >= 0x20 {
		return l7.Neither
	}
	n := int(int16(binary.BigEndian.Uint16(b[12:])))
	if n == -1 && size >= 10 && (version >= 2 || key == apiVersions) { // no name: too little to tell the oldest by
		return l7.Asks
	}
	if n <= 0 || n > maxName || uint32(n)+10 > size { // an answer often has zeroes here
		return l7.Neither
	}
	for _, x := range b[14:min(14+n, len(b))] {
		if x <= ' ' || x > '~' {
			return l7.Neither
		}
	}
	if len(b) == 14 || key == produce && !producesBy(b[min(14+n, len(b)):], version) {
		return l7.Neither
	}
	return l7.Asks
}

const produce = 0

// producesBy looks at what follows the client's name: a small correlation id
// makes an answer with a topic's name look like a request to produce so far.
func producesBy(b []byte, version int16) bool {
	switch {
	case version < 3: // none since Kafka 4, and few before
		return false
	case version >= apis[produce].flexible:
		return len(b) >= 8 && b[0] == 0 && (b[1] != 0 || isAcks(b[2:]) && binary.BigEndian.Uint32(b[4:]) > 0)
	}
	transaction := len(b) >= 2 && (b[0] == 0xff && b[1] == 0xff || b[0] == 0 && b[1] != 0)
	return transaction && (b[0] == 0 || len(b) >= 4 && isAcks(b[2:]))
}

func isAcks(b []byte) bool { return b[0] == 0xff && b[1] == 0xff || b[0] == 0 && b[1] <= 1 }
