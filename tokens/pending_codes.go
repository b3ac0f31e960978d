package tokens

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"wxproxy/wechat"
)

// defaultCodeLifetime is how long a code is valid if the push does not say when
// it expires. A real push said an hour.
const defaultCodeLifetime = time.Hour

// expiredCodePause is the pause between attempts to exchange a code that has
// expired by wxproxy's clock. WeChat has the last word on that, and may hold a
// refresh token in its place. A call for the account does not wait for it.
const expiredCodePause = 5 * time.Minute

// exchangedCodeLifetime is how long wxproxy remembers that it exchanged a code.
// It is longer than any code is valid.
const exchangedCodeLifetime = 48 * time.Hour

// exchangeAttempt is the next attempt to exchange an account's pending code, or
// the one that is running.
type exchangeAttempt struct{ timer *time.Timer }

// newPendingCode returns the record of a code that a push brought. expires is
// the zero time if the push does not say it.
func newPendingCode(code wechat.Secret, expires, created time.Time, update bool) pendingCode {
	p := pendingCode{
		recordFormat: currentFormat,
		Code:         code.Reveal(), Created: unixSeconds(created), Update: update,
	}
	if !expires.IsZero() {
		p.Expires = millis(expires)
	}
	return p
}

// lifetime returns how long a pushed code is valid: the difference of two times
// of WeChat's clock, a day at most.
func (p *pendingCode) lifetime() time.Duration {
	life := fromMillis(p.Expires).Sub(fromSeconds(p.Created))
	if p.Expires == 0 || p.Created == 0 || life <= 0 || life > maxTokenLife {
		return defaultCodeLifetime
	}
	return life
}

// secret returns the code.
func (p *pendingCode) secret() wechat.Secret { return wechat.NewSecret(p.Code) }

// accept stores a code that WeChat pushed, durably when it returns nil, and
// schedules its exchange. See [Broker.Authorize].
func (x *exchanger) accept(ctx context.Context, appid string, p pendingCode) error {
	acc, err := x.accounts.load(ctx, appid)
	if err != nil {
		return err
	}
	if acc != nil {
		if acc.CodeFingerprint == p.secret().Fingerprint() && !acc.IsRevoked {
			return x.accounts.setAuthorizedAt(ctx, appid, p.secret(), p.Created)
		}
		if !p.mayChange(acc) {
			return ErrStale
		}
	}
	now := x.now()
	p.Expires = millis(now.Add(p.lifetime()))
	key := pendingCodeKey(appid)
	err = changeRecord(ctx, x.store, key, func(stored *pendingCode) (*pendingCode, error) {
		if stored != nil && p.Created < stored.Created {
			return nil, ErrStale
		}
		return &p, nil
	})
	if err == nil {
		x.rememberPushed(p.secret(), now)
		x.schedule(appid, 0, 0)
	}
	return err
}

// mayChange reports whether the authorization of p is newer than what acc
// holds, by WeChat's times. Of a forgotten account it must be another one than
// the last, and not only its update.
func (p *pendingCode) mayChange(acc *account) bool {
	if acc.isForgotten() && (p.Update || acc.CodeFingerprint == p.secret().Fingerprint()) {
		return false
	}
	return p.Created >= max(acc.AuthorizedAt, acc.RevokedAt)
}

// rememberPushed makes the code known to isKnown. A push that another process
// received is known once that process has exchanged the code, about a second
// later.
func (x *exchanger) rememberPushed(code wechat.Secret, now time.Time) {
	const many = 1000 // worth looking for old ones
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.pushed == nil {
		x.pushed = make(map[string]time.Time)
	}
	if len(x.pushed) >= many {
		maps.DeleteFunc(x.pushed, func(_ string, at time.Time) bool {
			return now.Sub(at) >= defaultCodeLifetime
		})
	}
	x.pushed[exchangedCodeKey(code)] = now
}

// schedulePending schedules the codes that another process left behind, unless
// they are scheduled here. Several processes may do so: the code's lock lets
// one of them exchange it.
func (x *exchanger) schedulePending(ctx context.Context) error {
	var appids []string
	err := x.store.List(ctx, pendingCodePrefix, "", func(key string, _ []byte) bool {
		appids = append(appids, strings.TrimPrefix(key, pendingCodePrefix))
		return true
	})
	for _, appid := range appids {
		x.mu.Lock()
		_, scheduled := x.attempts[appid]
		x.mu.Unlock()
		if !scheduled {
			x.schedule(appid, 0, 0)
		}
	}
	return err
}

// schedule runs an attempt after wait, instead of the one that is scheduled.
// failures is how many attempts have failed in a row.
func (x *exchanger) schedule(appid string, failures int, wait time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.attempts == nil {
		return
	}
	if a := x.attempts[appid]; a != nil {
		a.timer.Stop()
	}
	a := new(exchangeAttempt)
	a.timer = time.AfterFunc(wait, func() { x.attempt(appid, failures, a) })
	x.attempts[appid] = a
}

// attempt exchanges the pending code of appid, and schedules the next attempt
// if it failed.
func (x *exchanger) attempt(appid string, failures int, a *exchangeAttempt) {
	if x.component.appid() == "" {
		// The code waits in the store until a component is configured, and the
		// maintenance finds it.
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.attempts[appid] == a {
			delete(x.attempts, appid)
		}
		return
	}
	started, done, expired := false, false, false
	err := x.tasks.run(x.tasks.ctx, taskTimeout, func(ctx context.Context) (err error) {
		started = true
		if done, err = x.exchangePending(ctx, appid); err != nil {
			p, loadErr := loadRecord[pendingCode](ctx, x.store, pendingCodeKey(appid))
			expired = loadErr == nil && p != nil && !x.now().Before(fromMillis(p.Expires))
		}
		return err
	})
	if !started {
		return // the Broker is closing; the code stays in the store
	}
	if err != nil {
		x.log.Warn("authorization code not exchanged yet", "account", appid, "error", err)
	}
	x.mu.Lock()
	current := x.attempts[appid] == a // no newer code was accepted meanwhile
	if current && done {
		delete(x.attempts, appid)
	}
	x.mu.Unlock()
	if current && !done {
		pause := backoff(failures + 1)
		if expired {
			pause = expiredCodePause
		}
		x.schedule(appid, failures+1, pause)
	}
}

// exchangeNow exchanges the pending code of appid for a caller that needs the
// account's token before the scheduled attempt. found is set if the account is
// known now, whichever process exchanged the code.
func (x *exchanger) exchangeNow(ctx context.Context, appid string) (found bool, err error) {
	if _, err := x.exchangePending(ctx, appid); err != nil {
		if !errors.Is(err, ErrUnavailable) {
			reason := "authorization code not exchanged yet: " + err.Error()
			err = &unavailableError{reason: reason, cause: err}
		}
		return false, err
	}
	acc, err := x.accounts.load(ctx, appid)
	return acc != nil, err
}

// stop starts no more attempts. Those that run go on.
func (x *exchanger) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, a := range x.attempts {
		a.timer.Stop()
	}
	x.attempts = nil
}

// deleteOldExchanged deletes the records of exchanged codes that have expired.
func (x *exchanger) deleteOldExchanged(ctx context.Context) error {
	const batch = 100_000 // the next run deletes the rest
	var old []string
	err := listRecords(ctx, x.store, exchangedCodePrefix, func(key string, c *exchangedCode) bool {
		if x.now().Sub(fromMillis(c.At)).Abs() >= exchangedCodeLifetime {
			old = append(old, strings.Clone(key))
		}
		return len(old) < batch
	})
	for _, key := range old {
		if err := deleteRecord[exchangedCode](ctx, x.store, key, nil); err != nil {
			return err
		}
	}
	return err
}
