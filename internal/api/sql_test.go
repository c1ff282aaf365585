package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// TestSQL asks the real engine about real rows.
func TestSQL(t *testing.T) {
	s, _ := newServer(t)
	ask := func(sql string, limit int) (a Answer, p *Problem, status int) {
		t.Helper()
		w := ask(s, "GET", fmt.Sprintf("/api/v1/query?limit=%d&sql=%s", limit, url.QueryEscape(sql)), "")
		var told problemBody
		if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		if told.Error == nil {
			json.Unmarshal(w.Body.Bytes(), &a)
		}
		return a, told.Error, w.Code
	}
	for sql, want := range map[string][][]any{
		"select service_name, count(*) from flows group by 1 order by 1":                                                                              {{"curl", 3.0}, {"nginx", 5.0}},
		"select destination_port, tcp_close_reason, complete from flows where tcp_close_reason = 'refused'":                                           {{81.0, "refused", true}},
		"select f.process_pid, p.process_executable_path from flows f join processes p using (process_exec_id) where f.destination_port = 53 limit 1": {{1234.0, "/usr/bin/curl"}},
	} {
		a, p, _ := ask(sql, 0)
		if p != nil || !reflect.DeepEqual(a.Rows, want) || !a.Complete {
			t.Errorf("%s: %v, %v", sql, a.Rows, p)
		}
	}
	if a, p, _ := ask("select flow_id from flows order by flow_id", 2); p != nil || len(a.Rows) != 2 || a.Complete {
		t.Errorf("limited: %+v, %v", a, p)
	}
	for sql, hint := range map[string]string{"select nothing from flows": "nothing", "delete from flows": "", "select": "", "select 1; select 2": ""} {
		_, p, status := ask(sql, 0)
		if p == nil || status != http.StatusBadRequest || !strings.Contains(p.Message, hint) {
			t.Errorf("%s: %d, %v", sql, status, p)
		}
	}
}
