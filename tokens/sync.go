package tokens

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// SyncOptions change what a comparison may do. The zero value is that of the
// comparison which runs once a day.
type SyncOptions struct {
	// Restore brings back forgotten accounts that WeChat lists. The others stay
	// forgotten until a comparison finds them on the list.
	Restore bool
	// Confirm marks accounts as revoked however many they are; see
	// [SyncResult.Held].
	Confirm bool
}

// SyncResult is what a comparison with WeChat's list of authorizers found.
type SyncResult struct {
	Listed    int // by WeChat
	Added     int // had no record
	Recovered int // had another refresh token, or were marked as revoked
	Revoked   int // revoked their authorization, and no push said so
	Unchanged int
	// Held is how many accounts WeChat does not know any more, if they are so
	// many (more than 20, and more than 5 %) that none was marked as revoked.
	// An operator can confirm it.
	Held int
	Took time.Duration
}

// Sync makes the records agree with WeChat's list of the accounts that
// authorize the component (api_get_authorizer_list, 500 at a time). It adds
// accounts without a record, takes over refresh tokens that differ, and marks
// accounts as revoked that WeChat no longer knows. So a lost store is rebuilt
// from one ticket. A comparison also runs once a day, and as soon as the store
// has lost records; concurrent calls share one.
//
// One of all replicas compares. If it ends early, that or another one resumes
// where it was; see syncRecord. Sync takes over from another replica.
//
// Errors are those of the [wechat.Client], ErrUnavailable, those of the store,
// and the one of ctx, which bounds the wait but not the work.
func (b *Broker) Sync(ctx context.Context, o SyncOptions) (SyncResult, error) {
	if o.Restore {
		n, err := b.accounts.allowRestore(ctx)
		if err != nil {
			return SyncResult{}, err
		}
		b.log.Info("forgotten accounts may return", "accounts", n)
	}
	return b.syncer.sync(ctx, fmt.Sprint(o), o)
}

// syncer compares the accounts with WeChat's list. It is safe for concurrent
// use.
type syncer struct {
	store     store.Store
	accounts  *accounts
	component *componentAPI
	tasks     *taskGroup
	now       func() time.Time
	log       *slog.Logger
	id        string // of this process, random

	kind func(appid string) Kind
	// ready reports whether the component's token is available, so that the
	// list can be read.
	ready func(ctx context.Context) bool
	// deleteOldRecords follows a comparison, so that it runs once a day.
	deleteOldRecords func(ctx context.Context) error

	data    dataWatch // what is known about the parts of the store
	flights singleflight.Group
	running chan struct{} // has room for one comparison
	wakeUp  chan struct{} // buffered; a second signal changes nothing

	mu     sync.Mutex
	seen   ownerBeat // newest sign of life of another process
	seenAt time.Time // by the clock of this one
}

const (
	// syncWriters is how many records are written concurrently. The file store
	// commits them together.
	syncWriters = 32
	// progressTimeout bounds one page of the list, one question about an
	// account, and the reading of some thousand records. There is no limit on
	// the whole, which takes 45 minutes for ten million accounts.
	progressTimeout = 2 * time.Minute
)

// errNoProgress: a comparison got no further within progressTimeout.
var errNoProgress = errors.New("no progress within " + progressTimeout.String())

// loop runs the comparisons that are due until the Broker is closed. It checks
// at every interval, and when wake is called.
func (s *syncer) loop(interval time.Duration) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		s.runIfDue()
		select {
		case <-t.C:
		case <-s.wakeUp:
		case <-s.tasks.background.Done():
			return
		}
	}
}

// wake makes loop check now whether a comparison is due.
func (s *syncer) wake() {
	select {
	case s.wakeUp <- struct{}{}:
	default:
	}
}

// runIfDue runs a comparison if one is due and no other process does.
func (s *syncer) runIfDue() {
	if s.component.appid() == "" {
		return // own accounts are not listed
	}
	claimed := false
	err := s.tasks.run(s.tasks.background, taskTimeout, func(ctx context.Context) error {
		claimed = s.claim(ctx)
		return nil
	})
	if err != nil || !claimed {
		return
	}
	if _, err = s.sync(s.tasks.background, "due", SyncOptions{}); err == nil {
		err = s.deleteOldRecords(s.tasks.background)
	}
	if err != nil && s.tasks.background.Err() == nil {
		s.log.Warn("comparing accounts with WeChat's list failed, it will be resumed", "error", err)
	}
}

// sync compares once, after the comparison that is running. Concurrent calls
// with the same name share one comparison. An operator's has another name than
// one that is due: that one may have read the list before the operator changed
// anything.
func (s *syncer) sync(ctx context.Context, name string, o SyncOptions) (SyncResult, error) {
	ch := s.flights.DoChan(name, func() (any, error) {
		var r SyncResult
		err := s.tasks.run(s.tasks.background, 0, func(ctx context.Context) (err error) {
			select {
			case s.running <- struct{}{}:
				defer func() { <-s.running }()
			case <-ctx.Done():
				return ctx.Err()
			}
			r, err = s.run(ctx, o.Confirm)
			return err
		})
		return r, err
	})
	select {
	case res := <-ch:
		return res.Val.(SyncResult), res.Err
	case <-ctx.Done():
		return SyncResult{}, ctx.Err()
	}
}

// run compares once. Unless it succeeds, it leaves the comparison to whichever
// process is next.
func (s *syncer) run(ctx context.Context, confirm bool) (r SyncResult, err error) {
	c := &comparison{syncer: s, began: s.now(), listed: newAppIDSet(), confirm: confirm}
	err = s.change(ctx, func(rec *syncRecord) bool {
		s.begin(rec, c.began)
		c.walk.begin(rec.Offset)
		c.areNews = s.isBaseline(rec)
		return true
	})
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(progressTimeout, func() { cancel(errNoProgress) })
	defer watchdog.Stop()
	c.progress = func() { watchdog.Reset(progressTimeout) }
	stopBeating := c.startBeating(ctx, cancel)
	err = c.run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	stopBeating()
	if err != nil {
		s.release(s.tasks.background.Err() != nil)
		time.AfterFunc(firstSyncPause, s.wake)
		return c.result, err
	}
	r = c.result
	r.Took = s.now().Sub(c.began)
	s.log.Info("accounts compared with WeChat's list", "listed", r.Listed, "added", r.Added,
		"recovered", r.Recovered, "revoked", r.Revoked, "took", r.Took.Round(time.Millisecond))
	return r, nil
}

// comparison is one passage through WeChat's list and the records.
type comparison struct {
	*syncer
	began   time.Time
	confirm bool
	// areNews is set if accounts without a record are ones that wxproxy has not
	// known before; see isBaseline.
	areNews  bool
	progress func()     // is called after each step
	listed   *appidSet  // what this passage has read
	result   SyncResult // so far

	mu   sync.Mutex // guards walk
	walk listWalk
}

// startBeating notes the cursor of c now and then, until the returned function
// is called. It cancels c if another process has taken over.
func (c *comparison) startBeating(
	ctx context.Context, cancel context.CancelCauseFunc,
) (stop func()) {
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(beatInterval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-stopped:
				return
			}
			if err := c.noteCursor(ctx); errors.Is(err, errTakenOver) {
				cancel(err)
				return
			}
		}
	}()
	return func() { close(stopped); <-ended }
}

// noteCursor notes how far c is, for the process that may have to resume it.
func (c *comparison) noteCursor(ctx context.Context) error {
	c.mu.Lock()
	offset := c.walk.resumeAt()
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, taskTimeout)
	defer cancel()
	return c.note(ctx, func(rec *syncRecord) {
		if offset > rec.Offset {
			rec.Offset, rec.Attempts = offset, 1
		}
	})
}

// run reads the list, adopts it, and looks for accounts that are not on it.
func (c *comparison) run(ctx context.Context) error {
	var last lastPage
	for isDone := false; !isDone; {
		asked := c.now()
		page, total, err := c.component.listPage(ctx, c.walk.offset)
		if err == nil {
			err = last.follow(c.walk.offset, page)
		}
		if err == nil {
			err = c.adoptAll(ctx, page, asked)
		}
		if err != nil {
			err = fmt.Errorf("reading WeChat's list of accounts: %w", err)
			return errors.Join(err, c.noteFailure(ctx))
		}
		for _, l := range page {
			c.listed.add(l.AppID)
		}
		c.progress()
		before := c.walk.covered
		c.mu.Lock()
		isDone = c.walk.advance(len(page), total)
		c.mu.Unlock()
		if c.walk.covered && !before {
			// All pages were adopted, the first ones perhaps by an earlier
			// attempt. An attempt that was resumed reads those once more: only
			// an account that is on none of them is no longer listed.
			err := c.note(ctx, func(rec *syncRecord) { rec.noteAdopted(c.now()) })
			if err != nil {
				return err
			}
		}
	}
	c.result.Listed = c.listed.sort()
	c.result.Unchanged = max(c.result.Listed-c.result.Added-c.result.Recovered, 0)
	missing, err := c.revokeMissing(ctx)
	if err != nil {
		return err
	}
	return c.note(ctx, func(rec *syncRecord) {
		rec.Incomplete, rec.Owner, rec.Attempts = false, "", 0
		rec.Held, rec.HeldOf = c.result.Held, 0
		if rec.Held > 0 {
			rec.HeldOf = c.result.Listed + missing
		}
	})
}

// noteFailure notes the cursor before an attempt ends.
func (c *comparison) noteFailure(ctx context.Context) error {
	if err := c.noteCursor(ctx); errors.Is(err, errTakenOver) {
		return err
	}
	return nil // the next attempt reads a few pages more
}

// adoptAll adopts a page of WeChat's list and counts the changes. asked is when
// WeChat was asked for it.
func (c *comparison) adoptAll(
	ctx context.Context, page []wechat.Authorizer, asked time.Time,
) error {
	changes := make([]syncChange, len(page))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(syncWriters)
	for i, l := range page {
		g.Go(func() (err error) {
			changes[i], err = c.accounts.adopt(ctx, l, asked, c.areNews)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, change := range changes {
		switch change {
		case syncAdded:
			c.result.Added++
		case syncRecovered:
			c.result.Recovered++
		}
	}
	return nil
}

// listWalk goes through WeChat's list, which is paged by offset. It can begin
// anywhere: after the end it continues at the beginning, up to where it began.
//
// An account that leaves the list moves all others forward, past a page that
// was read already. So when the list has become shorter, the walk steps back by
// as many accounts. An account that joins moves others back, which only repeats
// them. One that leaves and one that joins between two pages are not noticed:
// that can hide a new account until it is called, or until the next comparison.
type listWalk struct {
	start, offset int
	first, total  int  // accounts on the list, as of the first and of the last page
	stepsBack     int  // how often the walk stepped back
	wrapped       bool // the end was reached, and the walk went on at the beginning
	covered       bool // the pages of this walk and those before start are all
}

const (
	// endOverlap is how many accounts behind the start are read again at the
	// end of a walk that has wrapped.
	endOverlap = 10
	// maxStepsBack bounds the pages that are read again: the length that WeChat
	// reports may be wrong, and different each time.
	maxStepsBack = 1000
)

// begin makes the walk begin at offset, the cursor of an earlier one. It steps
// back by a page, for accounts that have left the list meanwhile.
func (w *listWalk) begin(offset int) {
	w.start = max(offset-wechat.ListPage, 0)
	w.offset = w.start
}

// advance moves on after a page of n accounts, of a list that has total. It
// returns true if the whole list was read.
func (w *listWalk) advance(n, total int) (isDone bool) {
	if w.total == 0 {
		w.first = total
	}
	left := max(w.total-total, 0) // accounts that have left since the last page
	w.total = total
	if left > 0 && w.offset > 0 && w.stepsBack < maxStepsBack {
		w.stepsBack++
		w.offset = max(w.offset-left, 0)
		return false
	}
	next := w.offset + n
	// Accounts that have joined since may be in front of start.
	end := w.start + max(total-w.first, 0) + endOverlap
	switch {
	case w.wrapped && next >= end, n == 0 || next >= total:
		w.covered = true
		if w.wrapped || w.start == 0 {
			return true
		}
		w.wrapped, w.offset = true, 0
	default:
		w.offset = next
	}
	return false
}

// resumeAt returns the cursor for a later walk.
func (w *listWalk) resumeAt() int {
	if w.wrapped {
		return 0 // all was adopted
	}
	return w.offset
}
