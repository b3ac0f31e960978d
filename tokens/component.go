package tokens

import (
	"context"
	"errors"
	"time"

	"wxproxy/tokens/governor"
	"wxproxy/wechat"
)

// tokenSource returns tokens; the Broker is one.
type tokenSource interface {
	Token(ctx context.Context, appid string) (Token, error)
	Renew(ctx context.Context, appid string, stale wechat.Secret) (Token, error)
}

// componentAPI calls WeChat's endpoints that need the component's token. It
// fetches that token first if necessary. It is safe for concurrent use.
//
// Errors wrap ErrUnavailable if the component has no token. All others are
// those of the [wechat.Client].
type componentAPI struct {
	appid  func() string // the component's; "" if none is configured
	client func() *wechat.Client
	tokens tokenSource
	// rejected is called when WeChat rejects a component's token although it is
	// new.
	rejected func(component string)
	list     *listSearch
}

// credential is the component's appid and token.
type credential struct {
	component string
	token     wechat.Secret
}

// withToken calls fn with the component's token, and once more with a new one
// if WeChat rejects it.
//
// Locks are always taken in this order: exchanged code, account, then the
// account's pending code or the component. fn is often called while an
// account's lock is held, and withToken may take the component's. The reverse
// order would deadlock:
//
//  1. task 1: lock account A; its renewal needs the component's token
//  2. task 2: lock the component, then want account A (must not happen)
//  3. task 1: wait for the component's lock, held by task 2
//  4. task 2: wait for A's lock, held by task 1
func (c *componentAPI) withToken(
	ctx context.Context, fn func(ctx context.Context, t credential) error,
) error {
	component := c.appid()
	if component == "" {
		return ErrUnknownAccount
	}
	t, err := c.tokens.Token(ctx, component)
	if err != nil {
		return componentError(err)
	}
	err = fn(ctx, credential{component, t.Value})
	if !wechat.TokenRefused(wechat.Code(err), true) {
		return err
	}
	renewed, renewErr := c.tokens.Renew(ctx, component, t.Value)
	if errors.Is(renewErr, ErrThrottled) {
		c.rejected(component)
	}
	if renewErr != nil {
		return componentError(renewErr)
	}
	err = fn(governor.Insist(ctx), credential{component, renewed.Value})
	if wechat.TokenRefused(wechat.Code(err), true) {
		c.rejected(component)
		return &unavailableError{
			reason: "WeChat rejects the component's new token: " + err.Error(),
			cause:  errTokenRejected,
		}
	}
	return err
}

// errTokenRejected: WeChat rejected the component's token, and then a new one.
var errTokenRejected = errors.New("the component's new token was rejected")

// componentError makes err an ErrUnavailable: what fails for want of the
// component's token is not the account's failure.
func componentError(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return &unavailableError{reason: "component token unavailable: " + err.Error(), cause: err}
}

// queryAuth exchanges an authorization code for tokens (api_query_auth).
func (c *componentAPI) queryAuth(
	ctx context.Context, code wechat.Secret,
) (grant wechat.Grant, err error) {
	err = c.withToken(ctx, func(ctx context.Context, t credential) (err error) {
		grant, err = c.client().QueryAuth(ctx, t.component, t.token, code)
		return err
	})
	return grant, err
}

// preAuthCode creates a code for the authorization pages
// (api_create_preauthcode), and returns how long it is valid.
func (c *componentAPI) preAuthCode(
	ctx context.Context,
) (code wechat.Secret, lifetime time.Duration, err error) {
	err = c.withToken(ctx, func(ctx context.Context, t credential) (err error) {
		code, lifetime, err = c.client().PreAuthCode(ctx, t.component, t.token)
		return err
	})
	return code, lifetime, err
}

// profile returns what WeChat says about one authorizer
// (api_get_authorizer_info).
func (c *componentAPI) profile(ctx context.Context, appid string) (a wechat.Authorizer, err error) {
	err = c.withToken(ctx, func(ctx context.Context, t credential) (err error) {
		a, err = c.client().Authorizer(ctx, t.component, t.token, appid)
		return err
	})
	return a, err
}

// listPage returns up to [wechat.ListPage] authorizers from offset on, and how
// many there are in total (api_get_authorizer_list).
func (c *componentAPI) listPage(
	ctx context.Context, offset int,
) (page []wechat.Authorizer, total int, err error) {
	err = c.withToken(ctx, func(ctx context.Context, t credential) (err error) {
		page, total, err = c.client().Authorizers(ctx, t.component, t.token, offset, wechat.ListPage)
		return err
	})
	return page, total, err
}

// queryAuthorizer asks WeChat whether appid authorizes the component, and for
// its refresh token.
func (c *componentAPI) queryAuthorizer(
	ctx context.Context, appid string,
) (a wechat.Authorizer, authorized bool, err error) {
	err = c.withToken(ctx, func(ctx context.Context, t credential) (err error) {
		a, authorized, err = c.findAuthorizer(ctx, t, appid)
		return err
	})
	return a, authorized, err
}

// findAuthorizer is queryAuthorizer with a given component token. It asks for
// the one account first. If WeChat answers that question with an unexpected
// errcode, it searches the list of all accounts.
func (c *componentAPI) findAuthorizer(
	ctx context.Context, t credential, appid string,
) (a wechat.Authorizer, authorized bool, err error) {
	a, err = c.client().Authorizer(ctx, t.component, t.token, appid)
	switch code := wechat.Code(err); {
	case err == nil:
		return a, true, nil
	case code == wechat.CodeNotAuthorized:
		return a, false, nil
	case code == 0, code == wechat.CodeBusy, governor.ConcernsAll(code),
		wechat.TokenRefused(code, true): // withToken tries again
		return a, false, err
	}
	return c.list.find(ctx, appid)
}
