package state

import (
	"sync"
	"time"
)

// clearsPerMonth is how often WeChat lets a quota be cleared in one month
// (doc/oplatform/openApi/openapi).
const clearsPerMonth = 10

// usage counts the requests of one account.
type usage struct {
	calls      map[string]int // by path, on day
	day        string
	cleared    int // times in clearMonth
	clearMonth string
}

// Quotas counts the requests of each account by path and day. Days and months
// follow China's calendar, as WeChat's quotas do. The zero value is ready to
// use. It is safe for concurrent use.
type Quotas struct {
	mu      sync.Mutex // guards everything below
	byAppID map[string]*usage
}

// of returns the record of that account. The caller holds q.mu.
func (q *Quotas) of(appid string) *usage {
	u := q.byAppID[appid]
	if u == nil {
		if q.byAppID == nil {
			q.byAppID = make(map[string]*usage)
		}
		u = &usage{}
		q.byAppID[appid] = u
	}
	return u
}

// Count records a request. Only known paths may be counted, which bounds the
// memory for each account.
func (q *Quotas) Count(appid, path string, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.of(appid)
	if today := day(now); u.calls == nil || u.day != today {
		u.calls, u.day = make(map[string]int), today
	}
	u.calls[path]++
}

// Used returns the number of requests to path on the day of the last request.
func (q *Quotas) Used(appid, path string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.of(appid).calls[path]
}

// ClearPath sets the count of one path to zero.
func (q *Quotas) ClearPath(appid, path string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.of(appid).calls, path)
}

// Clear sets all counts of the account to zero, ten times a month; after that
// the errcode is 48006.
func (q *Quotas) Clear(appid string, now time.Time) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := q.of(appid)
	if m := month(now); u.clearMonth != m {
		u.clearMonth, u.cleared = m, 0
	}
	if u.cleared >= clearsPerMonth {
		return 48006
	}
	u.cleared++
	u.calls = nil
	return 0
}

// china is the time zone in which WeChat's days and months begin.
var china = time.FixedZone("CST", 8*3600)

func day(t time.Time) string   { return t.In(china).Format(time.DateOnly) }
func month(t time.Time) string { return t.In(china).Format("2006-01") }
