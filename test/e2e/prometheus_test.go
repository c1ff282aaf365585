package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// prometheus is a real Prometheus that scrapes an agent.
type prometheus struct {
	t   *testing.T
	url string
}

func newPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	config := filepath.Join(dir, "prometheus.yml")
	write(t, config, fmt.Sprintf(`global: {scrape_interval: 1s, scrape_native_histograms: true, always_scrape_classic_histograms: true}
scrape_configs:
- job_name: ghostlight
  static_configs: [{targets: [%q]}]
`, target))
	background(t, cached(t, "prometheus"), "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", "127.0.0.1:"+port, "--enable-feature", "exemplar-storage", "--log.level", "warn")
	listening(t, port)
	return &prometheus{t, "http://127.0.0.1:" + port}
}

// ask reads what the API answers to a query.
func (p *prometheus) ask(path string, values url.Values, data any) error {
	r, err := http.Get(p.url + path + "?" + values.Encode())
	if err != nil {
		return err
	}
	defer r.Body.Close()
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}

// value returns the one number of a query.
func (p *prometheus) value(query string) (float64, error) {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := p.ask("/api/v1/query", url.Values{"query": {query}}, &data); err != nil {
		return 0, err
	}
	if len(data.Result) != 1 {
		return 0, fmt.Errorf("%s: %d results", query, len(data.Result))
	}
	text, _ := data.Result[0].Value[1].(string)
	return strconv.ParseFloat(text, 64)
}

// A real Prometheus counts what nginx counted, and both forms of the histogram
// give the quantiles that the store has.
func TestPrometheus(t *testing.T) {
	s := newSite(t)
	config := filepath.Join(t.TempDir(), "config.yaml")
	write(t, config, siteConfig)
	a := start(t, "--config", config)
	p := newPrometheus(t, a.url[len("http://"):])
	s.ask(t, 40)
	const front = `service_name="nginx",http_route="` + siteRoute + `"`
	const of = front + `,http_response_status_code!="503"`
	eventually(t, 20*time.Second, "all is scraped", func() error {
		n, err := p.value("sum(http_server_request_duration_seconds_count{" + front + "})")
		if err == nil && n != 40 {
			err = fmt.Errorf("%v requests", n)
		}
		return err
	})
	for status, n := range s.served(t) {
		for _, form := range []string{"sum(http_server_request_duration_seconds_count{%s})", "histogram_count(sum(http_server_request_duration_seconds{%s}))"} {
			query := fmt.Sprintf(form, front+`,http_response_status_code="`+status+`"`)
			if got, err := p.value(query); err != nil || int(got) != n {
				t.Errorf("%s is %v, nginx served %d (%v)", query, got, n, err)
			}
		}
	}
	// The 16th of 30 durations is the nearest above half of them.
	rows := a.rows("query", "select duration_ns n from requests where role = 'server' and service_name = 'nginx' and http_response_status_code <> 503 and destination_port = "+s.port+" order by 1")
	if len(rows) != 30 {
		t.Fatalf("%d durations are stored", len(rows))
	}
	low, high := float64(rows[14].num("n"))/1e9, float64(rows[15].num("n"))/1e9
	native, err := p.value("histogram_quantile(0.5, sum(http_server_request_duration_seconds{" + of + "}))")
	if err != nil || native < low/1.045 || native > high*1.045 { // a bucket is 4.4 % wide
		t.Errorf("native: %v, the store says %v to %v (%v)", native, low, high, err)
	}
	classic, err := p.value("histogram_quantile(0.5, sum by (le) (http_server_request_duration_seconds_bucket{" + of + "}))")
	from, to := bucketOf(low), bucketOf(high)
	if err != nil || classic < from[0] || classic > to[1] {
		t.Errorf("classic: %v, the store says %v to %v (%v)", classic, low, high, err)
	}
	t.Logf("p50: native %v, classic %v, the store %v", native, classic, low)
	if n, err := p.value(`traces_service_graph_request_total{client="` + siteClient + `",server="nginx"}`); err != nil || n != 40 {
		t.Errorf("%v requests from curl to nginx (%v)", n, err)
	}
	if n, err := p.value(`traces_service_graph_request_failed_total{client="` + siteClient + `",server="nginx"}`); err != nil || n != 10 {
		t.Errorf("%v of them failed (%v)", n, err)
	}
	p.checkExemplar(a)
}

// bucketOf returns the bounds of the classic bucket of a duration.
func bucketOf(v float64) [2]float64 {
	bounds := []float64{0, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, math.Inf(1)}
	for i := range bounds[1:] {
		if v <= bounds[i+1] {
			return [2]float64{bounds[i], bounds[i+1]}
		}
	}
	return [2]float64{}
}

// checkExemplar follows an exemplar to a trace in the store.
func (p *prometheus) checkExemplar(a *agent) {
	p.t.Helper()
	var data []struct {
		Exemplars []struct{ Labels map[string]string }
	}
	now := time.Now()
	err := p.ask("/api/v1/query_exemplars", url.Values{
		"query": {`http_server_request_duration_seconds{service_name="nginx",http_route="` + siteRoute + `"}`}, "start": {now.Add(-time.Hour).Format(time.RFC3339)}, "end": {now.Add(time.Hour).Format(time.RFC3339)},
	}, &data)
	if err != nil || len(data) == 0 || len(data[0].Exemplars) == 0 {
		p.t.Errorf("no exemplars: %v %v", data, err)
		return
	}
	l := data[0].Exemplars[0].Labels
	rows := a.rows("query", fmt.Sprintf("select service_name from requests where trace_trace_id = '%s' and trace_span_id = '%s'", l["trace_id"], l["span_id"]))
	if len(rows) != 1 || rows[0].str("service_name") != "nginx" {
		p.t.Errorf("the exemplar %v leads to %v", l, rows)
	}
}
