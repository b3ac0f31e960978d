package metrics_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"wxproxy/callback"
	"wxproxy/callback/pages"
	"wxproxy/metrics"
)

func TestUnknownLabelsAreOther(t *testing.T) {
	m := metrics.New("v1", "go1")
	m.CallStarted()
	m.CallDone("orders", "wx1234567890abcdef", 999, time.Second, time.Second)
	m.CallStarted()
	m.CallDone("orders", "", 0, time.Second, time.Second)
	m.TokenUsed("none", true)
	m.TokenUsed("nonsense", false)
	m.Retried("nonsense", 45009, "nonsense")
	m.Refreshed("nonsense", "nonsense", time.Second)
	m.Event("wx1234567890abcdef", "nonsense")
	m.Page("wx1234567890abcdef", "nonsense")
	m.KeyRejected("192.0.2.1:1234")
	m.Delivered("wx1234567890abcdef")
	m.StoreOperation("wx1234567890abcdef", "nonsense", time.Second)
	for _, line := range []string{
		`wxproxy_requests_total{caller="orders",code="other",credential="other"} 2`,
		`wxproxy_request_duration_seconds_count{credential="other"} 2`,
		`wxproxy_upstream_duration_seconds_count{credential="other"} 2`,
		`wxproxy_token_cache_hits_total{credential="none"} 1`,
		`wxproxy_token_cache_misses_total{credential="other"} 1`,
		`wxproxy_retries_total{credential="other",errcode="other",result="other"} 1`,
		`wxproxy_token_refreshes_total{credential="other",result="other"} 1`,
		`wxproxy_token_refresh_duration_seconds_count{credential="other"} 1`,
		`wxproxy_callback_events_total{event="other",result="other"} 1`,
		`wxproxy_page_requests_total{page="other",result="other"} 1`,
		`wxproxy_rejected_keys_total{listener="other"} 1`,
		`wxproxy_forward_deliveries_total{result="other"} 1`,
		`wxproxy_store_operations_total{operation="other",result="other"} 1`,
		`wxproxy_store_duration_seconds_count{operation="other"} 1`,
	} {
		expect(t, m, line)
	}
	if got := lines(t, m, "wx1234567890abcdef"); got != nil {
		t.Errorf("got an appid as a label:\n%s", strings.Join(got, "\n"))
	}
}

// Both packages list the events. One that callback adds and metrics does not
// know would be "other".
func TestEventsOfCallbackAreKnown(t *testing.T) {
	m := metrics.New("v1", "go1")
	for _, event := range callback.Events {
		for _, result := range callback.Results {
			m.Event(event, result)
			expect(t, m, fmt.Sprintf("wxproxy_callback_events_total{event=%q,result=%q} 1", event, result))
		}
	}
}

func TestResultsOfPagesAreKnown(t *testing.T) {
	m := metrics.New("v1", "go1")
	for _, page := range pages.Pages {
		for _, result := range pages.Results {
			m.Page(page, result)
			expect(t, m, fmt.Sprintf("wxproxy_page_requests_total{page=%q,result=%q} 1", page, result))
		}
	}
}

func TestStatusesOutOfRangeAreOther(t *testing.T) {
	m := metrics.New("v1", "go1")
	for _, code := range []int{-1, 0, 99, 100, 599, 600, 1 << 40} {
		m.CallStarted()
		m.CallDone("", "app", code, 0, 0)
	}
	expect(t, m, `wxproxy_requests_total{caller="anonymous",code="100",credential="app"} 1`)
	expect(t, m, `wxproxy_requests_total{caller="anonymous",code="599",credential="app"} 1`)
	expect(t, m, `wxproxy_requests_total{caller="anonymous",code="other",credential="app"} 5`)
}

func TestNegativeDurationsDoNotDecreaseSums(t *testing.T) {
	m := metrics.New("v1", "go1")
	m.CallStarted()
	m.CallDone("", "app", 200, -time.Hour, -time.Hour)
	m.Refreshed("app", "ok", -time.Hour)
	expect(t, m, `wxproxy_request_duration_seconds_sum{credential="app"} 0`)
	expect(t, m, `wxproxy_request_duration_seconds_count{credential="app"} 1`)
	expect(t, m, `wxproxy_upstream_duration_seconds_count{credential="app"} 0`)
	expect(t, m, `wxproxy_token_refresh_duration_seconds_count{credential="app"} 0`)
	expect(t, m, `wxproxy_token_refreshes_total{credential="app",result="ok"} 1`)
}

func TestCallersAreLimited(t *testing.T) {
	m := metrics.New("v1", "go1")
	const calls = 5000
	for i := range calls {
		m.CallStarted()
		m.CallDone(fmt.Sprint("caller-", i), "app", 200, 0, 0)
	}
	// One more than the limit is "other". anonymous is one of the callers.
	if got := len(lines(t, m, "wxproxy_requests_total{", `code="200",credential="app"`)); got != 4096+1 {
		t.Errorf("callers with series: got %d, want %d", got, 4096+1)
	}
	expect(t, m, `wxproxy_requests_total{caller="caller-0",code="200",credential="app"} 1`)
	expect(t, m, fmt.Sprintf(`wxproxy_requests_total{caller="other",code="200",credential="app"} %d`, calls-4095))
}

// A caller's name can be in a buffer that is reused, so it must be copied.
func TestCallerNameIsCopied(t *testing.T) {
	m := metrics.New("v1", "go1")
	buffer := []byte("xxordersxx")
	for _, name := range []string{"orders", "stocks"} {
		copy(buffer[2:], name)
		m.CallStarted()
		m.CallDone(unsafeString(buffer[2:8]), "app", 200, 0, 0)
	}
	expect(t, m, `wxproxy_requests_total{caller="orders",code="200",credential="app"} 1`)
	expect(t, m, `wxproxy_requests_total{caller="stocks",code="200",credential="app"} 1`)
}

// Goroutines that count the first events of a series concurrently must not lose
// one.
func TestConcurrentCountsAreNotLost(t *testing.T) {
	m := metrics.New("v1", "go1")
	const workers, rounds, codes = 8, 20, 50
	var all sync.WaitGroup
	start := make(chan struct{})
	for range workers {
		all.Go(func() {
			<-start
			for round := range rounds {
				for code := range codes {
					m.CallStarted()
					m.CallDone(fmt.Sprint("c", round), "authorizer", 200+code, time.Millisecond, time.Millisecond)
					m.TokenUsed("nonsense", true)
				}
			}
		})
	}
	all.Go(func() {
		<-start
		scrape(t, m, "")
	})
	close(start)
	all.Wait()
	if got := len(lines(t, m, "wxproxy_requests_total{", fmt.Sprintf("} %d", workers))); got != rounds*codes {
		t.Errorf("series with all their requests: got %d, want %d", got, rounds*codes)
	}
	expect(t, m, fmt.Sprintf(`wxproxy_request_duration_seconds_count{credential="authorizer"} %d`,
		workers*rounds*codes))
	expect(t, m, fmt.Sprintf(`wxproxy_token_cache_hits_total{credential="other"} %d`, workers*rounds*codes))
	expect(t, m, `wxproxy_inflight_requests 0`)
}

func FuzzLabels(f *testing.F) {
	f.Add("orders", "authorizer", "ok", 200)
	f.Add("", "", "", 0)
	f.Add("a\"b\\c\nd", "component\x00", "store\xff", -40001)
	f.Add("\xc3\x28", "none", "wx1234567890abcdef", 1<<31)
	f.Add("other", "other", "other", 40001)
	f.Add("anonymous", "app", "refused_again", 42006)
	f.Fuzz(func(t *testing.T, name, credential, word string, n int) {
		m := metrics.New(name, word)
		series := func() int {
			body, _ := scrape(t, m, "")
			parser := expfmt.NewTextParser(model.UTF8Validation)
			all, err := parser.TextToMetricFamilies(bytes.NewReader(body))
			if err != nil {
				t.Fatalf("parsing the scrape: %v\n%s", err, body)
			}
			sum := 0
			for name, family := range all {
				if strings.HasPrefix(name, "wxproxy_") {
					sum += len(family.GetMetric())
				}
			}
			return sum
		}
		before := series()
		m.CallStarted()
		m.CallDone(name, credential, n, time.Duration(n), time.Duration(n))
		m.TokenUsed(credential, true)
		m.Retried(credential, n, word)
		m.WeChatError(n)
		m.Refreshed(credential, word, time.Duration(n))
		m.Event(word, word)
		m.Page(word, word)
		m.KeyRejected(word)
		m.Delivered(word)
		m.StoreOperation(word, word, time.Duration(n))
		// At most one new series for requests, for both durations, hits,
		// retries, refreshes and their duration, events, pages, keys,
		// deliveries, and operations of the store and their duration.
		if grown := series() - before; grown > 13 {
			t.Errorf("new series: got %d, want 13 at most", grown)
		}
	})
}
