package tokens

import (
	"context"
	"encoding/json"
	"time"

	"wxproxy/wechat"
)

// Authorization is the result of exchanging an authorization code.
type Authorization struct {
	AppID string // of the account
	Name  string // its nickname; "" if unknown
	// FuncInfo is WeChat's JSON list of the permissions that the account
	// granted; nil if unknown.
	FuncInfo json.RawMessage
	// At is when the code was exchanged, by wxproxy's clock.
	At time.Time
}

// Authorize takes an authorization code that WeChat pushed for appid. When it
// returns nil the code is stored durably. It is exchanged for tokens soon
// afterwards, even after a restart. created is the push's CreateTime. expires
// is when the code expires; the zero time means that WeChat did not say.
//
// It returns ErrStale if a newer authorization or revocation is known. Other
// errors are those of the store. An account that an operator forgot comes back,
// unless the code is the last one that was known of it.
func (b *Broker) Authorize(
	ctx context.Context, appid string, code wechat.Secret, expires, created time.Time,
) error {
	return b.exchanger.accept(ctx, appid, newPendingCode(code, expires, created, false))
}

// UpdateAuthorization is Authorize for a code that WeChat pushed because the
// account changed its permissions (updateauthorized). It does not bring back an
// account that an operator forgot, and returns ErrStale for it.
func (b *Broker) UpdateAuthorization(
	ctx context.Context, appid string, code wechat.Secret, expires, created time.Time,
) error {
	return b.exchanger.accept(ctx, appid, newPendingCode(code, expires, created, true))
}

// PreAuthCode creates a code for WeChat's authorization pages, and returns how
// long it is valid. Errors wrap ErrUnavailable, or are those of the
// [wechat.Client].
func (b *Broker) PreAuthCode(
	ctx context.Context,
) (code wechat.Secret, lifetime time.Duration, err error) {
	return b.component.preAuthCode(ctx)
}

// Exchange exchanges a code that a service or WeChat's release checker
// presented, and stores the tokens. If the same code was exchanged before, it
// returns the same account without asking WeChat.
//
// ctx is ignored: a code can be exchanged once, so the exchange goes on even if
// the client disconnects.
//
// Errors are WeChat's ([wechat.Code]: 61009 used, 61010 expired),
// ErrUnavailable, [wechat.ErrUnreachable], those of the store, and ErrClosed.
func (b *Broker) Exchange(_ context.Context, code wechat.Secret) (Authorization, error) {
	return b.exchange(func(ctx context.Context) (Authorization, error) {
		return b.exchanger.fromClient(ctx, code, "")
	})
}

// ExchangeReturned is Exchange for a code that a merchant's browser presented
// on its return. state is the verified state that came with it, or "". The
// first state binds the code: with every other one the error is
// ErrForeignState, in all replicas and after a restart.
//
// Before WeChat is asked, admit is called, and its error is returned. It is not
// called for a code that a push brought or that was exchanged before.
func (b *Broker) ExchangeReturned(
	_ context.Context, code wechat.Secret, state string, admit func() error,
) (Authorization, error) {
	return b.exchange(func(ctx context.Context) (Authorization, error) {
		known, err := b.exchanger.isKnown(ctx, code)
		if err == nil && !known {
			err = admit()
		}
		if err != nil {
			return Authorization{}, err
		}
		return b.exchanger.fromClient(ctx, code, stateFingerprint(state))
	})
}

// exchange calls fn and adds the account's name to its result.
func (b *Broker) exchange(fn func(ctx context.Context) (Authorization, error)) (Authorization, error) {
	var done Authorization
	err := b.tasks.run(b.tasks.ctx, taskTimeout, func(ctx context.Context) (err error) {
		if done, err = fn(ctx); err != nil {
			return err
		}
		if acc, err := b.profiler.profile(ctx, done.AppID); err == nil && acc != nil {
			done.Name = acc.Name
		}
		return nil
	})
	if err != nil {
		return Authorization{}, err
	}
	return done, nil
}

// MarkRevoked records that appid revoked its authorization, as WeChat pushed
// it. created is the push's CreateTime. The tokens, which are no longer valid,
// are deleted; the account stays known as revoked. It returns ErrStale if a
// newer authorization is known.
func (b *Broker) MarkRevoked(ctx context.Context, appid string, created time.Time) error {
	return b.accounts.markRevoked(ctx, appid, created)
}

// cacheAuthorization caches the tokens of a new authorization. epoch was read
// under the account's lock.
func (b *Broker) cacheAuthorization(appid string, acc *account, epoch uint64) {
	token := wechat.NewSecret(acc.Access)
	b.log.Info("account authorized", "account", appid, "token", token.Fingerprint())
	epoch = b.cache.supersede(appid, epoch)
	if acc.usable(b.now()) {
		// reasonDue: as after an early renewal, no caller has asked for the
		// token.
		b.renewer.cacheAccount(tokenRequest{appid: appid, kind: Authorizer, why: reasonDue}, acc, epoch)
	} else {
		b.cache.remove(appid)
	}
	b.profiler.enqueue(appid)
}
