package tokens

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// SyncResult says what a comparison with WeChat's list of authorizers has found.
type SyncResult struct {
	Listed    int // by WeChat
	Added     int // were not known here
	Recovered int // had another refresh token, or were thought to have withdrawn
	Revoked   int // have withdrawn, and nobody told
	Unchanged int
	Took      time.Duration
}

// Sync makes the accounts here agree with WeChat's list of those that have authorized the component
// (api_get_authorizer_list, 500 at a time): those that are missing here are added, other refresh tokens are taken
// over, and those that WeChat does not know any more are revoked. It is how a lost store is made again from one ticket. Two that
// ask at once share one comparison. It runs by itself once a day.
//
// The errors are WeChat's, ErrUnavailable, a fault of the store, and that of ctx, which bounds the waiting,
// not the work.
func (b *Broker) Sync(ctx context.Context) (SyncResult, error) {
	ch := b.flights.DoChan("\x00sync", func() (any, error) {
		if !b.begin() {
			return SyncResult{}, ErrClosed
		}
		defer b.work.Done()
		ctx, cancel := context.WithTimeout(b.maintenance.ctx, syncTimeout)
		defer cancel()
		return b.sync(ctx)
	})
	select {
	case r := <-ch:
		return r.Val.(SyncResult), r.Err
	case <-ctx.Done():
		return SyncResult{}, ctx.Err()
	}
}

const (
	// syncTimeout is for a million accounts: 2,000 pages.
	syncTimeout = 30 * time.Minute
	// syncWriters write at the same time, which a file store does together.
	syncWriters = 32
	// confirmLimit is how many accounts that are not listed any more are asked for, each by itself, in one
	// comparison. What is left has to wait for the next.
	confirmLimit = 1000
)

func (b *Broker) sync(ctx context.Context) (r SyncResult, err error) {
	began := b.now()
	if err := b.noteSync(ctx, func(s *syncRecord) bool { s.Begun = millis(began); return true }); err != nil {
		return r, err
	}
	// A hash of each: a million names would take ten times the room, and that two are alike is not to be feared.
	seed := maphash.MakeSeed()
	listed := make(map[uint64]struct{})
	isListed := func(appid string) bool { _, ok := listed[maphash.String(seed, appid)]; return ok }
	for offset, total := 0, 1; offset < total; {
		var page []wechat.Authorizer
		err := b.withComponentToken(ctx, func(component string, token wechat.Secret) error {
			var err error
			page, total, err = b.client.Load().Authorizers(ctx, component, token, offset, wechat.ListPage)
			return err
		})
		if err != nil {
			return r, fmt.Errorf("WeChat's list of accounts could not be read: %w", err)
		}
		if len(page) == 0 {
			break // it has become shorter while it was read, or total is wrong
		}
		offset += len(page)
		if err := b.adoptAll(ctx, page, began, &r); err != nil {
			return r, err
		}
		for _, l := range page {
			listed[maphash.String(seed, l.AppID)] = struct{}{}
		}
	}
	r.Listed = len(listed)
	if r.Revoked, err = b.revokeMissing(ctx, isListed, began); err != nil {
		return r, err
	}
	r.Took = b.now().Sub(began)
	err = b.noteSync(ctx, func(s *syncRecord) bool {
		s.Done = millis(b.now())
		return s.Begun >= millis(began) // otherwise the store was emptied meanwhile, and has to be filled again
	})
	if err != nil {
		return r, err
	}
	b.log.Info("accounts compared with WeChat's list", "listed", r.Listed, "added", r.Added, "recovered", r.Recovered, "revoked", r.Revoked, "took", r.Took.Round(time.Millisecond))
	return r, nil
}

// noteSync changes the record of comparisons if change says so.
func (b *Broker) noteSync(ctx context.Context, change func(*syncRecord) bool) error {
	return b.store.Update(ctx, syncKey(b.Component()), func(_ context.Context, raw []byte) ([]byte, error) {
		s, err := decodeSync(raw)
		if err != nil {
			return nil, err
		}
		if s == nil {
			s = &syncRecord{Version: recordVersion}
		}
		if !change(s) {
			return store.Keep, nil
		}
		return encode(s), nil
	})
}

func (b *Broker) adoptAll(ctx context.Context, page []wechat.Authorizer, began time.Time, r *SyncResult) error {
	changes := make([]syncChange, len(page))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(syncWriters)
	for i, l := range page {
		g.Go(func() (err error) {
			changes[i], err = b.adopt(ctx, l, began)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, c := range changes {
		switch c {
		case unchanged:
			r.Unchanged++
		case added:
			r.Added++
		case recovered:
			r.Recovered++
		}
	}
	return nil
}

type syncChange uint8

const (
	unchanged syncChange = iota
	added
	recovered
)

// adopt takes in what WeChat says of one account. asked is when it was asked (zero: now): what came to be known later
// is newer.
func (b *Broker) adopt(ctx context.Context, l wechat.Authorizer, asked time.Time) (syncChange, error) {
	created := int64(0)
	if !l.Time.IsZero() {
		created = seconds(l.Time)
	}
	// Most accounts are as they were. Those need no lock.
	if acc, err := b.loadAccount(ctx, l.AppID); err != nil || acc.matchesListed(l, created, asked) {
		return unchanged, err
	}
	did := unchanged
	err := b.store.Update(ctx, accountKey(l.AppID), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc.matchesListed(l, created, asked) {
			return store.Keep, err
		}
		switch {
		case acc == nil:
			did, acc = added, newAccount(Authorizer)
			acc.applyAuthorization(wechat.Grant{Refresh: l.Refresh}, created, b.now())
		case acc.IsRevoked:
			did = recovered
			acc.applyAuthorization(wechat.Grant{Refresh: l.Refresh}, created, b.now())
		default:
			// The access token may live on. If it does not, its refusal will show it.
			did = recovered
			acc.Refresh, acc.AuthorizedAt = l.Refresh.Reveal(), max(acc.AuthorizedAt, created)
			acc.clearFailures()
		}
		return encode(acc), nil
	})
	if err == nil && did != unchanged {
		b.cache.remove(l.AppID)
	}
	return did, err
}

// matchesListed says that there is nothing to learn from what WeChat lists.
func (a *account) matchesListed(l wechat.Authorizer, created int64, asked time.Time) bool {
	switch {
	case a == nil:
		return false
	case a.IsRevoked:
		// A withdrawal that WeChat has told of, and that is younger than the authorization it lists.
		return a.RevokedAt > 0 && created <= a.RevokedAt
	case l.Refresh.IsEmpty(), a.Refresh == l.Refresh.Reveal():
		return true
	}
	// Renewed since: the refresh token may have changed by that.
	return !asked.IsZero() && a.IssuedAt >= millis(asked)
}

// revokeMissing finds the accounts that WeChat does not list. It may have forgotten one because others left while
// the list was read, so each is asked for once more.
func (b *Broker) revokeMissing(ctx context.Context, isListed func(appid string) bool, began time.Time) (revoked int, err error) {
	type missing struct {
		appid string
		acc   *account
	}
	var all []missing
	err = b.store.List(ctx, accountPrefix, "", func(key string, raw []byte) bool {
		appid := strings.TrimPrefix(key, accountPrefix)
		if isListed(appid) || b.Kind(appid) != Authorizer {
			return true
		}
		acc, err := decodeAccount(raw)
		if err == nil && !acc.IsRevoked && acc.Kind == Authorizer.String() && acc.IssuedAt < millis(began) {
			all = append(all, missing{appid, acc})
		}
		return len(all) < confirmLimit
	})
	for _, m := range all {
		_, authorized, heldErr := b.queryAuthorizer(ctx, m.appid)
		if heldErr != nil {
			return revoked, errors.Join(err, heldErr)
		}
		if authorized {
			continue
		}
		if err := b.revoke(ctx, m.appid, m.acc); err != nil {
			return revoked, err
		}
		revoked++
	}
	return revoked, err
}
