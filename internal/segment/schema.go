package segment

import (
	"errors"
	"fmt"
	"strings"

	"ghostlight/internal/event"
)

var errShort = errors.New("segment: a column has fewer cells than its run has rows")

// Schema is a table with what is worked out from it once.
type Schema struct {
	Table   *event.Table
	SQL     []string       // names in SQL and Parquet
	Index   map[string]int // column by either of its names
	Time    int            // the column rows are ordered and kept by
	members []member       // of the JSON object
}

// NewSchema prepares a table. It must have a column "time".
func NewSchema(t *event.Table) (*Schema, error) {
	s := &Schema{Table: t, Index: map[string]int{}, Time: -1}
	for i := range t.Columns {
		c := &t.Columns[i]
		s.SQL = append(s.SQL, c.SQLName())
		s.Index[c.Name], s.Index[c.SQLName()] = i, i
		s.members = addMember(s.members, strings.Split(c.Name, "."), i)
		if c.Name == "time" && c.Type == event.Time {
			s.Time = i
		}
	}
	if s.Time < 0 {
		return nil, fmt.Errorf("table %s: no column time", t.Name)
	}
	return s, nil
}

// Schemas prepares several tables.
func Schemas(tables []event.Table) ([]*Schema, error) {
	all := make([]*Schema, len(tables))
	for i := range tables {
		s, err := NewSchema(&tables[i])
		if err != nil {
			return nil, err
		}
		all[i] = s
	}
	return all, nil
}

// IsInt tells whether a column's cells are int64.
func (s *Schema) IsInt(column int) bool { return IsInt(s.Table.Columns[column].Type) }

// IsInt tells whether a type's cells are int64.
func IsInt(t event.Type) bool {
	switch t {
	case event.Int, event.Bool, event.Time, event.Duration:
		return true
	}
	return false
}
