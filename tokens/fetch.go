package tokens

import (
	"context"
	"errors"
	"log/slog"

	"wxproxy/wechat"
)

// errNoRefreshToken: WeChat issued no refresh token at the authorization, and
// lists none now.
var errNoRefreshToken = errors.New("no refresh token at WeChat: " +
	"the account granted no API permission (权限集) that needs one, " +
	"or its authorization code was never exchanged; " +
	"its owner has to authorize again, or update the authorization")

// fetcher gets new tokens from WeChat. It reads and writes no records but the
// ticket. It is safe for concurrent use.
type fetcher struct {
	secrets   func() *Secrets
	client    func() *wechat.Client
	component *componentAPI
	tickets   *tickets
	log       *slog.Logger
}

// fetched is what WeChat returned.
type fetched struct {
	grant wechat.Grant
	// recovered is the refresh token that WeChat holds, if the stored one was
	// missing or rejected. It is to be kept even if the fetch failed.
	recovered wechat.Secret
}

// fetch gets a new token of appid. stale is the token that WeChat rejected,
// empty if none was. refresh is the authorizer's stored refresh token.
//
// Errors are those of the [wechat.Client], ErrUnavailable if the component has
// no token, ErrRevoked if WeChat confirmed that the authorization ended,
// ErrNoTicket, and errNoRefreshToken.
func (f *fetcher) fetch(
	ctx context.Context, appid string, kind Kind, refresh, stale wechat.Secret,
) (fetched, error) {
	var out fetched
	var err error
	switch kind {
	case Component:
		out.grant, err = f.tickets.componentToken(ctx, appid, f.secrets().ComponentSecret)
	case App:
		out.grant, err = f.fetchApp(ctx, appid, stale)
	default:
		out, err = f.fetchAuthorizer(ctx, appid, refresh)
	}
	return out, err
}

// fetchApp gets the token of an own account (stable_token). WeChat returns the
// current token while it is valid; if that is the rejected one, a new one is
// forced.
func (f *fetcher) fetchApp(
	ctx context.Context, appid string, stale wechat.Secret,
) (wechat.Grant, error) {
	secret, client := f.secrets().Apps[appid], f.client()
	grant, err := client.StableToken(ctx, appid, secret, false)
	if err == nil && !stale.IsEmpty() && grant.Access.Equal(stale) {
		grant, err = client.StableToken(ctx, appid, secret, true)
	}
	return grant, err
}

// fetchAuthorizer gets the token of an authorizer (api_authorizer_token).
//
// If the refresh token is missing or rejected, it asks WeChat for the one that
// WeChat holds. The two differ after an authorization whose push was lost, and
// after this:
//
//  1. wxproxy: ask WeChat for a token
//  2. WeChat:  replace the refresh token, respond
//  3. wxproxy: crash before the response is saved
func (f *fetcher) fetchAuthorizer(
	ctx context.Context, appid string, refresh wechat.Secret,
) (fetched, error) {
	var out fetched
	err := f.component.withToken(ctx, func(ctx context.Context, t credential) error {
		client := f.client()
		var err error = errNoRefreshToken
		if !refresh.IsEmpty() {
			out.grant, err = client.AuthorizerToken(ctx, t.component, t.token, appid, refresh)
		}
		if err == nil || !refresh.IsEmpty() && !wechat.AuthorizationInDoubt(wechat.Code(err)) {
			return err
		}
		listed, authorized, findErr := f.component.findAuthorizer(ctx, t, appid)
		switch {
		case findErr != nil:
			return findErr
		case !authorized:
			return ErrRevoked
		case listed.Refresh.IsEmpty() || listed.Refresh.Equal(refresh):
			return err
		}
		f.log.Info("refresh token recovered from WeChat", "account", appid)
		refresh, out.recovered = listed.Refresh, listed.Refresh
		out.grant, err = client.AuthorizerToken(ctx, t.component, t.token, appid, refresh)
		return err
	})
	return out, err
}
