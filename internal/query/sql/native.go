package sql

import (
	"cmp"
	"errors"
	"slices"

	"ghostlight/internal/query"
	"ghostlight/internal/segment"
)

// native works out a plan. Nothing is handed out before it is sure that the
// plan comes to its end, so that SQLite can still take over.
func (q *run) native(p *plan) error {
	var err error
	switch {
	case p.groups:
		err = q.grouped(p)
	case len(p.order) == 0:
		err = q.scanned(p)
	default:
		err = q.ordered(p)
	}
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (p *plan) columns() (all []Column) {
	for _, it := range p.items {
		if it.label != "\x00" {
			all = append(all, Column{it.label, it.typ})
		}
	}
	return all
}

func (q *run) took(r query.Result) {
	q.result.Scanned = r.Scanned
	q.result.Complete = q.result.Complete && r.Complete
}

// scanned hands out rows in the order they came.
func (q *run) scanned(p *plan) error {
	if err := q.columns(p.columns()); err != nil || p.limit == 0 {
		return err
	}
	values := make([]any, len(q.result.Columns))
	skip, left := p.offset, p.limit
	result, err := query.Each(q.ctx, q.snap, p.request, func(rows *segment.Rows, picks []int32) error {
		for _, row := range picks {
			if skip > 0 {
				skip--
				continue
			}
			if err := q.row(q.cells(p, rows, int(row), values)); err != nil {
				return err
			}
			if left--; left == 0 {
				return errEnough
			}
		}
		return nil
	})
	q.took(result)
	return err
}

func (q *run) cells(p *plan, rows *segment.Rows, row int, values []any) []any {
	for i := range values {
		values[i] = value(rows, p.items[i].column, row)
	}
	return values
}

// ordered hands out the first rows by one number column.
func (q *run) ordered(p *plan) error {
	n := q.limits.Rows + 1
	if p.limit >= 0 {
		n = min(n, p.limit)
	}
	o := p.order[0]
	result, err := query.Top(q.ctx, q.snap, p.request, p.items[o.item].column, o.descending, n+p.offset)
	if err != nil {
		return err
	}
	q.took(result)
	if err := q.columns(p.columns()); err != nil {
		return err
	}
	values := make([]any, len(q.result.Columns))
	for row := p.offset; row < result.Rows.Len; row++ {
		if err := q.row(q.cells(p, result.Rows, row, values)); err != nil {
			return err
		}
	}
	return nil
}

func (q *run) grouped(p *plan) error {
	g := query.Grouping{Keys: p.keys, MaxGroups: q.limits.Groups}
	measures := make([]int, len(p.items))
	for i, it := range p.items {
		if it.measure != nil {
			measures[i] = len(g.Measures)
			g.Measures = append(g.Measures, *it.measure)
		}
	}
	groups, err := query.Aggregate(q.ctx, q.snap, p.request, g)
	if err != nil {
		return err
	}
	q.took(groups.Result)
	if err := q.columns(p.columns()); err != nil {
		return err
	}
	cell := func(group, item int) any {
		if p.items[item].measure != nil {
			return groups.Measure(group, measures[item])
		}
		return groups.Key(group, p.keyOf(p.items[item]))
	}
	order := p.sorted(groups, cell)
	values := make([]any, len(p.items))
	for _, group := range p.window(order) {
		for i := range values {
			values[i] = cell(group, i)
		}
		if err := q.row(values); err != nil {
			return err
		}
	}
	return nil
}

// sorted orders the groups as SQLite does: by their keys, then by ORDER BY.
func (p *plan) sorted(g *query.Groups, cell func(group, item int) any) []int {
	all := make([]int, g.Len)
	for i := range all {
		all[i] = i
	}
	slices.SortFunc(all, func(a, b int) int {
		for k := range p.keys {
			if c := compare(g.Key(a, k), g.Key(b, k)); c != 0 {
				return c
			}
		}
		return 0
	})
	slices.SortStableFunc(all, func(a, b int) int {
		for _, o := range p.order {
			c := compare(cell(a, o.item), cell(b, o.item))
			if o.descending {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return 0
	})
	return all
}

func (p *plan) window(all []int) []int {
	all = all[min(p.offset, len(all)):]
	if p.limit >= 0 {
		all = all[:min(p.limit, len(all))]
	}
	return all
}

// compare orders values as SQLite does: nothing, numbers, text.
func compare(a, b any) int {
	if c := cmp.Compare(class(a), class(b)); c != 0 {
		return c
	}
	switch a := a.(type) {
	case int64:
		if b, ok := b.(int64); ok {
			return cmp.Compare(a, b)
		}
		return cmp.Compare(float64(a), b.(float64))
	case float64:
		if b, ok := b.(int64); ok {
			return cmp.Compare(a, float64(b))
		}
		return cmp.Compare(a, b.(float64))
	case string:
		return cmp.Compare(a, b.(string))
	}
	return 0
}

func class(v any) int {
	switch v.(type) {
	case nil:
		return 0
	case string:
		return 2
	}
	return 1
}
