package metrics_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"wxproxy/metrics"
)

// tool returns the path of a program that .ci/tools.sh has unpacked, in
// WXPROXY_TOOLS or in .tools at the root of the module. A missing program fails
// the test, because a skipped test would go unnoticed.
func tool(t *testing.T, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real Prometheus")
	}
	folder := os.Getenv("WXPROXY_TOOLS")
	if folder == "" {
		out, err := exec.Command("go", "env", "GOMOD").Output()
		if err != nil {
			t.Fatalf("go env GOMOD: %v", err)
		}
		folder = filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), ".tools")
	}
	path := filepath.Join(folder, "usr", "bin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s: not found; run make test or .ci/tools.sh first", name)
	}
	return path
}

func TestPromtoolAcceptsScrape(t *testing.T) {
	promtool := tool(t, "promtool")
	body, _ := scrape(t, busy(), "")
	check := exec.CommandContext(t.Context(), promtool, "check", "metrics")
	check.Stdin = bytes.NewReader(body)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// A real Prometheus answers the queries of a dashboard, once with classic
// histograms and once with native ones. Each request took 20 ms.
func TestPrometheusAnswersDashboardQueries(t *testing.T) {
	const quantile = `histogram_quantile(0.5, sum by (le) (rate(wxproxy_request_duration_seconds_bucket{credential="authorizer"}[1m])))`
	const native = `histogram_quantile(0.5, sum(rate(wxproxy_request_duration_seconds{credential="authorizer"}[1m])))`
	type question struct {
		query    string
		min, max float64
	}
	for name, c := range map[string]struct {
		flags     []string
		questions []question
	}{
		"classic": {nil, []question{
			{quantile, .010, .025}, // the bucket's bounds
			{`histogram_count(wxproxy_request_duration_seconds) or vector(-1)`, -1, -1},
		}},
		"native": {[]string{"--enable-feature=native-histograms"}, []question{
			{native, .018, .022}, // 10 % wide
			{`histogram_count(sum(wxproxy_request_duration_seconds{credential="authorizer"}))`, perScrape, 1e9},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits for scrapes
			binary := tool(t, "prometheus")
			target := newTarget(t)
			api := startPrometheus(t, binary, target.address, c.flags...)
			// Count the refusal after Prometheus has stored a zero. A scrape
			// that it received too late does not count, on a busy machine.
			target.query(t, api, `1 + sum(wxproxy_token_refreshes_total{result="refused"})`)
			target.metrics.Refreshed("component", "refused", time.Second)
			for _, q := range append(c.questions,
				question{`sum(rate(wxproxy_requests_total{caller="orders",code="200"}[1m]))`, 1, 1e9},
				// The zero was scraped, so the step to 1 is an increase.
				question{`sum(increase(wxproxy_token_refreshes_total{result="refused"}[1m]))`, .5, 1e9},
				question{`max(wxproxy_build_info{version="v1"})`, 1, 1},
				question{`scalar(wxproxy_verify_ticket_age_seconds) == bool 60`, 1, 1},
			) {
				got := target.query(t, api, q.query)
				if got < q.min || got > q.max {
					t.Errorf("%s\ngot %v, want %v to %v", q.query, got, q.min, q.max)
				}
			}
		})
	}
}

// perScrape is how many requests are counted after each scrape.
const perScrape = 100

// target is a listener for Prometheus to scrape. It counts requests after each
// scrape.
type target struct {
	address string
	metrics *metrics.Metrics
	scraped chan struct{} // receives after a scrape, unless it is full
}

func newTarget(t *testing.T) *target {
	m := metrics.New("v1", "go1")
	m.SetSources(metrics.Sources{TicketAge: func() (time.Duration, bool) { return time.Minute, true }})
	tg := &target{metrics: m, scraped: make(chan struct{}, 1)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.Handler().ServeHTTP(w, r)
		// After the response, so that the first scrape sees zeros.
		for range perScrape {
			m.CallStarted()
			m.CallDone("orders", "authorizer", 200, 20*time.Millisecond, 19*time.Millisecond)
		}
		select {
		case tg.scraped <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(server.Close)
	tg.address = server.Listener.Addr().String()
	return tg
}

// query repeats a query after every scrape until its result is a number other
// than
// 0. rate() needs two scrapes, and the last one may not be stored yet.
func (tg *target) query(t *testing.T, api, query string) float64 {
	t.Helper()
	timeout := time.After(3 * time.Minute)
	var last string
	for {
		select {
		case <-tg.scraped:
		case <-timeout:
			t.Fatalf("%s\ngot no number, last response %s", query, last)
		}
		resp, err := http.Get(api + "/api/v1/query?query=" + url.QueryEscape(query))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		last = string(raw)
		var answer struct {
			Status string
			Data   struct {
				ResultType string
				Result     json.RawMessage
			}
		}
		if err := json.Unmarshal(raw, &answer); err != nil || resp.StatusCode == http.StatusBadRequest {
			t.Fatalf("%s\ngot %s: %v", query, raw, err)
		}
		if v, ok := value(answer.Data.ResultType, answer.Data.Result); ok && v != 0 {
			return v
		}
	}
}

// value returns the number in a scalar, or in the first series of a vector.
func value(kind string, result json.RawMessage) (float64, bool) {
	var sample [2]any
	if kind == "scalar" {
		if json.Unmarshal(result, &sample) != nil {
			return 0, false
		}
	} else {
		var vector []struct{ Value [2]any }
		if json.Unmarshal(result, &vector) != nil || len(vector) == 0 {
			return 0, false
		}
		sample = vector[0].Value
	}
	text, _ := sample[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	return v, err == nil && v == v
}

// startPrometheus runs a server that scrapes address every second until the
// test ends. It chooses its own port. It returns the base URL of its API.
func startPrometheus(t *testing.T, binary, address string, flags ...string) string {
	t.Helper()
	folder := t.TempDir()
	config := filepath.Join(folder, "prometheus.yml")
	err := os.WriteFile(config, fmt.Appendf(nil, `
scrape_configs:
  - job_name: wxproxy
    scrape_interval: 1s
    scrape_timeout: 1s
    static_configs: [{targets: [%q]}]
`, address), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	// SIGTERM to this process, and SIGKILL if it does not end.
	ctx, stop := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, binary, append([]string{
		"--config.file=" + config,
		"--storage.tsdb.path=" + filepath.Join(folder, "data"),
		"--web.listen-address=127.0.0.1:0",
		"--log.format=json",
	}, flags...)...)
	server.Cancel = func() error { return server.Process.Signal(syscall.SIGTERM) }
	server.WaitDelay = 20 * time.Second
	stderr, err := server.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	var log bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			fmt.Fprintf(&log, "%s\n", lines.Bytes())
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "Listening on" {
				listening <- line.Address
			}
		}
		close(listening)
	}()
	t.Cleanup(func() {
		stop()
		<-read // before Wait, which closes the pipe
		server.Wait()
		if t.Failed() {
			t.Logf("log of Prometheus:\n%s", log.Bytes())
		}
	})
	listens, ok := <-listening
	if _, _, err := net.SplitHostPort(listens); !ok || err != nil {
		t.Fatalf("Prometheus: got address %q, want host and port", listens)
	}
	return "http://" + listens
}
