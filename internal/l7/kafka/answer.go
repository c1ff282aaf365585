package kafka

import "ghostlight/internal/l7"

// answer reads the first error's code of an answer; 0 is none.
type answer func(c *conn, call *l7.Call, r *reader, version int16) int16

// failure names a code.
func failure(code int16) string {
	switch {
	case code > 0 && int(code) < len(failures) && failures[code] != "":
		return failures[code]
	case code == -1:
		return "UNKNOWN_SERVER_ERROR"
	}
	return "_OTHER"
}

// plainly is an answer that begins with its code.
func plainly(_ *conn, _ *l7.Call, r *reader, _ int16) int16 { return r.int16() }

// firstOf is an answer whose elements each begin with their code.
func firstOf(_ *conn, _ *l7.Call, r *reader, _ int16) int16 {
	if r.array() == 0 {
		return 0
	}
	return r.int16()
}

// named is one whose elements are a name and its code.
func named(_ *conn, call *l7.Call, r *reader, version int16) int16 {
	if r.array() == 0 {
		return 0
	}
	r.string()
	if call.Operation == "create_topics" && version >= 7 {
		r.skip(16)
	}
	return r.int16()
}

func deleted(_ *conn, _ *l7.Call, r *reader, version int16) int16 {
	if r.array() == 0 {
		return 0
	}
	r.string()
	if version >= 6 {
		r.skip(16)
	}
	return r.int16()
}

func addedToTransaction(_ *conn, _ *l7.Call, r *reader, version int16) int16 {
	if version >= 4 {
		return r.int16()
	}
	if r.array() == 0 {
		return 0
	}
	r.string()
	if r.array() == 0 {
		return 0
	}
	r.skip(4)
	return r.int16()
}

// partitions is an answer that says how it went for each partition of each
// topic.
func partitions(c *conn, call *l7.Call, r *reader, version int16) int16 {
	byID := call.Operation == "produce" && version >= produceByID || call.Operation == "offset_commit" && version >= commitByID
	for n := r.array(); n > 0 && !r.bad; n-- {
		if byID {
			r.skip(16)
		} else {
			r.string()
		}
		for m := r.array(); m > 0 && !r.bad; m-- {
			r.skip(4)
			if code := r.int16(); code != 0 {
				return code
			}
			restOfPartition(call, r, version)
		}
		r.tags()
	}
	return 0
}

// restOfPartition steps over what stands behind a partition's code.
func restOfPartition(call *l7.Call, r *reader, version int16) {
	switch call.Operation {
	case "produce":
		r.skip(8)
		if version >= 2 {
			r.skip(8)
		}
		if version >= 5 {
			r.skip(8)
		}
		if version >= 8 {
			for n := r.array(); n > 0 && !r.bad; n-- {
				r.skip(4)
				r.string()
				r.tags()
			}
			r.string()
		}
	case "list_offsets":
		if version == 0 {
			r.ints(8)
			return
		}
		r.skip(16)
		if version >= 4 {
			r.skip(4)
		}
	}
	r.tags()
}

// fetched reads the answer to a fetch, as far as its records let it.
func fetched(c *conn, call *l7.Call, r *reader, version int16) int16 {
	if version >= 7 {
		if code := r.int16(); code != 0 {
			return code
		}
		r.skip(4) // session
	}
	for n := r.array(); n > 0 && !r.bad; n-- {
		c.topic(call, r, version >= fetchByID)
		for m := r.array(); m > 0 && !r.bad; m-- {
			r.skip(4)
			if code := r.int16(); code != 0 {
				return code
			}
			r.skip(8)
			if version >= 4 {
				r.skip(8)
			}
			if version >= 5 {
				r.skip(8)
			}
			if version >= 4 {
				for k := r.array(); k > 0 && !r.bad; k-- {
					r.skip(16)
					r.tags()
				}
			}
			if version >= 11 {
				r.skip(4)
			}
			r.skip(r.bytes())
			r.tags()
		}
		r.tags()
	}
	return 0
}

// metadata reads which topics there are: their ids have names.
func metadata(c *conn, _ *l7.Call, r *reader, version int16) (code int16) {
	for n := r.array(); n > 0 && !r.bad; n-- { // brokers
		r.skip(4)
		r.string()
		r.skip(4)
		if version >= 1 {
			r.string()
		}
		r.tags()
	}
	if version >= 2 {
		r.string()
	}
	if version >= 1 {
		r.skip(4)
	}
	for n := r.array(); n > 0 && !r.bad; n-- {
		if e := r.int16(); code == 0 {
			code = e
		}
		name := r.string()
		if version >= 10 {
			c.learn(r.take(16), name)
		}
		if version >= 1 {
			r.skip(1)
		}
		for m := r.array(); m > 0 && !r.bad; m-- {
			r.skip(10)
			if version >= 7 {
				r.skip(4)
			}
			r.ints(4)
			r.ints(4)
			if version >= 5 {
				r.ints(4)
			}
			r.tags()
		}
		if version >= 8 {
			r.skip(4)
		}
		r.tags()
	}
	return code
}

func (c *conn) learn(id, name []byte) {
	if c.ids == nil || id == nil || isZero(id) || !isName(name) {
		return
	}
	copy(c.key[:], id)
	c.ids.Note(c.key, name)
}

// offsets reads the answer to a request for committed offsets.
func offsets(_ *conn, _ *l7.Call, r *reader, version int16) int16 {
	if version >= 8 {
		if r.array() == 0 {
			return 0
		}
		r.string()
	}
	for n := r.array(); n > 0 && !r.bad; n-- {
		if version >= fetchOffsetsByID {
			r.skip(16)
		} else {
			r.string()
		}
		for m := r.array(); m > 0 && !r.bad; m-- {
			r.skip(12)
			if version >= 5 {
				r.skip(4)
			}
			r.string()
			if code := r.int16(); code != 0 {
				return code
			}
			r.tags()
		}
		r.tags()
	}
	if version >= 2 {
		return r.int16()
	}
	return 0
}

func coordinator(_ *conn, _ *l7.Call, r *reader, version int16) int16 {
	if version < 4 {
		return r.int16()
	}
	if r.array() == 0 {
		return 0
	}
	r.string()
	r.skip(4)
	r.string()
	r.skip(4)
	return r.int16()
}
