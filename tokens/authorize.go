package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

// Authorization is what became of an authorization code.
type Authorization struct {
	AppID string // of the account
	Name  string // its nickname; "" where it is not known
	// FuncInfo is WeChat's JSON list of the permissions that the account gave; nil where it is not known.
	FuncInfo json.RawMessage
}

// Authorize takes an authorization code that WeChat pushed for appid. When it returns nil the code is
// stored durably; it is exchanged for tokens soon afterwards, by itself, also after a restart. created is
// the push's CreateTime, expires the code's end (zero: unknown). ErrStale: a newer authorization
// or withdrawal is known.
func (b *Broker) Authorize(ctx context.Context, appid string, c wechat.Secret, expires, created time.Time) error {
	acc, err := b.loadAccount(ctx, appid)
	if err != nil {
		return err
	}
	if acc != nil {
		if acc.Code == c.Fingerprint() && !acc.Gone {
			return b.exchangedAlready(ctx, appid, c, seconds(created))
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

// exchangedAlready: a push brought the code that the merchant's browser had brought before. It tells when the
// authorization was by WeChat's clock, which the browser did not. created is in Unix seconds.
func (b *Broker) exchangedAlready(ctx context.Context, appid string, c wechat.Secret, created int64) error {
	if acc, err := b.loadAccount(ctx, appid); err != nil || acc == nil || acc.Authorized >= created {
		return err
	}
	return b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc == nil || acc.Code != c.Fingerprint() || acc.Authorized >= created {
			return store.Keep, err
		}
		acc.Authorized = created
		return encode(acc), nil
	})
}

// PreAuthCode makes a code that the authorization pages are opened with, and says how long it lives. Errors
// wrap ErrUnavailable, or are WeChat's ([wechat.Code]).
func (b *Broker) PreAuthCode(ctx context.Context) (c wechat.Secret, life time.Duration, err error) {
	err = b.asComponent(ctx, func(component string, token wechat.Secret) error {
		var err error
		c, life, err = b.client.Load().PreAuthCode(ctx, component, token)
		return err
	})
	return c, life, err
}

// Exchange turns the code that a merchant's browser brought into tokens, and keeps them. The same code again
// gives the same account without asking WeChat. It goes on where ctx ends: a code serves once.
//
// The errors are WeChat's ([wechat.Code]: 61009 used up, 61010 expired), ErrUnavailable with its reasons,
// [wechat.ErrUnreachable], a fault of the store, and ErrClosed.
func (b *Broker) Exchange(_ context.Context, c wechat.Secret) (Authorization, error) {
	if !b.begin() {
		return Authorization{}, ErrClosed
	}
	defer b.work.Done()
	ctx, cancel := context.WithTimeout(b.life, renewTimeout)
	defer cancel()
	done, err := b.once(ctx, c, func(ctx context.Context) (Authorization, error) {
		began := b.now()
		grant, err := b.queryAuth(ctx, c)
		if err != nil {
			return Authorization{}, err
		}
		var out *account
		err = b.store.Update(ctx, accountKey(grant.AppID), func(_ context.Context, raw []byte) ([]byte, error) {
			acc, err := decodeAccount(raw)
			if err != nil {
				return nil, err
			}
			if acc == nil {
				acc = newAccount(Authorizer)
			}
			if !acc.Gone && acc.Issued > millis(began) {
				return store.Keep, nil // a push brought another code meanwhile, and what it gave is newer
			}
			// A browser says no time. Ours may be off, so the newest that WeChat has told has to do.
			acc.admit(grant, acc.Revoked, b.now())
			acc.Code = c.Fingerprint()
			out = acc
			return encode(acc), nil
		})
		if err == nil && out != nil {
			b.admitted(grant.AppID, out)
		}
		return Authorization{AppID: grant.AppID, FuncInfo: grant.FuncInfo}, err
	})
	if err != nil {
		return Authorization{}, err
	}
	if acc, err := b.profile(ctx, done.AppID); err == nil && acc != nil {
		done.Name = acc.Name
	}
	return done, nil
}

// once has a code exchanged, unless it was before, and gives the account. Whoever comes with the
// same code at the same time waits. The lock of a code is taken before that of an account.
func (b *Broker) once(ctx context.Context, c wechat.Secret, exchange func(ctx context.Context) (Authorization, error)) (done Authorization, err error) {
	err = b.store.Update(ctx, spentKey(c), func(ctx context.Context, raw []byte) ([]byte, error) {
		before, err := decodeSpent(raw)
		if err != nil {
			return nil, err
		}
		if before != nil {
			done = Authorization{AppID: before.AppID, FuncInfo: before.FuncInfo}
			return store.Keep, nil
		}
		if done, err = exchange(ctx); err != nil {
			return nil, err
		}
		if done.AppID == "" {
			return store.Keep, nil
		}
		return encode(&spent{Version: recordVersion, AppID: done.AppID, FuncInfo: done.FuncInfo, At: millis(b.now())}), nil
	})
	return done, err
}

// admitted puts the tokens of a new authorization into memory.
func (b *Broker) admitted(appid string, acc *account) {
	b.log.Info("account authorized", "account", appid, "token", wechat.NewSecret(acc.Access).Fingerprint())
	epoch := b.cache.touch(appid)
	if acc.usable(b.now()) {
		b.keep(appid, Authorizer, acc, epoch, false)
	} else {
		b.cache.remove(appid)
	}
	b.profiles.want(appid)
}

// Withdraw notes that appid took its authorization back. Its tokens are dead: they are forgotten, the
// account stays known as revoked. ErrStale: a newer authorization is known.
func (b *Broker) Withdraw(ctx context.Context, appid string, created time.Time) error {
	err := b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil {
			return nil, err
		}
		if acc == nil {
			acc = newAccount(Authorizer)
		}
		if seconds(created) < acc.Authorized {
			return nil, ErrStale
		}
		acc.leave(seconds(created))
		return encode(acc), nil
	})
	if err == nil {
		b.cache.remove(appid)
		b.log.Info("authorization withdrawn", "account", appid)
	}
	return err
}

func (b *Broker) loadAccount(ctx context.Context, appid string) (*account, error) {
	raw, err := b.store.Load(ctx, accountKey(appid))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, storeFault(err)
	}
	return decodeAccount(raw)
}
