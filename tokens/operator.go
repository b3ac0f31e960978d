package tokens

import (
	"cmp"
	"context"
	"time"

	"wxproxy/tokens/governor"
	"wxproxy/wechat"
)

// Account is what an operator may see of an account. It holds no secret.
type Account struct {
	AppID string
	Kind  Kind
	State State
	Name  string // nickname; "" if unknown
	Type  string // "mini program", "service account", …; "" if unknown

	Token, RefreshToken string    // fingerprints; "" if there is none
	Issued, Expires     time.Time // of the token; zero if there is none

	Authorized, Revoked time.Time // newest of each, by WeChat's clock; zero if unknown
	Forgotten           time.Time // when an operator forgot it; zero if none did

	Failures int       // failed renewals since the last success
	Failure  string    // why the last one failed
	RetryAt  time.Time // no renewal before then; zero means at the next call
}

// newAccountView returns what an operator may see of acc.
func newAccountView(appid string, kind Kind, acc *account) Account {
	out := Account{
		AppID: appid, Kind: kind, State: acc.state(), Name: acc.Name, Type: acc.Type,
		Issued: fromMillis(acc.IssuedAt), Expires: fromMillis(acc.ExpiresAt),
		Authorized: fromSeconds(acc.newestAuthorization()), Revoked: fromSeconds(acc.RevokedAt),
		Forgotten: fromMillis(acc.ForgottenAt),
		Failures:  acc.FailureCount, Failure: acc.Failure, RetryAt: fromMillis(acc.RetryAt),
	}
	switch kind {
	case Component:
		out.Type = "component"
	case App:
		out.Type = "own account"
	}
	if acc.Access != "" {
		out.Token = wechat.NewSecret(acc.Access).Fingerprint()
	}
	if acc.Refresh != "" {
		out.RefreshToken = wechat.NewSecret(acc.Refresh).Fingerprint()
	}
	return out
}

// Account returns one account. It reads the account's name from WeChat if that
// is unknown or older than a day. It returns ErrUnknownAccount if there is
// none. The component and own accounts exist once they are configured.
func (b *Broker) Account(ctx context.Context, appid string) (Account, error) {
	acc, err := b.accounts.load(ctx, appid)
	if err != nil {
		return Account{}, err
	}
	kind := b.Kind(appid)
	if acc == nil {
		if kind == Authorizer {
			return Account{}, ErrUnknownAccount
		}
		acc = newAccount(kind)
	}
	if profiled, err := b.profiler.profile(ctx, appid); err == nil && profiled != nil {
		acc = profiled
	}
	view := newAccountView(appid, kind, acc)
	if f, failed := b.renewer.unanswered.last(appid); failed && view.State == Active {
		view.State, view.Failures, view.Failure, view.RetryAt = Failing, f.count, f.reason, f.retryAt
	}
	return view, nil
}

// CheckAccount returns nil if a call for appid would have an account, and
// otherwise the error that the call would get: ErrUnknownAccount, ErrRevoked,
// ErrForgotten, or ErrUnavailable if that is not certain now. As a call does,
// it asks WeChat about an account without a record, and causes a question about
// a revoked one. It says nothing about the account's token.
func (b *Broker) CheckAccount(ctx context.Context, appid string) error {
	if _, ok := b.cache.get(appid); ok || b.Kind(appid) != Authorizer {
		return nil
	}
	acc, err := b.accounts.load(ctx, appid)
	if err == nil && acc == nil {
		if err = b.discover(ctx, appid); err == nil {
			acc, err = b.accounts.load(ctx, appid)
		}
	}
	switch {
	case err != nil:
		return err
	case acc == nil:
		return ErrUnknownAccount // deleted since
	}
	b.revalidator.recheck(appid, acc)
	return acc.ended()
}

// AccountFilter selects accounts. The zero value selects all.
type AccountFilter struct {
	Query string // part of the appid or of the name, in any case
	State State  // "": any
}

// List returns up to limit accounts from offset on, ordered by appid, and how
// many there are in total, of those that filter selects.
//
// With more than 10,000 accounts the total may be some seconds old, and paging
// may miss or repeat accounts that are added or removed meanwhile.
func (b *Broker) List(
	ctx context.Context, offset, limit int, filter AccountFilter,
) (list []Account, total int, err error) {
	return b.lister.list(ctx, offset, limit, filter)
}

// Refresh gets a new token of appid now, whether it is due or not, and although
// renewals or all requests to WeChat may be paused after a failure. Before, it
// asks WeChat whether a revoked, forgotten or unknown account authorizes the
// component. A forgotten one is not forgotten any more when WeChat has
// answered. Errors are those of [Broker.Renew], and of the [wechat.Client] for
// that question.
func (b *Broker) Refresh(ctx context.Context, appid string) (Account, error) {
	ctx = governor.Insist(ctx)
	acc, err := b.accounts.load(ctx, appid)
	if err == nil && b.Kind(appid) == Authorizer && (acc == nil || acc.IsRevoked) {
		if acc == nil {
			_, err = b.exchanger.exchangeNow(ctx, appid)
		}
		if err == nil {
			err = b.revalidator.askForOperator(ctx, appid)
		}
		if err == nil {
			acc, err = b.accounts.load(ctx, appid)
		}
	}
	if err != nil {
		return Account{}, err
	}
	stale, why := wechat.Secret{}, reasonMissing
	if acc != nil {
		if acc.Access != "" {
			stale, why = wechat.NewSecret(acc.Access), reasonRejected
		}
		if err := b.accounts.clearRetryPause(ctx, appid); err != nil {
			return Account{}, err
		}
	}
	if _, err := b.renewer.token(ctx, appid, stale, why); err != nil {
		return Account{}, err
	}
	return b.Account(ctx, appid)
}

// Forget makes an account stay away: its tokens, its name and a code that waits
// to be exchanged are deleted, and the errors of Token are ErrForgotten in all
// replicas. That is so for accounts without a record, too, and until the
// account authorizes again (a new code, except from updateauthorized), or until
// [Broker.Refresh], [Broker.Import] or [Broker.Sync] with Restore. WeChat does
// not learn of it.
//
// Of the component and of own accounts it deletes the token, and returns
// ErrUnknownAccount if there was none.
func (b *Broker) Forget(ctx context.Context, appid string) error {
	if b.Kind(appid) == Authorizer {
		if err := b.accounts.forget(ctx, appid); err != nil {
			return err
		}
	} else if found, err := b.accounts.delete(ctx, appid); err != nil || !found {
		return cmp.Or(err, ErrUnknownAccount)
	}
	b.log.Info("account forgotten", "account", appid)
	return nil
}

// Import stores a refresh token of appid that another program had. If the
// account has one already, that one stays, and imported is false. A forgotten
// account comes back. WeChat is not
// asked: the account's first call shows whether the token is valid.
func (b *Broker) Import(
	ctx context.Context, appid string, refresh wechat.Secret,
) (imported bool, err error) {
	return b.accounts.importRefreshToken(ctx, appid, refresh)
}
