package postgresql

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

// statements are those that a connection has prepared. One that was forgotten,
// or was prepared before the connection was met, has no words.
type statements struct {
	unnamed statement
	named   map[string]*statement
	bytes   int

	portal  *statement // of the unnamed portal
	portals map[string]*statement
	built   *statement // of the call that is being built
}

// prepare returns the statement of that name to be written.
func (s *statements) prepare(name []byte) *statement {
	if len(name) == 0 {
		return &s.unnamed
	}
	if len(name) > maxName {
		return &statement{}
	}
	s.forget(name)
	if s.named == nil {
		s.named = map[string]*statement{}
	}
	for n, old := range s.named {
		if len(s.named) < maxStatements && s.bytes < maxWords {
			break
		}
		s.bytes -= len(old.Bytes())
		delete(s.named, n) // any: Go's order is random
	}
	st := &statement{}
	s.named[string(name)] = st
	return st
}

// prepared counts what was written.
func (s *statements) prepared(name []byte, st *statement) {
	if s.named[string(name)] == st {
		s.bytes += len(st.Bytes())
	}
}

func (s *statements) forget(name []byte) {
	if old := s.named[string(name)]; old != nil {
		s.bytes -= len(old.Bytes())
		delete(s.named, string(name))
	}
}

func (s *statements) lookup(name []byte) *statement {
	if len(name) == 0 {
		if len(s.unnamed.Bytes()) == 0 {
			return nil
		}
		return &s.unnamed
	}
	return s.named[string(name)]
}

// bind notes what a portal runs.
func (s *statements) bind(portal []byte, st *statement) {
	if len(portal) == 0 {
		s.portal = st
		return
	}
	if len(portal) > maxName {
		return
	}
	if s.portals == nil {
		s.portals = map[string]*statement{}
	}
	if len(s.portals) >= maxPortals && s.portals[string(portal)] == nil {
		clear(s.portals)
	}
	s.portals[string(portal)] = st
}

func (s *statements) bound(portal []byte) *statement {
	if len(portal) == 0 {
		return s.portal
	}
	return s.portals[string(portal)]
}
