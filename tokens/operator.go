package tokens

import (
	"context"
	"strings"
	"sync"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Account is what an operator may see of an account: no secret.
type Account struct {
	AppID string
	Kind  Kind
	State State
	Name  string // nickname; "" where it is not known
	Type  string // "mini program", "service account", …; "" where it is not known

	Token, RefreshToken string    // fingerprints; "" where there is none
	Issued, Expires     time.Time // of the token; zero where there is none

	Authorized, Revoked time.Time // newest authorization and withdrawal, by WeChat's clock; zero: not known

	Failures int       // renewals that failed since the last good one
	Failure  string    // the last one, in words
	RetryAt  time.Time // when the next is tried; zero: when it is asked for
}

func (b *Broker) account(appid string, a *account) Account {
	out := Account{
		AppID: appid, Kind: b.Kind(appid), State: a.state(), Name: a.Name, Type: a.Type,
		Issued: fromMillis(a.IssuedAt), Expires: fromMillis(a.ExpiresAt), Authorized: fromSeconds(a.AuthorizedAt), Revoked: fromSeconds(a.RevokedAt),
		Failures: a.FailureCount, Failure: a.Failure, RetryAt: fromMillis(a.RetryAt),
	}
	switch out.Kind {
	case Component:
		out.Type = "component"
	case App:
		out.Type = "own account"
	}
	if a.Access != "" {
		out.Token = wechat.NewSecret(a.Access).Fingerprint()
	}
	if a.Refresh != "" {
		out.RefreshToken = wechat.NewSecret(a.Refresh).Fingerprint()
	}
	return out
}

func fromSeconds(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0)
}

// Account shows one account, and reads its name if that is not known or older than a day. ErrUnknownAccount: there is none,
// or one of our own that was never asked for.
func (b *Broker) Account(ctx context.Context, appid string) (Account, error) {
	acc, err := b.loadAccount(ctx, appid)
	if err != nil {
		return Account{}, err
	}
	if acc == nil {
		if b.Kind(appid) == Authorizer {
			return Account{}, ErrUnknownAccount
		}
		acc = newAccount(b.Kind(appid))
	}
	if named, err := b.profile(ctx, appid); err == nil && named != nil {
		acc = named
	}
	return b.account(appid, acc), nil
}

// Known says whether a call for appid would have an account: nil, ErrUnknownAccount, ErrRevoked, or a fault of the store. WeChat is not asked.
func (b *Broker) Known(ctx context.Context, appid string) error {
	if _, ok := b.cache.get(appid); ok || b.Kind(appid) != Authorizer {
		return nil
	}
	acc, err := b.loadAccount(ctx, appid)
	switch {
	case err != nil:
		return err
	case acc == nil:
		return ErrUnknownAccount
	case acc.IsRevoked:
		return ErrRevoked
	}
	return nil
}

// List shows the accounts from offset on, limit at most, in order of their appids, and says how many there are. q
// selects those whose appid or name contains it, in any case. Who pages through very many is told a number that may be
// some seconds old, and an account that came or went meanwhile can be missed or seen twice.
func (b *Broker) List(ctx context.Context, offset, limit int, q string) (list []Account, total int, err error) {
	q = strings.ToLower(q)
	began := b.now()
	from, after, total, known := b.listIndex.position(q, offset, began)
	n := from
	found := indexedList{q: q}
	err = b.store.List(ctx, accountPrefix, after, func(key string, raw []byte) bool {
		appid := strings.Clone(strings.TrimPrefix(key, accountPrefix))
		shown := n >= offset && len(list) < limit
		if known && n >= offset && !shown {
			return false
		}
		if q != "" || shown {
			acc, err := decodeAccount(raw)
			if err != nil || q != "" && !strings.Contains(strings.ToLower(appid), q) && !strings.Contains(strings.ToLower(acc.Name), q) {
				return true
			}
			if shown {
				list = append(list, b.account(appid, acc))
			}
		}
		if n++; !known && n%indexEvery == 0 {
			found.keys = append(found.keys, accountPrefix+appid)
		}
		return true
	})
	if !known {
		if total = n; err == nil {
			now := b.now()
			found.total, found.until = total, now.Add(max(indexLife, 5*now.Sub(began)))
			b.listIndex.mu.Lock()
			b.listIndex.last = found
			b.listIndex.mu.Unlock()
		}
	}
	return list, total, err
}

// listIndex remembers of the last list that was gone through from beginning to end where its pages begin: without it each
// page of a million accounts would cost as much as all of them.
type listIndex struct {
	mu   sync.Mutex
	last indexedList
}

type indexedList struct {
	q     string
	keys  []string // of every indexEvery-th account that q selects
	total int
	until time.Time // until when it is good; zero: it is not
}

const (
	indexEvery = 1000
	indexLife  = 5 * time.Second
	// A list of fewer is gone through each time, and is exact.
	indexThreshold = 10_000
)

// position gives the nearest place in front of offset: how many accounts lie position it, and the key of the last of them.
func (x *listIndex) position(q string, offset int, now time.Time) (from int, after string, total int, known bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := &x.last
	if q != l.q || !now.Before(l.until) || l.total < indexThreshold {
		return 0, "", 0, false
	}
	if i := min(offset/indexEvery, len(l.keys)); i > 0 {
		from, after = i*indexEvery, l.keys[i-1]
	}
	return from, after, l.total, true
}

// Refresh gets appid a new token now, whether it is due or not, and does not wait until a failed renewal
// may be tried again. An account that is thought to have withdrawn is looked for at WeChat. Errors as for Renew.
func (b *Broker) Refresh(ctx context.Context, appid string) (Account, error) {
	acc, err := b.loadAccount(ctx, appid)
	if err != nil {
		return Account{}, err
	}
	if acc != nil && acc.IsRevoked {
		held, authorized, err := b.queryAuthorizer(ctx, appid)
		if err != nil {
			return Account{}, err
		}
		if !authorized {
			return Account{}, ErrRevoked
		}
		if err := b.revive(ctx, held); err != nil {
			return Account{}, err
		}
	}
	stale, why := wechat.Secret{}, reasonMissing
	if acc != nil {
		if acc.Access != "" {
			stale, why = wechat.NewSecret(acc.Access), reasonRejected
		}
		if err := b.retryNow(ctx, appid); err != nil {
			return Account{}, err
		}
	}
	if _, err := b.joinFlight(ctx, strings.Clone(appid), stale, why); err != nil {
		return Account{}, err
	}
	return b.Account(ctx, appid)
}

// revive takes back an account that WeChat lists, although we had been told that it withdrew.
func (b *Broker) revive(ctx context.Context, held wechat.Authorizer) error {
	return b.store.Update(ctx, accountKey(held.AppID), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc == nil || !acc.IsRevoked {
			return store.Keep, err
		}
		acc.applyAuthorization(wechat.Grant{Refresh: held.Refresh}, acc.RevokedAt, b.now())
		return encode(acc), nil
	})
}

// retryNow ends the pause after a failed renewal.
func (b *Broker) retryNow(ctx context.Context, appid string) error {
	return b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc == nil || acc.RetryAt == 0 {
			return store.Keep, err
		}
		acc.RetryAt = 0
		return encode(acc), nil
	})
}

// Forget removes all that is kept of appid, a code that waits to be exchanged included. An account that WeChat lists
// comes back with the next [Broker.Sync], or when it is called for. ErrUnknownAccount: there was none.
func (b *Broker) Forget(ctx context.Context, appid string) error {
	found := false
	for _, key := range []string{codeKey(appid), accountKey(appid)} {
		err := b.store.Update(ctx, key, func(_ context.Context, raw []byte) ([]byte, error) {
			found = found || raw != nil
			return nil, nil
		})
		if err != nil {
			return storeFault(err)
		}
	}
	b.cache.remove(appid)
	if !found {
		return ErrUnknownAccount
	}
	b.log.Info("account forgotten", "account", appid)
	return nil
}

// Import keeps a refresh token that another program had for appid. One that is at hand already stays: added is
// false. Nothing is asked of WeChat; whether the token is good shows with the account's first call.
func (b *Broker) Import(ctx context.Context, appid string, refresh wechat.Secret) (added bool, err error) {
	err = b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil {
			return nil, err
		}
		if acc == nil {
			acc = newAccount(Authorizer)
		}
		if acc.IsRevoked || acc.Refresh != "" {
			return store.Keep, nil
		}
		added = true
		acc.Refresh = refresh.Reveal()
		acc.clearFailures()
		return encode(acc), nil
	})
	if err == nil && added {
		b.cache.remove(appid)
	}
	return added, err
}
