package api

import (
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"ghostlight/internal/config"
)

// selection is what the common parameters ask for.
type selection struct {
	since, until int64 // Unix nanoseconds, 0 is open
	last         int   // -1: not given
	filter       string
	follow       bool
}

func parseQuery(r *http.Request) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrong(http.StatusBadRequest, "percent-encode it", "the query string cannot be read")
	}
	return values, nil
}

// maxFilter bounds what is parsed.
const maxFilter = 8 << 10

func (s *Server) selection(r *http.Request) (selection, error) {
	values, err := parseQuery(r)
	if err != nil {
		return selection{}, err
	}
	now := s.now()
	sel := selection{last: -1, filter: values.Get("filter")}
	if len(sel.filter) > maxFilter {
		return sel, wrong(http.StatusBadRequest, "", "the filter is longer than %d bytes", maxFilter)
	}
	if sel.since, err = moment("since", values.Get("since"), now); err != nil {
		return sel, err
	}
	if sel.until, err = moment("until", values.Get("until"), now); err != nil {
		return sel, err
	}
	if sel.since != 0 && sel.until != 0 && sel.since > sel.until {
		return sel, wrong(http.StatusBadRequest, "", "since is after until")
	}
	if sel.last, err = count("last", values.Get("last"), -1); err != nil {
		return sel, err
	}
	sel.follow, err = truth("follow", values.Get("follow"))
	if err == nil && sel.follow && sel.until != 0 {
		return sel, wrong(http.StatusBadRequest, "", "follow has no end: it cannot go with until")
	}
	return sel, err
}

// moment reads a time, or a span back from now. Empty is 0.
func moment(name, text string, now time.Time) (int64, error) {
	if text == "" {
		return 0, nil
	}
	// A plus sign that was not percent-encoded arrives as a blank.
	if t, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "+", 1)); err == nil {
		if y := t.Year(); y < 1970 || y > 2261 { // what Unix nanoseconds hold
			return 0, wrong(http.StatusBadRequest, "", "%s: the year %d is out of range", name, y)
		}
		return max(1, t.UnixNano()), nil
	}
	span, err := config.ParseDuration(text)
	if err != nil {
		return 0, wrong(http.StatusBadRequest, "write a span like 15m, 1h, 2d, or a time like 2026-01-31T12:00:00Z", "%s: %.80q is no time", name, text)
	}
	return max(1, now.Add(-span).UnixNano()), nil
}

func count(name, text string, otherwise int) (int, error) {
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n > math.MaxInt32 {
		return 0, wrong(http.StatusBadRequest, "", "%s: %.80q is not a number of rows", name, text)
	}
	return int(n), nil
}

func truth(name, text string) (bool, error) {
	switch text {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	}
	return false, wrong(http.StatusBadRequest, "", "%s: %.80q is neither true nor false", name, text)
}
