package tokens

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// SyncResult is what a comparison with WeChat's list of authorizers found.
type SyncResult struct {
	Listed    int // by WeChat
	Added     int // had no record
	Recovered int // had another refresh token, or were marked as revoked
	Revoked   int // revoked their authorization, and no push said so
	Unchanged int
	Took      time.Duration
}

// Sync makes the records agree with WeChat's list of the accounts that
// authorize the component (api_get_authorizer_list, 500 at a time). It adds
// accounts without a record, takes over refresh tokens that differ, and marks
// accounts as revoked that WeChat no longer knows. So a lost store is rebuilt
// from one ticket. Concurrent calls share one comparison, which also runs once
// a day.
//
// Errors are those of the [wechat.Client], ErrUnavailable, those of the store,
// and the one of ctx, which bounds the wait but not the work.
func (b *Broker) Sync(ctx context.Context) (SyncResult, error) { return b.syncer.sync(ctx) }

// syncer compares the accounts with WeChat's list. It is safe for concurrent
// use.
type syncer struct {
	store     store.Store
	accounts  *accounts
	component *componentAPI
	tasks     *taskGroup
	now       func() time.Time
	log       *slog.Logger

	kind func(appid string) Kind
	// ready reports whether the component's token is available, so that the
	// list can be read.
	ready func(ctx context.Context) bool

	// deleteOldRecords follows a comparison, so that it runs once a day.
	deleteOldRecords func(ctx context.Context) error

	flights singleflight.Group
	wakeUp  chan struct{} // buffered; a second signal changes nothing
}

const (
	// syncTimeout is enough for a million accounts, which are 2,000 pages.
	syncTimeout = 30 * time.Minute
	// syncWriters is how many records are written concurrently. The file store
	// commits them together.
	syncWriters = 32
	// maxConfirmations is how many accounts that are no longer listed are asked
	// about, one by one, in one comparison. The rest waits for the next.
	maxConfirmations = 1000
	// syncInterval is how long a change that no push reported stays unnoticed
	// at most, while comparisons succeed.
	syncInterval = 24 * time.Hour
	// syncPause is the least time between two attempts.
	syncPause = 10 * time.Minute
)

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
	err := s.tasks.run(s.tasks.background, taskTimeout, func(ctx context.Context) error {
		if !s.claim(ctx) {
			return errNotDue
		}
		return nil
	})
	if err != nil {
		return
	}
	if _, err = s.sync(s.tasks.background); err == nil {
		err = s.deleteOldRecords(s.tasks.background)
	}
	if err != nil && s.tasks.background.Err() == nil {
		s.log.Warn("comparing accounts with WeChat's list failed, retrying in ten minutes", "error", err)
	}
}

var errNotDue = errors.New("no comparison is due")

func (s *syncer) sync(ctx context.Context) (SyncResult, error) {
	ch := s.flights.DoChan("", func() (any, error) {
		var r SyncResult
		err := s.tasks.run(s.tasks.background, syncTimeout, func(ctx context.Context) (err error) {
			r, err = s.run(ctx)
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

func (s *syncer) run(ctx context.Context) (r SyncResult, err error) {
	began := s.now()
	err = s.change(ctx, func(rec *syncRecord) bool { rec.Begun = millis(began); return true })
	if err != nil {
		return r, err
	}
	// The listed appids are kept as hashes, which take a tenth of the memory
	// for a million accounts. A collision hides that one account is no longer
	// listed, until the next comparison, which has another seed.
	seed := maphash.MakeSeed()
	listed := make(map[uint64]struct{})
	for offset, total := 0, 1; offset < total; {
		var page []wechat.Authorizer
		if page, total, err = s.component.listPage(ctx, offset); err != nil {
			return r, fmt.Errorf("reading WeChat's list of accounts: %w", err)
		}
		if len(page) == 0 {
			break // the list became shorter while it was read, or total is wrong
		}
		offset += len(page)
		if err := s.adoptAll(ctx, page, began, &r); err != nil {
			return r, err
		}
		for _, l := range page {
			listed[maphash.String(seed, l.AppID)] = struct{}{}
		}
	}
	r.Listed = len(listed)
	isListed := func(appid string) bool { _, ok := listed[maphash.String(seed, appid)]; return ok }
	if r.Revoked, err = s.revokeMissing(ctx, isListed, began); err != nil {
		return r, err
	}
	r.Took = s.now().Sub(began)
	err = s.change(ctx, func(rec *syncRecord) bool {
		rec.Done = millis(s.now())
		// If the record is gone, the store was emptied meanwhile, and has to be
		// filled again: do not note that it is complete.
		return rec.Begun >= millis(began)
	})
	if err != nil {
		return r, err
	}
	s.log.Info("accounts compared with WeChat's list", "listed", r.Listed, "added", r.Added,
		"recovered", r.Recovered, "revoked", r.Revoked, "took", r.Took.Round(time.Millisecond))
	return r, nil
}

// change changes the record of comparisons, and saves it if fn returns true.
func (s *syncer) change(ctx context.Context, fn func(*syncRecord) bool) error {
	key := syncKey(s.component.appid())
	return changeRecord(ctx, s.store, key, func(rec *syncRecord) (*syncRecord, error) {
		if rec == nil {
			rec = &syncRecord{recordFormat: currentFormat}
		}
		if !fn(rec) {
			return nil, nil
		}
		return rec, nil
	})
}

// adoptAll adopts a page of WeChat's list and counts the changes in r.
func (s *syncer) adoptAll(
	ctx context.Context, page []wechat.Authorizer, began time.Time, r *SyncResult,
) error {
	changes := make([]syncChange, len(page))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(syncWriters)
	for i, l := range page {
		g.Go(func() (err error) {
			changes[i], err = s.accounts.adopt(ctx, l, began)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, c := range changes {
		switch c {
		case syncUnchanged:
			r.Unchanged++
		case syncAdded:
			r.Added++
		case syncRecovered:
			r.Recovered++
		}
	}
	return nil
}

// revokeMissing marks accounts as revoked that WeChat does not list, and
// returns how many. It asks about each of them first: the list is read page by
// page, and an account that leaves moves others to a page that was read
// already.
func (s *syncer) revokeMissing(
	ctx context.Context, isListed func(appid string) bool, began time.Time,
) (revoked int, err error) {
	type candidate struct {
		appid string
		acc   *account
	}
	var missing []candidate
	err = s.store.List(ctx, accountPrefix, "", func(key string, raw []byte) bool {
		appid := strings.TrimPrefix(key, accountPrefix)
		if isListed(appid) || s.kind(appid) != Authorizer {
			return true
		}
		acc, ok := decodeOrMove[account](s.store, key, raw)
		if !ok || acc.IsRevoked || acc.Kind != Authorizer.String() {
			return true
		}
		if acc.IssuedAt < millis(began) { // otherwise it was renewed since, so it is authorized
			missing = append(missing, candidate{appid, acc})
		}
		return len(missing) < maxConfirmations
	})
	for _, m := range missing {
		_, authorized, queryErr := s.component.queryAuthorizer(ctx, m.appid)
		if queryErr != nil {
			return revoked, errors.Join(err, queryErr)
		}
		if authorized {
			continue
		}
		if err := s.accounts.confirmRevoked(ctx, m.appid, m.acc); err != nil {
			return revoked, err
		}
		revoked++
	}
	return revoked, err
}

// claim reports whether a comparison is due and this process has to run it. It
// notes the attempt under the record's lock, so that of many replicas one does.
func (s *syncer) claim(ctx context.Context) (claimed bool) {
	if !s.ready(ctx) {
		return false // the next ticket wakes the maintenance
	}
	now := s.now()
	due := func(rec *syncRecord) bool {
		return now.Sub(fromMillis(rec.Done)) >= syncInterval &&
			now.Sub(fromMillis(rec.Begun)) >= syncPause
	}
	// Nearly always nothing is due, which takes no lock to find out.
	rec, err := loadRecord[syncRecord](ctx, s.store, syncKey(s.component.appid()))
	if err != nil || rec != nil && !due(rec) {
		return false
	}
	err = s.change(ctx, func(rec *syncRecord) bool {
		claimed = due(rec)
		rec.Begun = millis(now)
		return claimed
	})
	return claimed && err == nil
}
