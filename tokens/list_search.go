package tokens

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"wxproxy/wechat"
)

// errSearching: WeChat's list of accounts is being read, and the account has
// not been found so far.
var errSearching = errors.New("searching the account in WeChat's list")

// errListRepeats: WeChat returned the same accounts for two parts of its list.
// Reading on might never end.
var errListRepeats = errors.New("WeChat's list of accounts repeats itself")

// lastPage is the page of WeChat's list that was read last. The zero value is
// that of a reading that begins. It is not safe for concurrent use.
type lastPage struct {
	offset int
	appids []string
}

// follow notes a page, and returns errListRepeats if it is the same as the last
// one, which began elsewhere.
func (l *lastPage) follow(offset int, page []wechat.Authorizer) error {
	appids := make([]string, len(page))
	for i, a := range page {
		appids[i] = a.AppID
	}
	repeats := offset != l.offset && len(page) > 0 && slices.Equal(appids, l.appids)
	l.offset, l.appids = offset, appids
	if repeats {
		return errListRepeats
	}
	return nil
}

// listSearch finds single accounts in WeChat's list. All searches share one
// reading, which goes round: a search begins where the reading is, and ends
// when it comes there again. It goes round once a minute at most. For a while
// it remembers where accounts are listed, as hashes, so that accounts that are
// searched one after the other cost a page each. Otherwise only what is
// searched for is kept in memory. It is safe for concurrent use.
type listSearch struct {
	// page returns a part of the list; see componentAPI.listPage.
	page  func(ctx context.Context, offset int) ([]wechat.Authorizer, int, error)
	tasks *taskGroup
	now   func() time.Time

	mu       sync.Mutex
	searches map[string]*search // by appid
	offset   int                // of the next page; an interrupted reading goes on there
	round    time.Time          // when the reading last was at the start
	reading  *reading           // nil while the list is not read
	joined   chan struct{}      // buffered; signals a new search to a reading that pauses

	seed  maphash.Seed
	pages map[uint64]int // offsets of pages by hash of an appid; nil if unknown
}

// newListSearch returns one that reads the list with page.
func newListSearch(
	page func(ctx context.Context, offset int) ([]wechat.Authorizer, int, error),
	tasks *taskGroup, now func() time.Time,
) *listSearch {
	return &listSearch{
		page: page, tasks: tasks, now: now,
		searches: map[string]*search{}, joined: make(chan struct{}, 1),
		seed: maphash.MakeSeed(),
	}
}

// search is the search for one account. Its fields are guarded by the mutex of
// the listSearch.
type search struct {
	from    int  // where the reading was when the search began
	wrapped bool // the reading has begun from the start again
	total   int  // length of the list at the first page
	changed bool // the length was another one later
	page    int  // on which the account was listed a while ago; -1 if unknown

	done   chan struct{} // closed when the account was found, or is not listed
	at     time.Time     // of that; valid after that, like the next two
	found  bool
	listed wechat.Authorizer // what WeChat lists
}

// reading is one run of the goroutine that reads the list.
type reading struct {
	ended chan struct{}
	err   error // valid after that
}

const (
	// searchLifetime is how long an answer serves. An account whose refresh
	// token is rejected although it is the listed one is searched again after
	// that.
	searchLifetime = 10 * time.Minute
	// maxSearches bounds the searches that are remembered.
	maxSearches = 1000
	// roundPause is the least time between two readings from the start.
	roundPause = time.Minute
	// maxPages bounds the accounts whose page is remembered, to some 40 MB.
	maxPages = 1_000_000
)

// find returns what WeChat's list says about appid. authorized is false if the
// account is not listed. ctx bounds the wait. The search goes on when it ends,
// so that a later call has the answer.
//
// Errors are errSearching as an ErrUnavailable, and those of page.
func (l *listSearch) find(
	ctx context.Context, appid string,
) (a wechat.Authorizer, authorized bool, err error) {
	s, r := l.join(appid)
	if s == nil {
		return a, false, stillSearching("too many others are searched for")
	}
	if r != nil {
		select {
		case <-s.done:
		case <-r.ended:
		case <-ctx.Done():
			return a, false, stillSearching("WeChat has not listed it so far")
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !s.isDone() { // the account may be on the last page of a reading that ended
		return a, false, r.err
	}
	if !s.found && s.changed {
		// It may have moved from a page that was not read yet to one that was.
		return a, false, stillSearching("the list changed while it was read")
	}
	return s.listed, s.found, nil
}

// stillSearching returns errSearching as an ErrUnavailable.
func stillSearching(why string) error {
	return &unavailableError{
		reason: fmt.Sprintf("%v: %s", errSearching, why), cause: errSearching,
	}
}

// join returns the search for appid and the reading that it waits for, nil if
// it is done. It starts them if necessary. It returns no search if there are
// too many.
func (l *listSearch) join(appid string) (*search, *reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for other, s := range l.searches {
		if s.isDone() && now.Sub(s.at) >= searchLifetime {
			delete(l.searches, other)
		}
	}
	s := l.searches[appid]
	if s == nil {
		if len(l.searches) >= maxSearches {
			return nil, nil
		}
		s = &search{from: l.offset, page: -1, done: make(chan struct{})}
		if page, known := l.pages[maphash.String(l.seed, appid)]; known {
			s.page = page
		}
		select {
		case l.joined <- struct{}{}:
		default:
		}
		l.searches[appid] = s
	}
	r := l.reading
	if r == nil && !s.isDone() {
		r = &reading{ended: make(chan struct{})}
		l.reading = r
		go l.run(r)
	}
	return s, r
}

// run reads the list until no search needs it, or until a page fails.
func (l *listSearch) run(r *reading) {
	err := l.tasks.run(l.tasks.background, 0, func(ctx context.Context) error {
		var last lastPage
		for {
			offset, wait, needed := l.next()
			if !needed {
				return nil
			}
			if wait > 0 {
				select {
				case <-time.After(wait):
				case <-l.joined:
				case <-ctx.Done():
					return ctx.Err()
				}
				continue
			}
			page, total, err := l.page(ctx, offset)
			if err == nil {
				err = last.follow(offset, page)
			}
			if err != nil {
				return err
			}
			l.take(offset, page, total)
		}
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading == r {
		l.reading = nil
	}
	r.err = err
	close(r.ended)
}

// next returns the page to read, and how long to wait before. needed is false
// if all searches are done; then the reading has ended.
func (l *listSearch) next() (offset int, wait time.Duration, needed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.searches {
		if !s.isDone() {
			needed = true
			if s.page >= 0 {
				return s.page, 0, true
			}
		}
	}
	if !needed {
		l.reading = nil // under the lock: the next search starts another one
		return 0, 0, false
	}
	if l.offset == 0 {
		wait = max(l.round.Add(roundPause).Sub(l.now()), 0)
	}
	return l.offset, wait, true
}

// isDone reports whether the search has an answer. It requires the mutex of the
// listSearch.
func (s *search) isDone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// take looks for the accounts that are searched for on a page.
func (l *listSearch) take(offset int, page []wechat.Authorizer, total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range page {
		if s := l.searches[a.AppID]; s != nil && !s.isDone() {
			s.found, s.listed = true, a
			s.finish(l.now())
		}
	}
	for _, s := range l.searches {
		if s.page == offset {
			s.page = -1 // found, or no longer there
		}
	}
	l.remember(offset, page)
	if offset == 0 {
		l.round = l.now()
	}
	if offset != l.offset {
		return // a page out of turn
	}
	next := offset + len(page)
	end := len(page) == 0 || next >= total
	for _, s := range l.searches {
		if s.isDone() {
			continue
		}
		if s.total == 0 {
			s.total = total
		}
		s.changed = s.changed || s.total != total
		switch {
		case end && (s.wrapped || s.from == 0), !end && s.wrapped && next >= s.from:
			s.finish(l.now())
		case end:
			s.wrapped = true
		}
	}
	l.offset = next
	if end {
		l.offset = 0
	}
}

// finish ends the search. It requires the mutex of the listSearch.
func (s *search) finish(now time.Time) {
	s.at = now
	close(s.done)
}

// remember notes on which page accounts are listed, for a while. It requires
// l.mu.
func (l *listSearch) remember(offset int, page []wechat.Authorizer) {
	if l.pages == nil {
		l.pages = map[uint64]int{}
		time.AfterFunc(searchLifetime, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.pages = nil
		})
	}
	if len(l.pages)+len(page) > maxPages {
		return
	}
	for _, a := range page {
		l.pages[maphash.String(l.seed, a.AppID)] = offset
	}
}
