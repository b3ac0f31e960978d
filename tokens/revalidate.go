package tokens

import (
	"context"
	"errors"
	"sync"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// held asks what WeChat holds for appid: whether it has authorized the component, and its refresh token.
func (b *Broker) held(ctx context.Context, appid string) (held wechat.Authorizer, authorized bool, err error) {
	err = b.asComponent(ctx, func(component string, token wechat.Secret) error {
		var err error
		held, authorized, err = look(ctx, b.client.Load(), component, token, appid)
		return err
	})
	return held, authorized, err
}

// look is held with a token at hand. One account is asked for by itself; where WeChat will not answer that, the
// list of all accounts says it as well.
func look(ctx context.Context, client *wechat.Client, component string, token wechat.Secret, appid string) (wechat.Authorizer, bool, error) {
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

// Doubt is told that WeChat refused a call for appid with code, which may mean that its authorization has
// ended: 61003, 42007. It asks WeChat, in the background and once in ten minutes at most, and has the account
// revoked or its token renewed if that is so. It is free for all other codes.
func (b *Broker) Doubt(appid string, code int) {
	if code != wechat.CodeNotAuthorized && code != wechat.CodePasswordChanged || b.Kind(appid) != Authorizer {
		return
	}
	if !b.doubts.may(appid, b.now()) || !b.begin() {
		return
	}
	go func() {
		defer b.work.Done()
		ctx, cancel := context.WithTimeout(b.life, renewTimeout)
		defer cancel()
		select {
		case b.doubts.slots <- struct{}{}:
			defer func() { <-b.doubts.slots }()
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
	if err != nil || acc == nil || acc.Gone {
		return err
	}
	if code == wechat.CodePasswordChanged {
		// Both tokens are dead, says WeChat; a renewal shows it.
		_, err := b.fly(ctx, appid, wechat.NewSecret(acc.Access), refused)
		if errors.Is(err, ErrRevoked) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrThrottled) {
			err = nil // noted with the account, and logged
		}
		return err
	}
	_, authorized, err := b.held(ctx, appid)
	if err != nil || authorized {
		return err
	}
	return b.revoke(ctx, appid, acc)
}

// revoke notes that WeChat does not know of appid's authorization any more, unless it changed since seen was read.
func (b *Broker) revoke(ctx context.Context, appid string, seen *account) error {
	err := b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc == nil || acc.Gone || acc.Authorized != seen.Authorized || acc.Issued != seen.Issued {
			return store.Keep, err
		}
		acc.leave(0)
		b.log.Warn("WeChat says that the account has withdrawn its authorization", "account", appid)
		return encode(acc), nil
	})
	b.cache.remove(appid)
	return err
}

// discover asks WeChat for an account that nobody here has heard of: its push may have been lost. found: it is known now.
// There are not many such questions: strange appids would use up the quota.
func (b *Broker) discover(ctx context.Context, appid string) (found bool) {
	if b.Component() == "" || !b.doubts.mayDiscover(appid, b.now()) {
		return false
	}
	held, authorized, err := b.held(ctx, appid)
	if err != nil || !authorized {
		return false
	}
	b.log.Info("WeChat knows an account that was not known here", "account", appid)
	_, err = b.adopt(ctx, held, time.Time{})
	return err == nil
}

// doubts remembers what WeChat was asked a short while ago.
type doubts struct {
	slots chan struct{} // questions at the same time

	mu       sync.Mutex
	asked    map[string]time.Time
	unknown  map[string]time.Time
	tokens   float64 // of questions for unknown accounts, see mayDiscover
	refilled time.Time
}

const (
	// doubtPause is the least time between two questions about one account.
	doubtPause = 10 * time.Minute
	// doubtLimit bounds what is remembered; beyond it nothing is asked until some of it is old.
	doubtLimit = 10_000
	// discoverBurst questions for unknown accounts are free; then one is every discoverEvery, which is
	// some 3,000 a day.
	discoverBurst = 30
	discoverEvery = 30 * time.Second
)

func newDoubts() *doubts {
	return &doubts{slots: make(chan struct{}, 4), asked: map[string]time.Time{}, unknown: map[string]time.Time{}, tokens: discoverBurst}
}

func (d *doubts) may(appid string, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return remember(d.asked, appid, now)
}

func (d *doubts) mayDiscover(appid string, now time.Time) bool {
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
	if last, ok := asked[appid]; ok && now.Sub(last) < doubtPause {
		return false
	}
	if len(asked) >= doubtLimit {
		for a, at := range asked {
			if now.Sub(at) >= doubtPause {
				delete(asked, a)
			}
		}
		if len(asked) >= doubtLimit {
			return false
		}
	}
	asked[appid] = now
	return true
}
