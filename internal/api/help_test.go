package api

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
)

// fakeSQL stands for an engine: it answers each statement with two rows.
func fakeSQL(_ context.Context, q Question, head func([]AnswerColumn) error, row func([]any) error) (bool, AnswerStats, error) {
	if q.SQL == "wrong" {
		return false, AnswerStats{}, wrong(http.StatusBadRequest, "begin with select", `near "wrong"`)
	}
	head([]AnswerColumn{{"n", "int"}, {"n", "string"}, {"x", "float"}})
	row([]any{int64(1), "a \"b\"\n", 1.5})
	row([]any{int64(q.Limit), nil, nil})
	return true, AnswerStats{RowsScanned: 8, DurationNS: 5, Plan: "native"}, nil
}

func sortedWords(words []string) string {
	slices.Sort(words)
	return strings.Join(words, " ")
}

func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}
