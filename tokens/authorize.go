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
		if acc.CodeFingerprint == c.Fingerprint() && !acc.IsRevoked {
			return b.exchangedAlready(ctx, appid, c, seconds(created))
		}
		if seconds(created) < max(acc.AuthorizedAt, acc.RevokedAt) {
			return ErrStale
		}
	}
	now := b.now()
	if !expires.After(now) {
		expires = now.Add(codeLife)
	}
	err = b.store.Update(ctx, codeKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		old, err := decodePendingCode(raw)
		if err != nil {
			return nil, err
		}
		if old != nil && seconds(created) < old.Created {
			return nil, ErrStale
		}
		return encode(&pendingCode{Version: recordVersion, Code: c.Reveal(), Created: seconds(created), Expires: millis(expires)}), nil
	})
	if err == nil {
		b.exchanger.schedule(appid, 0, 0)
	}
	return err
}

// exchangedAlready: a push brought the code that the merchant's browser had brought before. It tells when the
// authorization was by WeChat's clock, which the browser did not. created is in Unix seconds.
func (b *Broker) exchangedAlready(ctx context.Context, appid string, c wechat.Secret, created int64) error {
	if acc, err := b.loadAccount(ctx, appid); err != nil || acc == nil || acc.AuthorizedAt >= created {
		return err
	}
	return b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil || acc == nil || acc.CodeFingerprint != c.Fingerprint() || acc.AuthorizedAt >= created {
			return store.Keep, err
		}
		acc.AuthorizedAt = created
		return encode(acc), nil
	})
}

// PreAuthCode makes a code that the authorization pages are opened with, and says how long it lives. Errors
// wrap ErrUnavailable, or are WeChat's ([wechat.Code]).
func (b *Broker) PreAuthCode(ctx context.Context) (c wechat.Secret, life time.Duration, err error) {
	err = b.withComponentToken(ctx, func(component string, token wechat.Secret) error {
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
	done, err := b.exchangeOnce(ctx, c, func(ctx context.Context) (Authorization, error) {
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
			if !acc.IsRevoked && acc.IssuedAt > millis(began) {
				return store.Keep, nil // a push brought another code meanwhile, and what it gave is newer
			}
			// A browser says no time. Ours may be off, so the newest that WeChat has told has to do.
			acc.applyAuthorization(grant, acc.RevokedAt, b.now())
			acc.CodeFingerprint = c.Fingerprint()
			out = acc
			return encode(acc), nil
		})
		if err == nil && out != nil {
			b.cacheAuthorization(grant.AppID, out)
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

// exchangeOnce has a code exchanged, unless it was before, and gives the account. Whoever comes with the
// same code at the same time waits. The lock of a code is taken before that of an account.
func (b *Broker) exchangeOnce(ctx context.Context, c wechat.Secret, exchange func(ctx context.Context) (Authorization, error)) (done Authorization, err error) {
	err = b.store.Update(ctx, exchangedCodeKey(c), func(ctx context.Context, raw []byte) ([]byte, error) {
		before, err := decodeExchangedCode(raw)
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
		return encode(&exchangedCode{Version: recordVersion, AppID: done.AppID, FuncInfo: done.FuncInfo, At: millis(b.now())}), nil
	})
	return done, err
}

// cacheAuthorization puts the tokens of a new authorization into memory.
func (b *Broker) cacheAuthorization(appid string, acc *account) {
	b.log.Info("account authorized", "account", appid, "token", wechat.NewSecret(acc.Access).Fingerprint())
	epoch := b.cache.bumpEpoch(appid)
	if acc.usable(b.now()) {
		b.cacheAccount(appid, Authorizer, acc, epoch, false)
	} else {
		b.cache.remove(appid)
	}
	b.profiler.enqueue(appid)
}

// MarkRevoked notes that appid took its authorization back. Its tokens are dead: they are forgotten, the
// account stays known as revoked. ErrStale: a newer authorization is known.
func (b *Broker) MarkRevoked(ctx context.Context, appid string, created time.Time) error {
	err := b.store.Update(ctx, accountKey(appid), func(_ context.Context, raw []byte) ([]byte, error) {
		acc, err := decodeAccount(raw)
		if err != nil {
			return nil, err
		}
		if acc == nil {
			acc = newAccount(Authorizer)
		}
		if seconds(created) < acc.AuthorizedAt {
			return nil, ErrStale
		}
		acc.markRevoked(seconds(created))
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
