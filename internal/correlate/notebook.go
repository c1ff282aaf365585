package correlate

// notebook remembers the names of what protocols name by a UUID: the oldest goes
// when there are too many.
type notebook struct {
	names map[[16]byte]string
	order [][16]byte
	next  int
}

const maxNoted = 4096

func (n *notebook) note(id [16]byte, name []byte) {
	if old, ok := n.names[id]; ok {
		if old != string(name) {
			n.names[id] = string(name)
		}
		return
	}
	if n.names == nil {
		n.names = map[[16]byte]string{}
	}
	if len(n.order) < maxNoted {
		n.order = append(n.order, id)
	} else {
		delete(n.names, n.order[n.next])
		n.order[n.next] = id
		n.next = (n.next + 1) % maxNoted
	}
	n.names[id] = string(name)
}

// Note implements l7.Notebook.
func (k *conn) Note(id [16]byte, name []byte) { k.c.noted.note(id, name) }

// Noted implements l7.Notebook.
func (k *conn) Noted(id [16]byte) string { return k.c.noted.names[id] }
