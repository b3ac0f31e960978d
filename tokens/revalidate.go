package tokens

import (
	"context"
	"errors"
	"sync"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// queryAuthorizer asks what WeChat holds for appid: whether it has authorized the component, and its refresh token.
func (b *Broker) queryAuthorizer(ctx context.Context, appid string) (held wechat.Authorizer, authorized bool, err error) {
	err = b.withComponentToken(ctx, func(component string, token wechat.Secret) error {
		var err error
		held, authorized, err = findAuthorizer(ctx, b.client.Load(), component, token, appid)
		return err
	})
	return held, authorized, err
}

// findAuthorizer is held with a token at hand. One account is asked for by itself; where WeChat will not answer that, the
// list of all accounts says it as well.
func findAuthorizer(ctx context.Context, client *wechat.Client, component string, token wechat.Secret, appid string) (wechat.Authorizer, bool, error) {
	a, err := client.Authorizer(ctx, component, token, appid)
	switch code := wechat.Code(err); {
	case err == nil:
		return a, true, nil
	case code == wechat.CodeNotAuthorized:
		return a, false, nil
	case wechat.TokenRefused(code, true):
		return a, false, err
	}
	for offset := 0; ; offset += wechat.ListPage {
		list, total, err := client.Authorizers(ctx, component, token, offset, wechat.ListPage)
		if err != nil {
			return a, false, err
		}
		for _, l := range list {
			if l.AppID == appid {
				return l, true, nil
			}
		}
		if len(list) == 0 || offset+len(list) >= total {
			return a, false, nil
		}
	}
}

// Revalidate is told that WeChat refused a call for appid with code, which may mean that its authorization has
// ended: 61003, 42007. It asks WeChat, in the background and once in ten minutes at most, and has the account
// revoked or its token renewed if that is so. It is free for all other codes.
func (b *Broker) Revalidate(appid string, code int) {
	if code != wechat.CodeNotAuthorized && code != wechat.CodePasswordChanged || b.Kind(appid) != Authorizer {
		return
	}
	if !b.revalidator.mayAsk(appid, b.now()) || !b.begin() {
		return
	}
	go func() {
		defer b.work.Done()
		ctx, cancel := context.WithTimeout(b.life, renewTimeout)
		defer cancel()
		select {
		case b.revalidator.slots <- struct{}{}:
			defer func() { <-b.revalidator.slots }()
		case <-ctx.Done(): // very many at once: the next refusal asks again, later
			return
		}
		if err := b.resolve(ctx, appid, code); err != nil {
			b.log.Warn("it could not be found out whether an account still authorizes", "account", appid, "errcode", code, "error", err)
		}
	}()
}

// resolve finds out what a refusal means.
func (b *Broker) resolve(ctx context.Context, appid string, code int) error {
	acc, err := b.loadAccount(ctx, appid)
	if err != nil || acc == nil || acc.IsRevoked {
		return err
	}
	if code == wechat.CodePasswordChanged {
		// Both tokens are dead, says WeChat; a renewal shows it.
		_, err := b.joinFlight(ctx, appid, wechat.NewSecret(acc.Access), reasonRejected)
		if errors.Is(err, ErrRevoked) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrThrottled) {
			err = nil // noted with the account, and logged
		}
		return err
	}
	_, authorized, err := b.queryAuthorizer(ctx, appid)
	if err != nil || authorized {
		return err
	}
	return b.revoke(ctx, appid, acc)
}

// revoke notes that WeChat does not know of appid's authorization any more, unless it changed since seen was read.
func (b *Broker) revoke(ctx context.Context, appid string, seen *account) error {
	err := b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc == nil || acc.IsRevoked || acc.AuthorizedAt != seen.AuthorizedAt || acc.IssuedAt != seen.IssuedAt {
			return store.Keep, err
		}
		acc.markRevoked(0)
		b.log.Warn("WeChat says that the account has withdrawn its authorization", "account", appid)
		return encode(acc), nil
	})
	b.cache.remove(appid)
	return err
}

// discover asks WeChat for an account that nobody here has heard of: its push may have been lost. found: it is known now.
// There are not many such questions: strange appids would use up the quota.
func (b *Broker) discover(ctx context.Context, appid string) (found bool) {
	if b.Component() == "" || !b.revalidator.mayDiscover(appid, b.now()) {
		return false
	}
	held, authorized, err := b.queryAuthorizer(ctx, appid)
	if err != nil || !authorized {
		return false
	}
	b.log.Info("WeChat knows an account that was not known here", "account", appid)
	_, err = b.adopt(ctx, held, time.Time{})
	return err == nil
}

// revalidator remembers what WeChat was asked a short while ago.
type revalidator struct {
	slots chan struct{} // questions at the same time

	mu       sync.Mutex
	asked    map[string]time.Time
	unknown  map[string]time.Time
	tokens   float64 // of questions for unknown accounts, see mayDiscover
	refilled time.Time
}

const (
	// revalidatePause is the least time between two questions about one account.
	revalidatePause = 10 * time.Minute
	// maxRemembered bounds what is remembered; beyond it nothing is asked until some of it is old.
	maxRemembered = 10_000
	// discoverBurst questions for unknown accounts are free; then one is every discoverEvery, which is
	// some 3,000 a day.
	discoverBurst = 30
	discoverEvery = 30 * time.Second
)

func newRevalidator() *revalidator {
	return &revalidator{slots: make(chan struct{}, 4), asked: map[string]time.Time{}, unknown: map[string]time.Time{}, tokens: discoverBurst}
}

func (d *revalidator) mayAsk(appid string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return remember(d.asked, appid, now)
}

func (d *revalidator) mayDiscover(appid string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.tokens = min(discoverBurst, d.tokens+max(0, now.Sub(d.refilled).Seconds())/discoverEvery.Seconds())
	d.refilled = now
	if d.tokens < 1 || !remember(d.unknown, appid, now) {
		return false
	}
	d.tokens--
	return true
}

// remember says whether appid was not asked about for doubtPause, and that it is now.
func remember(asked map[string]time.Time, appid string, now time.Time) bool {
	if last, ok := asked[appid]; ok && now.Sub(last) < revalidatePause {
		return false
	}
	if len(asked) >= maxRemembered {
		for a, at := range asked {
			if now.Sub(at) >= revalidatePause {
				delete(asked, a)
			}
		}
		if len(asked) >= maxRemembered {
			return false
		}
	}
	asked[appid] = now
	return true
}
