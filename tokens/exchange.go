package tokens

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// codeLife is how long a code is tried where WeChat does not say when it ends. A real push said an hour.
const codeLife = time.Hour

// exchange turns the stored code of appid into tokens. It holds the account's lock all the way, so
// that no renewal can save an older refresh token over the new one, and no code is spent twice. done: nothing is left
// to do, whatever became of the code.
func (b *Broker) exchange(ctx context.Context, appid string) (done bool, err error) {
	c, err := b.loadCode(ctx, appid)
	if err != nil || c == nil {
		return err == nil, err
	}
	secret := wechat.NewSecret(c.Code)
	// Where the merchant's browser has brought the same code, the account is there already.
	if _, err := b.exchangeOnce(ctx, secret, func(ctx context.Context) (Authorization, error) { return b.exchangeFor(ctx, appid, c) }); err != nil {
		return false, err
	}
	if err := b.exchangedAlready(ctx, appid, secret, c.Created); err != nil {
		return false, err
	}
	return true, b.forgetCode(ctx, appid, c.Code)
}

// exchangeFor makes the exchange. It gives no account where the code is of no use any more.
func (b *Broker) exchangeFor(ctx context.Context, appid string, c *pendingCode) (done Authorization, err error) {
	var (
		out    *account
		secret = wechat.NewSecret(c.Code)
	)
	err = b.store.Update(ctx, accountKey(appid), func(ctx context.Context, raw []byte) ([]byte, error) {
		// Whoever held the lock before us may have found the code to be of no use.
		if left, err := b.loadCode(ctx, appid); err != nil || left == nil || left.Code != c.Code {
			return store.Keep, err
		}
		acc, err := decodeAccount(raw)
		if err != nil {
			return nil, err
		}
		if acc == nil {
			acc = newAccount(Authorizer)
		}
		if acc.CodeFingerprint == secret.Fingerprint() && !acc.IsRevoked {
			done.AppID = appid // before a crash
			return store.Keep, nil
		}
		if c.Created < max(acc.AuthorizedAt, acc.RevokedAt) {
			return store.Keep, nil // overtaken
		}
		grant, err := b.queryAuth(ctx, secret)
		if err == nil && grant.AppID != appid {
			err = errForeignCode
		}
		if err != nil && (codeUnusable(err) || !b.now().Before(fromMillis(c.Expires))) {
			b.log.Warn("an authorization code is of no use", "account", appid, "error", err)
			// Somebody else has spent it, or it came too late. The refresh token is WeChat's to tell.
			if acc.Refresh != "" && !acc.IsRevoked {
				return store.Keep, b.forgetCode(ctx, appid, c.Code)
			}
			if grant, err = b.recover(ctx, appid); err != nil || grant.Refresh.IsEmpty() {
				b.log.Error("the account has to authorize again", "account", appid, "error", err)
				return store.Keep, b.forgetCode(ctx, appid, c.Code)
			}
		}
		if err != nil {
			return nil, err
		}
		acc.applyAuthorization(grant, c.Created, b.now())
		acc.CodeFingerprint = secret.Fingerprint()
		out, done = acc, Authorization{AppID: appid, FuncInfo: grant.FuncInfo}
		return encode(acc), nil
	})
	if err == nil && out != nil {
		b.cacheAuthorization(appid, out)
	}
	return done, err
}

// recover gives the refresh token that WeChat holds for an account whose code is lost; none where
// it has not authorized.
func (b *Broker) recover(ctx context.Context, appid string) (wechat.Grant, error) {
	held, _, err := b.queryAuthorizer(ctx, appid)
	return wechat.Grant{AppID: appid, Refresh: held.Refresh}, err
}

func (b *Broker) loadCode(ctx context.Context, appid string) (*pendingCode, error) {
	raw, err := b.store.Load(ctx, codeKey(appid))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storeFault(err)
	}
	return decodePendingCode(raw)
}

// forgetCode removes the code unless a newer one has taken its place.
func (b *Broker) forgetCode(ctx context.Context, appid, spent string) error {
	return b.store.Update(ctx, codeKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		c, err := decodePendingCode(raw)
		if err != nil || c == nil || c.Code != spent {
			return store.Keep, err
		}
		return nil, nil
	})
}

var errForeignCode = errors.New("the code is another account's")

func (b *Broker) queryAuth(ctx context.Context, c wechat.Secret) (wechat.Grant, error) {
	var grant wechat.Grant
	err := b.withComponentToken(ctx, func(component string, token wechat.Secret) error {
		var err error
		grant, err = b.client.Load().QueryAuth(ctx, component, token, c)
		return err
	})
	return grant, err
}

// codeUnusable: trying the code again cannot help.
func codeUnusable(err error) bool {
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
	timers map[string]*exchangeAttempt // by appid; nil after stop
}

// exchangeAttempt is the next try, or the one under way.
type exchangeAttempt struct{ timer *time.Timer }

func newExchanger(b *Broker) *exchanger {
	return &exchanger{b: b, timers: make(map[string]*exchangeAttempt)}
}

// recover schedules what another process left behind, and nobody here is at yet. More than one may be: under the lock of the
// code one of them exchanges it.
func (x *exchanger) recover(ctx context.Context) error {
	var appids []string
	err := x.b.store.List(ctx, codePrefix, "", func(key string, _ []byte) bool {
		appids = append(appids, strings.TrimPrefix(key, codePrefix))
		return true
	})
	for _, a := range appids {
		x.mu.Lock()
		_, scheduled := x.timers[a]
		x.mu.Unlock()
		if !scheduled {
			x.schedule(a, 0, 0)
		}
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
		t.timer.Stop()
	}
	t := new(exchangeAttempt)
	t.timer = time.AfterFunc(wait, func() { x.run(appid, attempt, t) })
	x.timers[appid] = t
}

func (x *exchanger) run(appid string, attempt int, t *exchangeAttempt) {
	if !x.b.begin() {
		return
	}
	defer x.b.work.Done()
	ctx, cancel := context.WithTimeout(x.b.life, renewTimeout)
	defer cancel()
	done, err := x.b.exchange(ctx, appid)
	if err != nil {
		x.b.log.Warn("authorization code not exchanged yet", "account", appid, "error", err)
	}
	x.mu.Lock()
	mine := x.timers[appid] == t // no newer code was brought meanwhile
	if mine && done {
		delete(x.timers, appid)
	}
	x.mu.Unlock()
	if mine && !done {
		x.schedule(appid, attempt+1, backoff(attempt+1))
	}
}

// exchangeNow is for a call that comes before the exchange has been made. found: the account is known now.
func (x *exchanger) exchangeNow(ctx context.Context, appid string) (found bool, err error) {
	if _, err := x.b.exchange(ctx, appid); err != nil {
		if !errors.Is(err, ErrUnavailable) {
			err = &unavailableError{reason: "the account's authorization code could not be exchanged yet: " + err.Error(), cause: err}
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
		t.timer.Stop()
	}
	x.timers = nil
}
