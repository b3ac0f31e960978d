package metrics_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/metrics"
)

func TestMissingSources(t *testing.T) {
	m := metrics.New("v1", "go1")
	for _, g := range []metrics.Sources{{}, {
		TicketAge:       func() (time.Duration, bool) { return time.Hour, false },
		ComponentExpiry: func() (time.Duration, bool) { return time.Hour, false },
	}} {
		m.SetSources(g)
		for _, line := range []string{
			"wxproxy_verify_ticket_age_seconds NaN",
			"wxproxy_component_token_expiry_seconds NaN",
			`wxproxy_accounts{state="active"} NaN`,
			`wxproxy_forward_queue{state="waiting"} NaN`,
			"wxproxy_forward_oldest_seconds NaN",
			`wxproxy_accounts{state="revoked"} NaN`,
			`wxproxy_accounts{state="failing"} NaN`,
			"wxproxy_cache_evictions_total 0",
			"wxproxy_cache_sets_dropped_total 0",
		} {
			expect(t, m, line)
		}
	}
}

func TestSourcesAreReadAtEachScrape(t *testing.T) {
	m := metrics.New("v1", "go1")
	var n atomic.Uint64
	m.SetSources(metrics.Sources{Evictions: func() uint64 { return n.Add(1) }})
	expect(t, m, "wxproxy_cache_evictions_total 1")
	expect(t, m, "wxproxy_cache_evictions_total 2")
	m.SetSources(metrics.Sources{Evictions: func() uint64 { return 77 }})
	expect(t, m, "wxproxy_cache_evictions_total 77")
}

func TestSourceThatPanics(t *testing.T) {
	m := metrics.New("v1", "go1")
	reported := make(chan string, 10)
	m.SetSources(metrics.Sources{
		TicketAge:   func() (time.Duration, bool) { panic("the ticket's value") },
		Accounts:    func() (map[string]int, bool) { panic("the accounts' value") },
		Evictions:   func() uint64 { panic("the cache's value") },
		SetsDropped: func() uint64 { return 5 },
		Panicked:    func(what string, cause any) { reported <- what + ": " + cause.(string) },
	})
	body, _ := scrape(t, m, "")
	if strings.Contains(string(body), "'s value") || strings.Contains(string(body), "accounts' value") {
		t.Error("scrape: got the cause of a panic in the response")
	}
	causes := []string{<-reported, <-reported, <-reported}
	slices.Sort(causes)
	if got, want := strings.Join(causes,
		"\n"), "wxproxy_accounts: the accounts' value\nwxproxy_cache_evictions_total: the cache's value\nwxproxy_verify_ticket_age_seconds: the ticket's value"; got != want {
		t.Errorf("Panicked: got\n%s\nwant\n%s", got, want)
	}
	expect(t, m, "wxproxy_verify_ticket_age_seconds NaN")
	expect(t, m, `wxproxy_accounts{state="failing"} NaN`)
	expect(t, m, "wxproxy_cache_sets_dropped_total 5")
	if got := lines(t, m, "wxproxy_cache_evictions_total"); got != nil {
		t.Errorf("counter that could not be read: got %s, want none", got)
	}
}

// A hanging store must not hide the counters of requests and errors, and it is
// not read again before it responds.
func TestSourceThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := metrics.New("v1", "go1")
		release := make(chan struct{})
		var reads atomic.Int64
		m.SetSources(metrics.Sources{
			Accounts: func() (map[string]int, bool) {
				reads.Add(1)
				<-release
				return map[string]int{"active": 1, "revoked": 2, "failing": 3}, true
			},
			TicketAge: func() (time.Duration, bool) { return time.Minute, true },
		})
		m.Redacted()
		began := time.Now()
		expect(t, m, "wxproxy_redactions_total 1")
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("first scrape: took %v, want 3s", took)
		}
		expect(t, m, "wxproxy_verify_ticket_age_seconds 60")
		expect(t, m, `wxproxy_accounts{state="active"} NaN`)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("later scrapes: took %v in all, want no more than the first", took)
		}
		if n := reads.Load(); n != 1 {
			t.Errorf("reads of the hanging source: got %d, want 1", n)
		}
		close(release)
		synctest.Wait()
		expect(t, m, `wxproxy_accounts{state="active"} 1`)
	})
}
