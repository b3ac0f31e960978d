package tokens

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"wxproxy/wechat"
)

// accounts reads and changes the records of accounts. A change that invalidates
// a cached token evicts it. It is safe for concurrent use.
type accounts struct {
	store *unsavedStore
	cache *cache
	now   func() time.Time
	log   *slog.Logger
	// forgetName deletes the original id of an account.
	forgetName func(ctx context.Context, appid, userName string) error
	changed    func(ctx context.Context, c Change) error // see [Config].Changed
}

// load returns the record of appid, or nil if there is none.
func (a *accounts) load(ctx context.Context, appid string) (*account, error) {
	return loadRecord[account](ctx, a.store, accountKey(appid))
}

// update changes the record of appid under its lock; see updateRecord. It does
// not touch the cache.
func (a *accounts) update(
	ctx context.Context, appid string, fn func(ctx context.Context, stored *account) (*account, error),
) error {
	return updateRecord(ctx, a.store, accountKey(appid), fn)
}

// change is update for a change that does not wait for anything.
func (a *accounts) change(
	ctx context.Context, appid string, fn func(stored *account) (*account, error),
) error {
	return changeRecord(ctx, a.store, accountKey(appid), fn)
}

// syncChange is what adopt did.
type syncChange uint8

const (
	syncUnchanged syncChange = iota
	syncAdded
	syncRecovered
)

// adopt takes over what WeChat's list says about one account. asked is when
// WeChat was asked; the zero time means now. What wxproxy learned after that is
// newer than the list and stays. isNews is set if an account without a record
// is one that wxproxy has not known before.
func (a *accounts) adopt(
	ctx context.Context, l wechat.Authorizer, asked time.Time, isNews bool,
) (syncChange, error) {
	created := int64(0)
	if !l.Time.IsZero() {
		created = unixSeconds(l.Time)
	}
	// Most accounts have not changed. Those need no lock.
	if acc, err := a.load(ctx, l.AppID); err != nil || acc.matchesListed(l, created, asked, a.now()) {
		return syncUnchanged, err
	}
	did := syncUnchanged
	err := a.update(ctx, l.AppID, func(ctx context.Context, acc *account) (*account, error) {
		if acc.matchesListed(l, created, asked, a.now()) {
			return nil, nil
		}
		if acc == nil && isNews || acc != nil && acc.IsRevoked {
			if err := a.report(ctx, l.AppID, acc, true); err != nil {
				return nil, err
			}
		}
		switch {
		case acc == nil:
			did, acc = syncAdded, newAccount(Authorizer)
			acc.reinstate(l.Refresh, created, l.Date, a.now())
		case acc.IsRevoked:
			did = syncRecovered
			acc.reinstate(l.Refresh, created, l.Date, a.now())
		default:
			// The access token may still be valid. If it is not, WeChat rejects
			// it and the next renewal uses the new refresh token.
			did = syncRecovered
			acc.Refresh, acc.AuthorizedAt = l.Refresh.Reveal(), max(acc.AuthorizedAt, created)
			acc.clearFailures()
		}
		return acc, nil
	})
	if err == nil && did == syncRecovered {
		a.cache.remove(l.AppID) // not if it was added: the store may have lost the record
	}
	return did, err
}

// matchesListed reports whether the record needs no change because of what
// WeChat lists. A nil account never matches.
func (a *account) matchesListed(
	l wechat.Authorizer, created int64, asked, now time.Time,
) bool {
	switch {
	case a == nil:
		return false
	case a.isForgotten():
		return !a.IsRestorable
	case a.IsRevoked:
		// WeChat pushed a revocation that is newer than the listed
		// authorization.
		return a.RevokedAt > 0 && created <= a.RevokedAt
	case l.Refresh.IsEmpty(), a.Refresh == l.Refresh.Reveal():
		return true
	case a.Refresh == "":
		return false // such as a record that was restored from the cache
	}
	// A renewal since then may have changed the refresh token.
	return !asked.IsZero() && a.issuedSince(asked, now)
}

// markRevoked records a revocation that WeChat pushed. created is its
// CreateTime. It returns ErrStale if a newer authorization is known. A
// forgotten account stays forgotten.
func (a *accounts) markRevoked(ctx context.Context, appid string, created time.Time) error {
	err := a.change(ctx, appid, func(acc *account) (*account, error) {
		if acc == nil {
			acc = newAccount(Authorizer)
		}
		if acc.outdates(unixSeconds(created)) {
			return nil, ErrStale
		}
		acc.markRevoked(unixSeconds(created), a.now())
		return acc, nil
	})
	if err == nil {
		a.cache.remove(appid)
		a.log.Info("authorization revoked", "account", appid)
	}
	return err
}

// confirmRevoked records that WeChat answered that appid does not authorize the
// component; see [account.markFound]. It does nothing if the account changed
// since seen was read: WeChat's answer may be about an older authorization.
//
//  1. wxproxy:  read the record; ask WeChat: not authorized
//  2. merchant: authorize again; its push is recorded
//  3. wxproxy:  record the revocation (must not happen)
func (a *accounts) confirmRevoked(ctx context.Context, appid string, seen *account) error {
	err := a.update(ctx, appid, func(ctx context.Context, acc *account) (*account, error) {
		if acc == nil || acc.IsRevoked {
			return nil, nil
		}
		if acc.AuthorizedAt != seen.AuthorizedAt || acc.SeenAt != seen.SeenAt ||
			acc.IssuedAt != seen.IssuedAt {
			return nil, nil
		}
		if err := a.report(ctx, appid, acc, false); err != nil {
			return nil, err
		}
		acc.markFound(a.now())
		a.log.Warn(msgConfirmedRevoked, "account", appid)
		return acc, nil
	})
	// Even if nothing was saved: the record is another one than seen, and the
	// next call reads it.
	a.cache.remove(appid)
	return err
}

// msgConfirmedRevoked is logged where WeChat was asked; "authorization revoked"
// where it pushed the revocation.
const msgConfirmedRevoked = "authorization revoked, as WeChat answered"

// restore saves the cached token of an account whose record is missing, because
// the store lost it. The refresh token is not cached: the comparison with
// WeChat's list brings it, or the next renewal asks for it.
func (a *accounts) restore(ctx context.Context, appid string, kind Kind) error {
	e, ok := a.cache.getStale(appid)
	if !ok {
		return nil
	}
	return a.change(ctx, appid, func(acc *account) (*account, error) {
		if acc != nil {
			return nil, nil
		}
		acc = newAccount(kind)
		acc.Access = e.token.Value.Reveal()
		acc.IssuedAt, acc.ExpiresAt = millis(a.now()), millis(e.usableUntil)
		a.log.Warn("the store has lost the record of an account, restored with its cached token",
			"account", appid)
		return acc, nil
	})
}

// setAuthorizedAt records the time of the authorization that code belongs to.
// The browser that presented the code first did not say when it was, and the
// response to the exchange only says that it was no later. created is in Unix
// seconds, by WeChat's clock.
func (a *accounts) setAuthorizedAt(
	ctx context.Context, appid string, code wechat.Secret, created int64,
) error {
	dated := func(acc *account) bool {
		return acc == nil || acc.IsRevoked || acc.CodeFingerprint != code.Fingerprint() ||
			acc.AuthorizedAt >= created && acc.SeenAt == 0
	}
	if acc, err := a.load(ctx, appid); err != nil || dated(acc) {
		return err
	}
	return a.change(ctx, appid, func(acc *account) (*account, error) {
		if dated(acc) {
			return nil, nil
		}
		acc.AuthorizedAt, acc.SeenAt = max(acc.AuthorizedAt, created), 0
		return acc, nil
	})
}

// clearRetryPause lets the next renewal start at once, although the last
// failed.
func (a *accounts) clearRetryPause(ctx context.Context, appid string) error {
	return a.change(ctx, appid, func(acc *account) (*account, error) {
		if acc == nil || acc.RetryAt == 0 {
			return nil, nil
		}
		acc.RetryAt = 0
		return acc, nil
	})
}

// importRefreshToken stores a refresh token unless the account has one already
// or has revoked its authorization. It brings a forgotten account back.
func (a *accounts) importRefreshToken(
	ctx context.Context, appid string, refresh wechat.Secret,
) (imported bool, err error) {
	err = a.change(ctx, appid, func(acc *account) (*account, error) {
		if acc == nil {
			acc = newAccount(Authorizer)
		}
		if !acc.isForgotten() && (acc.IsRevoked || acc.Refresh != "") {
			return nil, nil
		}
		imported = true
		acc.applyAuthorization(wechat.Grant{Refresh: refresh}, 0, a.now())
		return acc, nil
	})
	if err == nil && imported {
		a.cache.remove(appid)
	}
	return imported, err
}

// forget replaces the record of an authorizer with a tombstone, whether there
// is a record or not, and deletes its name and its pending code. The tombstone
// remembers the newest code and authorization that were known, so that pushes
// of them that arrive late or again do not count as new.
func (a *accounts) forget(ctx context.Context, appid string) error {
	var waiting *pendingCode
	// The code first: exchanging it would bring the account back.
	err := changeOrDelete(ctx, a.store, pendingCodeKey(appid), func(p *pendingCode) *pendingCode {
		waiting = p
		return nil
	})
	if err != nil {
		return err
	}
	userName := ""
	err = changeOrDelete(ctx, a.store, accountKey(appid), func(acc *account) *account {
		if acc == nil {
			acc = newAccount(Authorizer)
		}
		userName = acc.UserName
		acc.Kind = Authorizer.String() // it may be of an earlier configuration
		acc.markForgotten(a.now())
		if waiting != nil {
			acc.AuthorizedAt = max(acc.AuthorizedAt, waiting.Created)
			acc.CodeFingerprint = wechat.NewSecret(waiting.Code).Fingerprint()
		}
		return acc
	})
	if err != nil {
		return err
	}
	a.cache.remove(appid)
	return a.forgetName(ctx, appid, userName)
}

// delete deletes the record of the component or of an own account, which makes
// wxproxy fetch a new token. It reports whether there was one.
func (a *accounts) delete(ctx context.Context, appid string) (found bool, err error) {
	err = changeOrDelete(ctx, a.store, accountKey(appid), func(acc *account) *account {
		found = acc != nil
		return nil
	})
	a.cache.remove(appid)
	return found, err
}

// allowRestore lets the next comparison with WeChat's list bring forgotten
// accounts back, and returns how many there are.
func (a *accounts) allowRestore(ctx context.Context) (int, error) {
	var forgotten []string
	err := listRecords(ctx, a.store, accountPrefix, func(key string, acc *account) bool {
		if acc.isForgotten() {
			forgotten = append(forgotten, strings.Clone(strings.TrimPrefix(key, accountPrefix)))
		}
		return true
	})
	if err != nil {
		return 0, storeError(err)
	}
	for _, appid := range forgotten {
		err := a.change(ctx, appid, func(acc *account) (*account, error) {
			if !acc.isForgotten() || acc.IsRestorable {
				return nil, nil
			}
			acc.IsRestorable = true
			return acc, nil
		})
		if err != nil {
			return 0, err
		}
	}
	return len(forgotten), nil
}
