package tokens

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"wxproxy/wechat"
)

// codeLife is how long a code is tried where WeChat does not say when it ends. A real push said an hour.
const codeLife = time.Hour

// Authorize takes an authorisation code that WeChat pushed for appid. When it returns nil the code is
// stored durably; it is exchanged for tokens soon afterwards, by itself, also after a restart. created is
// the push's CreateTime, expires the code's end (zero: unknown). ErrStale: a newer authorisation
// or withdrawal is known.
func (b *Broker) Authorize(ctx context.Context, appid string, c wechat.Secret, expires, created time.Time) error {
	acc, err := b.loadAccount(ctx, appid)
	if err != nil {
		return err
	}
	if acc != nil {
		if acc.Code == c.Fingerprint() {
			return nil // pushed again, and exchanged already
		}
		if seconds(created) < max(acc.Authorized, acc.Revoked) {
			return ErrStale
		}
	}
	now := b.now()
	if !expires.After(now) {
		expires = now.Add(codeLife)
	}
	err = b.store.Update(ctx, codeKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		old, err := decodeCode(raw)
		if err != nil {
			return nil, err
		}
		if old != nil && seconds(created) < old.Created {
			return nil, ErrStale
		}
		return encode(&code{Version: recordVersion, Code: c.Reveal(), Created: seconds(created), Expires: millis(expires)}), nil
	})
	if err == nil {
		b.codes.schedule(appid, 0, 0)
	}
	return err
}

// Withdraw notes that appid took its authorisation back. Its tokens are dead: they are forgotten, the
// account stays known as revoked. ErrStale: a newer authorisation is known.
func (b *Broker) Withdraw(ctx context.Context, appid string, created time.Time) error {
	err := b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil {
			return nil, err
		}
		if acc == nil {
			acc = &account{Version: recordVersion, Kind: Authorizer.String()}
		}
		if seconds(created) < acc.Authorized {
			return nil, ErrStale
		}
		acc.Gone, acc.Revoked = true, max(acc.Revoked, seconds(created))
		acc.Access, acc.Refresh, acc.Issued, acc.Expires = "", "", 0, 0
		acc.forgive()
		acc.Storm = storm{}
		return encode(acc), nil
	})
	if err == nil {
		b.cache.remove(appid)
		b.log.Info("authorisation withdrawn", "account", appid)
	}
	return err
}

func (b *Broker) loadAccount(ctx context.Context, appid string) (*account, error) {
	raw, err := b.store.Load(ctx, accountKey(appid))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storeFault(err)
	}
	return decodeAccount(raw)
}

// exchange turns the stored code of appid into tokens. It holds the account's lock all the way, so
// that no renewal can save an older refresh token over the new one, and no code is spent twice. done: nothing is left
// to do, whatever became of the code.
func (b *Broker) exchange(ctx context.Context, appid string) (done bool, err error) {
	var (
		out   *account
		spent string
		dead  error // why the code is of no use
	)
	err = b.store.Update(ctx, accountKey(appid), func(ctx context.Context, raw []byte) ([]byte, error) {
		c, err := b.loadCode(ctx, appid)
		if err != nil || c == nil {
			return Keep, err
		}
		acc, err := decodeAccount(raw)
		if err != nil {
			return nil, err
		}
		if acc == nil {
			acc = &account{Version: recordVersion, Kind: Authorizer.String()}
		}
		secret := wechat.NewSecret(c.Code)
		spent = c.Code
		if acc.Code == secret.Fingerprint() || c.Created < max(acc.Authorized, acc.Revoked) {
			return Keep, nil // exchanged before a crash, or overtaken
		}
		grant, err := b.queryAuth(ctx, secret)
		if err == nil && grant.AppID != appid {
			err = errForeignCode
		}
		if err != nil {
			if !codeIsDead(err) && b.now().Before(fromMillis(c.Expires)) {
				return nil, err
			}
			dead = err
			return Keep, b.forgetCode(ctx, appid, spent)
		}
		acc.Refresh = "" // a new authorisation ends the old one's
		acc.take(grant, b.now())
		acc.Gone, acc.Authorized, acc.Code, acc.Storm = false, c.Created, secret.Fingerprint(), storm{}
		if grant.Access.IsEmpty() {
			acc.Failures, acc.Failure = 1, errNoRefreshToken.Error()+": it has no API permission (权限集) that needs one"
		}
		out = acc
		return encode(acc), nil
	})
	switch {
	case err != nil:
		return false, err
	case dead != nil:
		b.log.Error("an authorisation code could not be exchanged; the account has to authorise again, unless it works already", "account", appid, "error", dead)
		return true, nil
	case out != nil:
		b.log.Info("account authorised", "account", appid, "token", wechat.NewSecret(out.Access).Fingerprint())
		epoch := b.cache.touch(appid)
		if out.usable(b.now()) {
			b.keep(appid, Authorizer, out, epoch, false)
		} else {
			b.cache.remove(appid)
		}
	}
	if spent == "" {
		return true, nil
	}
	return true, b.forgetCode(ctx, appid, spent)
}

func (b *Broker) loadCode(ctx context.Context, appid string) (*code, error) {
	raw, err := b.store.Load(ctx, codeKey(appid))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storeFault(err)
	}
	return decodeCode(raw)
}

// forgetCode removes the code unless a newer one has taken its place.
func (b *Broker) forgetCode(ctx context.Context, appid, spent string) error {
	return b.store.Update(ctx, codeKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		c, err := decodeCode(raw)
		if err != nil || c == nil || c.Code != spent {
			return Keep, err
		}
		return nil, nil
	})
}

var errForeignCode = errors.New("the code is another account's")

func (b *Broker) queryAuth(ctx context.Context, c wechat.Secret) (wechat.Grant, error) {
	var grant wechat.Grant
	err := b.asComponent(ctx, func(component string, token wechat.Secret) error {
		var err error
		grant, err = b.client.Load().QueryAuth(ctx, component, token, c)
		return err
	})
	return grant, err
}

// codeIsDead: trying the code again cannot help.
func codeIsDead(err error) bool {
	switch wechat.Code(err) {
	case wechat.CodeCodeInvalid, wechat.CodeCodeExpired, 40029, 40163, wechat.CodeNotAuthorized:
		return true
	}
	return errors.Is(err, errForeignCode)
}

// exchanger works off the codes that lie in the store, each account on its own, with growing
// pauses where WeChat cannot be reached.
type exchanger struct {
	b      *Broker
	mu     sync.Mutex
	timers map[string]*time.Timer // by appid; nil after stop
}

func newExchanger(b *Broker) *exchanger {
	return &exchanger{b: b, timers: make(map[string]*time.Timer)}
}

// recover schedules what an earlier process left behind.
func (x *exchanger) recover(ctx context.Context) error {
	var appids []string
	err := x.b.store.List(ctx, codePrefix, "", func(key string, _ []byte) bool {
		appids = append(appids, strings.TrimPrefix(key, codePrefix))
		return true
	})
	for _, a := range appids {
		x.schedule(a, 0, 0)
	}
	return err
}

func (x *exchanger) schedule(appid string, attempt int, wait time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.timers == nil {
		return
	}
	if t := x.timers[appid]; t != nil {
		t.Stop()
	}
	x.timers[appid] = time.AfterFunc(wait, func() { x.run(appid, attempt) })
}

func (x *exchanger) run(appid string, attempt int) {
	if !x.b.begin() {
		return
	}
	defer x.b.work.Done()
	ctx, cancel := context.WithTimeout(x.b.life, renewTimeout)
	defer cancel()
	done, err := x.b.exchange(ctx, appid)
	if err != nil {
		x.b.log.Warn("authorisation code not exchanged yet", "account", appid, "error", err)
	}
	if !done {
		x.schedule(appid, attempt+1, backoff(attempt+1))
	}
}

// exchangeNow is for a call that comes before the exchange has been made. found: the account is known now.
func (x *exchanger) exchangeNow(ctx context.Context, appid string) (found bool, err error) {
	if _, err := x.b.exchange(ctx, appid); err != nil {
		if !errors.Is(err, ErrUnavailable) {
			err = &unavailable{reason: "the account's authorisation code could not be exchanged yet: " + err.Error(), cause: err}
		}
		return false, err
	}
	// Whoever made the exchange, the account says what came of it.
	acc, err := x.b.loadAccount(ctx, appid)
	return acc != nil, err
}

func (x *exchanger) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range x.timers {
		t.Stop()
	}
	x.timers = nil
}
