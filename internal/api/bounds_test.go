package api

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"ghostlight/internal/event"
)

// aboutRequests is every question about requests that reads many rows.
var aboutRequests = []string{
	"/api/v1/requests?since=1h", "/api/v1/traces", "/api/v1/traces?sort=slowest&since=1h", "/api/v1/trace/" + strings.Repeat("11", 16),
	"/api/v1/services?since=1h", "/api/v1/services/shop?since=1h", "/api/v1/heatmap?since=1h", "/api/v1/overview", "/api/v1/map?since=1h",
}

// When the client goes, the reading ends.
func TestQuestionsEnd(t *testing.T) {
	s, _ := newServer(t)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for _, target := range aboutRequests {
		w := httptest.NewRecorder()
		s.mux.ServeHTTP(w, httptest.NewRequest("GET", target, nil).WithContext(gone))
		if w.Code != 503 {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
}

// Where records were lost, no answer looks whole.
func TestQuestionsTellOfLosses(t *testing.T) {
	s, st := newServer(t)
	for _, target := range aboutRequests {
		if w := ask(s, "GET", target, ""); !strings.Contains(w.Body.String(), `"complete":true`) || strings.HasSuffix(strings.TrimSpace(w.Body.String()), `"complete":false}`) {
			t.Errorf("%s: %s", target, w.Body)
		}
	}
	st.Append(&event.Batch{Wall: now.UnixNano() - sec(60), Lost: []event.Lost{{Time: sec(9.995), Stage: "ring", Sensor: "l7cap", Count: 7}}})
	for _, target := range aboutRequests {
		w := ask(s, "GET", target, "")
		body := strings.TrimSpace(w.Body.String())
		if w.Code != 200 || !strings.HasSuffix(body, `"complete":false}`) && !strings.HasSuffix(body, `"complete":false,"lost":7}`) {
			t.Errorf("%s: %d ends with %s", target, w.Code, body[max(0, len(body)-80):])
		}
	}
}
