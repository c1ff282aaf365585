package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Problem is what a client did wrong or met, as the API tells it: with what to
// do about it where that is known.
type Problem struct {
	Status  int    `json:"-"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Error is the message, then the hint.
func (p *Problem) Error() string {
	if p.Hint == "" {
		return p.Message
	}
	return p.Message + " (" + p.Hint + ")"
}

// problemBody is the body of every answer that is an error.
type problemBody struct {
	Error *Problem `json:"error"`
}

func wrong(status int, hint, format string, args ...any) *Problem {
	return &Problem{Status: status, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// problemOf gives every error its status. What is ours to mend says no more
// than that.
func problemOf(err error) *Problem {
	var p *Problem
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &large):
		return wrong(http.StatusRequestEntityTooLarge, "", "the request is larger than %d bytes", large.Limit)
	case errors.Is(err, context.DeadlineExceeded):
		return wrong(http.StatusGatewayTimeout, "ask for a shorter time range", "the answer took too long")
	case errors.Is(err, context.Canceled):
		return wrong(http.StatusServiceUnavailable, "", "the agent is stopping")
	}
	return wrong(http.StatusInternalServerError, "the agent's log has the reason", "something went wrong inside")
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.Status == http.StatusInternalServerError {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(problemBody{p}) // the client may be gone
}
