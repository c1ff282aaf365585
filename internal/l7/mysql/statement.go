package mysql

import (
	"ghostlight/internal/l7"
	"ghostlight/internal/sqltext"
)

// statement is what is known of a query.
type statement struct{ sqltext.Words }

// describe fills the words of a call.
func (s *statement) describe(call *l7.Call) {
	call.Text, call.Summary, call.Operation, call.Target = s.Split(call.Keep(s.Bytes()))
}

// lastPrepared is MariaDB's id of the statement that was prepared just before.
const lastPrepared = 0xffffffff

// statements are those that a connection has prepared. One that was forgotten,
// or was prepared before the connection was met, has no words.
type statements struct {
	scratch  statement
	byID     map[uint32]*statement
	bytes    int
	prepared *statement
}

// keep notes a statement under the id that the server gave it.
func (s *statements) keep(id uint32, st *statement) {
	s.forget(id)
	if s.byID == nil {
		s.byID = map[uint32]*statement{}
	}
	for old := range s.byID {
		if len(s.byID) < maxStatements && s.bytes < maxWords {
			break
		}
		s.forget(old) // any: Go's order is random
	}
	s.byID[id] = st
	s.bytes += len(st.Bytes())
}

func (s *statements) forget(id uint32) {
	if old := s.byID[id]; old != nil {
		s.bytes -= len(old.Bytes())
		delete(s.byID, id)
	}
}

func (s *statements) lookup(id uint32) *statement {
	if id == lastPrepared {
		return s.prepared
	}
	return s.byID[id]
}
