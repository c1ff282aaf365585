package websocket

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"ghostlight/internal/event"
	"ghostlight/internal/l7"
)

// message makes a message of random bytes, in up to three frames.
func message(r *rand.Rand, masked bool) []byte {
	var b []byte
	frames := 1 + r.IntN(3)
	for i := range frames {
		first := byte(0)
		if i == 0 {
			first = opBinary
		}
		if i == frames-1 {
			first |= 0x80
		}
		b = append(b, first)
		mask := byte(0)
		if masked {
			mask = 0x80
		}
		size := r.IntN(1 << r.IntN(18))
		switch {
		case size < 126:
			b = append(b, mask|byte(size))
		case size < 1<<16:
			b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(size))
		default:
			b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(size))
		}
		if masked {
			b = binary.BigEndian.AppendUint32(b, r.Uint32())
		}
		for range size {
			b = append(b, byte(r.Uint32()))
		}
	}
	return b
}

// However messages are cut, all are counted; when some of the bytes were not
// captured or not seen at all, not more than there were. Sizes are told in any
// case.
func TestCapturedInPart(t *testing.T) {
	for _, lossy := range []bool{false, true} {
		sent, counted := 0, 0
		for range 20 {
			seed := rand.Uint64()
			r := rand.New(rand.NewPCG(seed, 5))
			out := &one{}
			c := begin(out, false)
			total := 0
			const messages = 50
			for range messages {
				side := l7.Asks + l7.Side(r.IntN(2))
				p := message(r, side == l7.Asks)
				total += len(p)
				for len(p) > 0 {
					n := len(p)
					if r.IntN(4) == 0 {
						n = 1 + r.IntN(len(p))
					}
					captured := n
					if lossy {
						captured = min(n, 1024)
					}
					if lossy && r.IntN(20) == 0 {
						c.Missing(side, uint64(n))
					} else {
						c.Data(side, &event.Chunk{Time: 2, Len: n, Data: p[:captured]})
					}
					p = p[n:]
				}
			}
			got := int(c.asks.count.messages + c.answers.count.messages)
			if got > messages || !lossy && got != messages {
				t.Errorf("seed %d: %d messages of %d", seed, got, messages)
			}
			if size := int(out.call.RequestBytes + out.call.ResponseBytes); size != total {
				t.Errorf("seed %d: %d bytes of %d", seed, size, total)
			}
			sent, counted = sent+messages, counted+got
		}
		if counted < sent/2 {
			t.Errorf("%d of %d messages were counted", counted, sent)
		}
	}
}
