package kafka

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"

	"ghostlight/internal/l7"
)

// ask reads what a request is about. It reports that nobody will answer.
type ask func(c *conn, call *l7.Call, r *reader, version int16) bool

// The versions from which topics stand by their ids.
const (
	produceByID      = 13
	fetchByID        = 13
	commitByID       = 10
	fetchOffsetsByID = 10
)

// topic reads a topic's name or id and says which it is, if it is the first.
func (c *conn) topic(call *l7.Call, r *reader, byID bool) {
	if !byID {
		c.name(call, r.string())
		return
	}
	id := r.take(16)
	if id == nil || call.Target != "" || isZero(id) {
		return
	}
	copy(c.key[:], id)
	if c.ids != nil {
		call.Target = call.KeepString(c.ids.Noted(c.key))
	}
	if call.Target == "" && call.Attr(topicID) == "" {
		var text [24]byte
		call.Add(topicID, call.Keep(base64.RawURLEncoding.AppendEncode(text[:0], id)))
	}
}

const topicID = "messaging.kafka.topic_id" // as Kafka writes them

func (c *conn) name(call *l7.Call, name []byte) {
	if call.Target == "" && isName(name) {
		call.Target = call.Keep(name)
	}
}

// isName reports whether Kafka lets a topic have this name.
func isName(name []byte) bool {
	if len(name) == 0 || len(name) > maxName {
		return false
	}
	for _, x := range name {
		if !(x|0x20 >= 'a' && x|0x20 <= 'z' || x >= '0' && x <= '9' || x == '.' || x == '_' || x == '-') {
			return false
		}
	}
	return true
}

func isZero(id []byte) bool {
	return binary.BigEndian.Uint64(id) == 0 && binary.BigEndian.Uint64(id[8:]) == 0
}

// topics tells how many there are, if there are several.
func topics(call *l7.Call, n int) {
	if n > 1 {
		number(call, "messaging.kafka.topics", n)
	}
}

func number(call *l7.Call, key string, n int) {
	var text [20]byte
	call.Add(key, call.Keep(strconv.AppendInt(text[:0], int64(n), 10)))
}

func group(call *l7.Call, name []byte) {
	if len(name) > 0 && len(name) <= maxName {
		call.Add("messaging.consumer.group.name", call.Keep(name))
	}
}

func produces(c *conn, call *l7.Call, r *reader, version int16) bool {
	if version >= 3 {
		r.string() // transaction
	}
	acks := r.int16()
	silent := acks == 0 && !r.bad
	r.skip(4) // timeout
	n := r.array()
	topics(call, n)
	messages := 0
	for ; n > 0 && !r.bad; n-- {
		c.topic(call, r, version >= produceByID)
		for m := r.array(); m > 0 && !r.bad; m-- {
			r.skip(4)
			messages += batch(r)
			r.tags()
		}
		r.tags()
	}
	if messages > 0 && !r.bad {
		number(call, "messaging.batch.message_count", messages)
	}
	return silent
}

// batch steps over the records of a partition and returns how many they are.
func batch(r *reader) (messages int) {
	const magic, count, head = 16, 57, 61
	size := r.bytes()
	b := r.b
	if size >= head && len(b) >= head && b[magic] == 2 {
		messages = max(int(int32(binary.BigEndian.Uint32(b[count:]))), 0)
	}
	if size > len(b) && messages > 0 {
		r.b = nil // of the last partition the head is enough
		return messages
	}
	r.skip(size)
	return messages
}

func fetches(c *conn, call *l7.Call, r *reader, version int16) bool {
	if version < 15 {
		r.skip(4) // replica
	}
	r.skip(8) // wait, least bytes
	if version >= 3 {
		r.skip(4)
	}
	if version >= 4 {
		r.skip(1)
	}
	if version >= 7 {
		r.skip(8) // session
	}
	n := r.array()
	if n > 0 {
		topics(call, n)
		c.topic(call, r, version >= fetchByID)
		c.session = append(c.fetched[:0], call.Target...)
		return false
	}
	call.Target = call.Keep(c.session)
	return false
}

func listsOffsets(c *conn, call *l7.Call, r *reader, version int16) bool {
	r.skip(4)
	if version >= 2 {
		r.skip(1)
	}
	return namesTopics(c, call, r, version)
}

func asksEpochs(c *conn, call *l7.Call, r *reader, version int16) bool {
	if version >= 3 {
		r.skip(4)
	}
	return namesTopics(c, call, r, version)
}

func namesTopics(c *conn, call *l7.Call, r *reader, _ int16) bool {
	if n := r.array(); n > 0 {
		topics(call, n)
		c.name(call, r.string())
	}
	return false
}

func asksMetadata(c *conn, call *l7.Call, r *reader, version int16) bool {
	n := r.array()
	topics(call, n)
	if n == 0 {
		return false
	}
	if version < 10 {
		c.name(call, r.string())
		return false
	}
	id := *r
	r.skip(16)
	if c.name(call, r.string()); call.Target == "" {
		c.topic(call, &id, true)
	}
	return false
}

func deletesTopics(c *conn, call *l7.Call, r *reader, version int16) bool {
	n := r.array()
	topics(call, n)
	if n == 0 {
		return false
	}
	if c.name(call, r.string()); call.Target == "" && version >= 6 {
		c.topic(call, r, true)
	}
	return false
}

func namesGroup(_ *conn, call *l7.Call, r *reader, _ int16) bool {
	group(call, r.string())
	return false
}

func namesGroups(_ *conn, call *l7.Call, r *reader, _ int16) bool {
	if r.array() > 0 {
		group(call, r.string())
	}
	return false
}

func commitsOffsets(c *conn, call *l7.Call, r *reader, version int16) bool {
	group(call, r.string())
	if version >= 1 {
		r.skip(4)
		r.string()
	}
	if version >= 7 {
		r.string()
	}
	if version >= 2 && version <= 4 {
		r.skip(8)
	}
	return c.firstTopic(call, r, version >= commitByID)
}

func commitsInTransaction(c *conn, call *l7.Call, r *reader, version int16) bool {
	r.string()
	group(call, r.string())
	r.skip(10) // producer
	if version >= 3 {
		r.skip(4)
		r.string()
		r.string()
	}
	return c.firstTopic(call, r, false)
}

func (c *conn) firstTopic(call *l7.Call, r *reader, byID bool) bool {
	if n := r.array(); n > 0 {
		topics(call, n)
		c.topic(call, r, byID)
	}
	return false
}

func fetchesOffsets(c *conn, call *l7.Call, r *reader, version int16) bool {
	if version >= 8 && r.array() == 0 {
		return false
	}
	group(call, r.string())
	if version >= 9 {
		r.string()
		r.skip(4)
	}
	return c.firstTopic(call, r, version >= fetchOffsetsByID)
}

func findsCoordinator(_ *conn, call *l7.Call, r *reader, version int16) bool {
	var key []byte
	if version < 4 {
		key = r.string()
	}
	kind := int8(0)
	if version >= 1 {
		kind = r.int8()
	}
	if version >= 4 && r.array() > 0 {
		key = r.string()
	}
	if kind == 0 && !r.bad {
		group(call, key)
	}
	return false
}
