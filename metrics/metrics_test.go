package metrics_test

import (
	"bytes"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"wxproxy/metrics"
	"wxproxy/wechat"
)

var update = flag.Bool("update", false, "rewrite testdata/exposition.txt")

const protobuf = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// scrape returns a scrape in the format of accept, "" for text.
func scrape(t testing.TB, m *metrics.Metrics, accept string) (body []byte, contentType string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: got %d %s, want 200", w.Code, w.Body)
	}
	return w.Body.Bytes(), w.Header().Get("Content-Type")
}

// families returns a decoded scrape, with native histograms.
func families(t testing.TB, m *metrics.Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	body, contentType := scrape(t, m, protobuf)
	decoder := expfmt.NewDecoder(bytes.NewReader(body), expfmt.NewFormat(expfmt.TypeProtoDelim))
	if !strings.HasPrefix(contentType, "application/vnd.google.protobuf") {
		t.Fatalf("Content-Type: got %s, want protobuf", contentType)
	}
	all := map[string]*dto.MetricFamily{}
	for {
		family := &dto.MetricFamily{}
		if err := decoder.Decode(family); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[family.GetName()] = family
	}
}

// lines returns the lines of wxproxy's own series that contain all of parts.
func lines(t testing.TB, m *metrics.Metrics, parts ...string) []string {
	t.Helper()
	body, _ := scrape(t, m, "")
	var found []string
	for line := range strings.Lines(string(body)) {
		if !strings.HasPrefix(line, "wxproxy_") {
			continue
		}
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// expect checks that a scrape has exactly this line.
func expect(t testing.TB, m *metrics.Metrics, line string) {
	t.Helper()
	name, _, _ := strings.Cut(line, "{")
	if found := lines(t, m, name); !slices.Contains(found, line) {
		t.Errorf("scrape: want line\n%s\ngot\n%s", line, strings.Join(found, "\n"))
	}
}

// table has the documented metrics, with their labels in alphabetical order.
var table = []struct{ name, kind, labels string }{
	{"wxproxy_requests_total", "COUNTER", "caller code credential"},
	{"wxproxy_request_duration_seconds", "HISTOGRAM", "credential"},
	{"wxproxy_upstream_duration_seconds", "HISTOGRAM", "credential"},
	{"wxproxy_inflight_requests", "GAUGE", ""},
	{"wxproxy_token_cache_hits_total", "COUNTER", "credential"},
	{"wxproxy_token_cache_misses_total", "COUNTER", "credential"},
	{"wxproxy_token_refreshes_total", "COUNTER", "credential result"},
	{"wxproxy_token_refresh_duration_seconds", "HISTOGRAM", "credential"},
	{"wxproxy_retries_total", "COUNTER", "credential errcode result"},
	{"wxproxy_own_calls_total", "COUNTER", "endpoint result"},
	{"wxproxy_unsaved_grants", "GAUGE", ""},
	{"wxproxy_own_calls_waiting", "GAUGE", ""},
	{"wxproxy_renewals_waiting", "GAUGE", ""},
	{"wxproxy_breaker_open", "GAUGE", "reason"},
	{"wxproxy_clock_skew_seconds", "GAUGE", "of"},
	{"wxproxy_wechat_errors_total", "COUNTER", "errcode"},
	{"wxproxy_rejected_keys_total", "COUNTER", "listener"},
	{"wxproxy_redactions_total", "COUNTER", ""},
	{"wxproxy_callback_events_total", "COUNTER", "event result"},
	{"wxproxy_page_requests_total", "COUNTER", "page result"},
	{"wxproxy_verify_ticket_age_seconds", "GAUGE", ""},
	{"wxproxy_component_token_expiry_seconds", "GAUGE", ""},
	{"wxproxy_accounts", "GAUGE", "state"},
	{"wxproxy_cache_evictions_total", "COUNTER", ""},
	{"wxproxy_cache_sets_dropped_total", "COUNTER", ""},
	{"wxproxy_store_operations_total", "COUNTER", "operation result"},
	{"wxproxy_store_duration_seconds", "HISTOGRAM", "operation"},
	{"wxproxy_store_damaged_records", "GAUGE", ""},
	{"wxproxy_sync_age_seconds", "GAUGE", ""},
	{"wxproxy_forward_queue", "GAUGE", "state"},
	{"wxproxy_forward_oldest_seconds", "GAUGE", ""},
	{"wxproxy_forward_deliveries_total", "COUNTER", "result"},
	{"wxproxy_build_info", "GAUGE", "goversion version"},
}

func TestNewProcessShowsEveryMetric(t *testing.T) {
	all := families(t, metrics.New("v1", "go1"))
	for _, want := range table {
		family := all[want.name]
		if family == nil {
			t.Errorf("%s: got none", want.name)
			continue
		}
		if got := family.GetType().String(); got != want.kind {
			t.Errorf("%s: got a %s, want a %s", want.name, got, want.kind)
		}
		for _, series := range family.GetMetric() {
			var labels []string
			for _, l := range series.GetLabel() {
				labels = append(labels, l.GetName())
				if l.GetValue() == "other" && l.GetName() == "credential" {
					t.Errorf("%s: got credential other in a new process", want.name)
				}
			}
			if got := strings.Join(labels, " "); got != want.labels {
				t.Errorf("%s: got labels %q, want %q", want.name, got, want.labels)
			}
		}
		delete(all, want.name)
	}
	for name := range all {
		if strings.HasPrefix(name, "wxproxy_") {
			t.Errorf("%s: it is not documented", name)
		}
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if all[name] == nil {
			t.Errorf("%s: got none", name)
		}
	}
}

// Counters that alerts use exist at zero from the start.
func TestNewProcessShowsZeros(t *testing.T) {
	m := metrics.New("v1", "go1")
	for _, line := range []string{
		`wxproxy_requests_total{caller="anonymous",code="200",credential="none"} 0`,
		`wxproxy_request_duration_seconds_count{credential="app"} 0`,
		`wxproxy_token_cache_misses_total{credential="authorizer"} 0`,
		`wxproxy_token_refreshes_total{credential="component",result="store"} 0`,
		`wxproxy_retries_total{credential="app",errcode="42001",result="no_token"} 0`,
		`wxproxy_retries_total{credential="component",errcode="42006",result="refused_again"} 0`,
		`wxproxy_wechat_errors_total{errcode="61004"} 0`,
		`wxproxy_wechat_errors_total{errcode="other"} 0`,
		`wxproxy_callback_events_total{event="component_verify_ticket",result="ok"} 0`,
		`wxproxy_callback_events_total{event="message",result="ok"} 0`,
		`wxproxy_callback_events_total{event="message",result="queue_full"} 0`,
		`wxproxy_callback_events_total{event="notify_3rd_wxa_auth",result="queue_full"} 0`,
		`wxproxy_callback_events_total{event="other",result="bad_signature"} 0`,
		`wxproxy_page_requests_total{page="authorize",result="limited"} 0`,
		`wxproxy_store_operations_total{operation="update",result="failed"} 0`,
		`wxproxy_store_duration_seconds_count{operation="ping"} 0`,
		`wxproxy_forward_deliveries_total{result="dead"} 0`,
		`wxproxy_rejected_keys_total{listener="proxy"} 0`,
		`wxproxy_rejected_keys_total{listener="admin"} 0`,
	} {
		expect(t, m, line)
	}
}

// busy returns metrics with every kind of event, and times that print the same
// on every machine.
func busy() *metrics.Metrics {
	m := metrics.New("v1.2.3", "go1.26")
	m.CallStarted()
	m.CallStarted()
	m.CallDone("orders", "authorizer", 200, 31250*time.Microsecond, 15625*time.Microsecond)
	m.CallStarted()
	m.CallDone("", "none", 401, 250*time.Microsecond, 0)
	m.CallStarted()
	m.CallDone("orders", "component", 502, 62500*time.Millisecond, time.Minute)
	m.TokenUsed("authorizer", true)
	m.TokenUsed("authorizer", true)
	m.TokenUsed("component", false)
	m.Retried("authorizer", 42001, "ok")
	m.Retried("component", 42006, "refused_again")
	m.WeChatError(42001)
	m.WeChatError(85001)
	m.WeChatError(0)
	m.Redacted()
	m.Refreshed("authorizer", "ok", 125*time.Millisecond)
	m.Refreshed("component", "store", 0)
	m.Event("component_verify_ticket", "ok")
	m.Event("notify_icpfiling_verify_result", "ignored")
	m.Event("other", "bad_signature")
	m.Page("authorized", "ok")
	m.KeyRejected("proxy")
	m.StoreOperation("update", "ok", 31250*time.Microsecond)
	m.StoreOperation("update", "failed", -1)
	m.Delivered("ok")
	m.Delivered("failed")
	m.Delivered("failed")
	m.SetSources(metrics.Sources{
		TicketAge:       func() (time.Duration, bool) { return 7*time.Minute + 500*time.Millisecond, true },
		ComponentExpiry: func() (time.Duration, bool) { return -time.Second, true },
		Accounts: func() (map[string]int, bool) {
			return map[string]int{"active": 12345, "revoked": 6, "failing": 7}, true
		},
		SyncAge: func() (time.Duration, bool) { return time.Hour, true },
		ForwardQueue: func() (metrics.ForwardQueue, bool) {
			return metrics.ForwardQueue{Waiting: 5, Dead: 1, Oldest: 90 * time.Second}, true
		},
		DamagedRecords: func() (int, bool) { return 3, true },
		Evictions:      func() uint64 { return 8 },
		SetsDropped:    func() uint64 { return 9 },
	})
	return m
}

func TestExposition(t *testing.T) {
	const file = "testdata/exposition.txt"
	body, _ := scrape(t, busy(), "")
	var own bytes.Buffer
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "wxproxy_") || strings.HasPrefix(line, "# ") &&
			strings.HasPrefix(line[len("# HELP "):], "wxproxy_") {
			own.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile(file, own.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if own.String() == string(want) {
		return
	}
	got, wanted := slices.Collect(strings.Lines(own.String())), slices.Collect(strings.Lines(string(want)))
	for _, line := range got {
		if !slices.Contains(wanted, line) {
			t.Errorf("+ %s", line)
		}
	}
	for _, line := range wanted {
		if !slices.Contains(got, line) {
			t.Errorf("- %s", line)
		}
	}
	t.Errorf("the scrape differs from %s; to accept it, run go test ./metrics -run TestExposition -update", file)
}

func TestPromlintAcceptsEveryName(t *testing.T) {
	body, _ := scrape(t, busy(), "")
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestOpenMetrics(t *testing.T) {
	body, contentType := scrape(t, busy(), "application/openmetrics-text;version=1.0.0")
	if !strings.HasPrefix(contentType, "application/openmetrics-text") || !bytes.HasSuffix(body, []byte("# EOF\n")) {
		t.Errorf("OpenMetrics: got %s that ends with %q", contentType, body[max(0, len(body)-20):])
	}
}

func TestNativeHistograms(t *testing.T) {
	all := families(t, busy())
	for _, name := range []string{"wxproxy_request_duration_seconds",
		"wxproxy_upstream_duration_seconds", "wxproxy_token_refresh_duration_seconds"} {
		filled := 0
		for _, series := range all[name].GetMetric() {
			h := series.GetHistogram()
			if h.GetSchema() != 3 || h.GetZeroThreshold() > .0001 {
				t.Errorf("%s: got schema %d and zero threshold %v, want 3 and 0.0001 at most", name,
					h.GetSchema(), h.GetZeroThreshold())
			}
			if h.GetSampleCount() > 0 && len(h.GetPositiveDelta()) > 0 {
				filled++
			}
			if n := len(h.GetBucket()); n != 15 {
				t.Errorf("%s: got %d classic buckets, want 15", name, n)
			}
		}
		if filled == 0 {
			t.Errorf("%s: got no native buckets", name)
		}
	}
}

// This package has its own list of errcodes, because it imports no other
// package of wxproxy.
func TestErrcodesEqualThoseOfPackageWechat(t *testing.T) {
	m := metrics.New("v1", "go1")
	for _, code := range wechat.KnownCodes {
		m.WeChatError(code)
	}
	if got := lines(t, m, "wxproxy_wechat_errors_total{", "} 1"); len(got) != len(wechat.KnownCodes) {
		t.Errorf("codes of wechat.KnownCodes with a series: got %d, want %d", len(got), len(wechat.KnownCodes))
	}
	if got := lines(t, m, "wxproxy_wechat_errors_total{", "} 0"); len(got) != 1 {
		t.Errorf("codes that are not in wechat.KnownCodes: got\n%s\nwant only other", strings.Join(got, "\n"))
	}
}
