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

func TestPullOfNothing(t *testing.T) {
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
			`wxproxy_accounts{state="revoked"} NaN`,
			`wxproxy_accounts{state="failing"} NaN`,
			"wxproxy_cache_evictions_total 0",
			"wxproxy_cache_sets_dropped_total 0",
		} {
			expect(t, m, line)
		}
	}
}

func TestPullIsReadAtEachScrape(t *testing.T) {
	m := metrics.New("v1", "go1")
	var n atomic.Uint64
	m.SetSources(metrics.Sources{Evictions: func() uint64 { return n.Add(1) }})
	expect(t, m, "wxproxy_cache_evictions_total 1")
	expect(t, m, "wxproxy_cache_evictions_total 2")
	m.SetSources(metrics.Sources{Evictions: func() uint64 { return 77 }})
	expect(t, m, "wxproxy_cache_evictions_total 77")
}

func TestPullThatPanics(t *testing.T) {
	m := metrics.New("v1", "go1")
	told := make(chan string, 10)
	m.SetSources(metrics.Sources{
		TicketAge:   func() (time.Duration, bool) { panic("the ticket's value") },
		Accounts:    func() (int, int, int, bool) { panic("the accounts' value") },
		Evictions:   func() uint64 { panic("the cache's value") },
		SetsDropped: func() uint64 { return 5 },
		Panicked:    func(what string, cause any) { told <- what + ": " + cause.(string) },
	})
	body, _ := scrape(t, m, "")
	if strings.Contains(string(body), "'s value") || strings.Contains(string(body), "accounts' value") {
		t.Error("the scraper was told what somebody panicked with")
	}
	heard := []string{<-told, <-told, <-told}
	slices.Sort(heard)
	if got, want := strings.Join(heard, "\n"), "wxproxy_accounts: the accounts' value\nwxproxy_cache_evictions_total: the cache's value\nwxproxy_verify_ticket_age_seconds: the ticket's value"; got != want {
		t.Errorf("heard\n%s\nwant\n%s", got, want)
	}
	expect(t, m, "wxproxy_verify_ticket_age_seconds NaN")
	expect(t, m, `wxproxy_accounts{state="failing"} NaN`)
	expect(t, m, "wxproxy_cache_sets_dropped_total 5")
	if got := lines(t, m, "wxproxy_cache_evictions_total"); got != nil {
		t.Errorf("a counter that nobody could read: %s", got)
	}
}

// A store that hangs must not take the counters of calls and errors along; and it is not
// asked again and again.
func TestPullThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := metrics.New("v1", "go1")
		release := make(chan struct{})
		var asked atomic.Int64
		m.SetSources(metrics.Sources{
			Accounts: func() (int, int, int, bool) {
				asked.Add(1)
				<-release
				return 1, 2, 3, true
			},
			TicketAge: func() (time.Duration, bool) { return time.Minute, true },
		})
		m.Redacted()
		began := time.Now()
		expect(t, m, "wxproxy_redactions_total 1")
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("the first scrape took %v", took)
		}
		expect(t, m, "wxproxy_verify_ticket_age_seconds 60")
		expect(t, m, `wxproxy_accounts{state="active"} NaN`)
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("the next ones waited too: %v", took)
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		close(release)
		synctest.Wait()
		expect(t, m, `wxproxy_accounts{state="active"} 1`)
	})
}
