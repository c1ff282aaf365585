package api

import (
	"context"
	"errors"
	"net/http"

	"ghostlight/internal/query/sql"
	"ghostlight/internal/store"
)

// maxText bounds the text of an answer, which is sent as it comes.
const maxText = 256 << 20

// errEnough ends a statement whose client wants no more rows.
var errEnough = errors.New("enough rows")

// SQLOf answers statements over a store by our own engine.
func SQLOf(st *store.Store) SQL {
	e := sql.New(st, sql.Limits{Rows: maxLimit, Bytes: maxText})
	return func(ctx context.Context, q Question, head func([]AnswerColumn) error, row func([]any) error) (bool, AnswerStats, error) {
		rows := 0
		result, err := e.Query(ctx, q.SQL, func(columns []sql.Column) error {
			list := make([]AnswerColumn, len(columns))
			for i, c := range columns {
				list[i] = AnswerColumn{c.Name, c.Type}
			}
			return head(list)
		}, func(cells []any) error {
			if rows++; rows > q.Limit {
				return errEnough
			}
			return row(cells)
		})
		var told *sql.Error
		switch {
		case errors.Is(err, errEnough):
			return false, AnswerStats{}, nil
		case errors.As(err, &told):
			return false, AnswerStats{}, wrong(http.StatusBadRequest, told.Hint, "%s", told.Message)
		case err != nil:
			return false, AnswerStats{}, err
		}
		return result.Complete, AnswerStats{RowsScanned: result.Scanned, DurationNS: int64(result.Duration), Plan: result.Plan}, nil
	}
}
