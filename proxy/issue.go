package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"time"

	"wxproxy/proxy/standin"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// SDKs insist on fetching a token before they call, and on sending it. The
// paths on which they fetch it are answered here, with the names and types of
// WeChat's responses (doc/oplatform/openApi/ticket-token) and a stand-in in
// place of each token. These responses never have the codes 40001, 40014 or
// 42001, on which SDKs would fetch again at once, without end.

// placeholderRefreshToken takes the place of refresh tokens. It looks like one,
// since SDKs store it. If it is sent back it is ignored.
const placeholderRefreshToken = "refreshtoken@@@wxproxy-keeps-it"

// decideStandIn completes the decision about a request for a stand-in. Its key
// and its account can be in the body. Before the body is read it checks only what
// is known without it: see formState.
func (s *settings) decideStandIn(h *requestHead, presented *queryTokens, d *decision) (err *apiError) {
	if d.identity, err = s.authenticateKey(h); err != nil {
		return err
	}
	switch path := d.endpoint.Path; path {
	case wechat.PathToken, wechat.PathStableToken:
		return s.decideAccountToken(h, d)
	case wechat.PathComponentToken:
		return s.decideComponentToken(h, d)
	case wechat.PathAuthorizerToken:
		return s.decideAuthorizerToken(h, presented, d)
	case wechat.PathQueryAuth:
		return s.decideQueryAuth(h, presented, d)
	default:
		panic("BUG: no stand-ins are issued on " + path)
	}
}

// decideAccountToken decides about /cgi-bin/token and /cgi-bin/stable_token,
// which SDKs use that know one account only, whatever kind of account it is
// here.
func (s *settings) decideAccountToken(h *requestHead, d *decision) *apiError {
	if err := s.authenticateSecret(h, d, "secret"); err != nil {
		return err
	}
	appid, err := s.formAccount(h, "appid")
	switch {
	case err != nil:
		return err
	case s.bodyNamesAccount(h, "appid", appid):
		return nil
	case !wechat.IsAppID(appid) || bytes.Equal(appid, s.component):
		return errInvalidAppID
	}
	d.account = appid
	return d.caller.authorizeAccount(appid)
}

// decideComponentToken decides about api_component_token.
func (s *settings) decideComponentToken(h *requestHead, d *decision) *apiError {
	if err := s.authenticateSecret(h, d, "component_appsecret"); err != nil {
		return err
	}
	named := h.form.get("component_appid")
	switch {
	case h.form.state == formUnread:
		return nil
	case s.component == nil,
		named != string(s.component) && (named != "" || h.form.complete()):
		return errInvalidAppID
	}
	d.account = s.component
	return d.caller.authorizeAccount(s.component)
}

// decideAuthorizerToken decides about api_authorizer_token. The refresh token
// does not matter: it is a placeholder, empty, or null.
func (s *settings) decideAuthorizerToken(h *requestHead, presented *queryTokens, d *decision) *apiError {
	if err := s.authenticateComponent(h, presented, d); err != nil {
		if err == errStandInKind {
			return errComponentTokenKind
		}
		return err
	}
	// Errors of the head come first, so that they do not depend on the body.
	if _, err := explicitAccount(h); err != nil {
		return err
	}
	component, authorizer := h.form.get("component_appid"), h.form.get("authorizer_appid")
	switch {
	case s.component == nil:
		return errAuthorizerComponent
	case component != "" && component != string(s.component):
		return errAuthorizerOther
	case authorizer == "" && !h.form.complete(): // the body can name it
	case !wechat.IsAppID(authorizer), authorizer == string(s.component):
		return errAuthorizerAppID
	}
	appid, err := s.formAccount(h, "authorizer_appid")
	switch {
	case err != nil || s.bodyNamesAccount(h, "authorizer_appid", appid):
		return err
	case !s.allowIssue(&d.grants, appid):
		return errAuthorizerAppID
	}
	d.account = appid
	return d.caller.authorizeAccount(appid)
}

// authenticateSecret completes d.caller where the key is sent in place of a
// secret. A key in a header or a certificate works too, whatever the secret is
// then. But it must not be another caller's key.
func (s *settings) authenticateSecret(h *requestHead, d *decision, field string) *apiError {
	if h.assumed || s.callers.disabled() || !h.form.complete() {
		return nil
	}
	secret := h.form.get(field)
	found := s.callers.byKey([]byte(secret))
	switch {
	case found.caller != nil && (d.caller == nil || d.caller == found.caller):
		d.add(found)
	case found.caller != nil:
		return errInvalidSecret
	case d.caller != nil:
	case secret == "":
		return errNoSecret
	default:
		return errInvalidSecret
	}
	return nil
}

// authenticateComponent completes d.caller where a component's stand-in or a
// key is needed. Nothing of it depends on the body.
func (s *settings) authenticateComponent(h *requestHead, presented *queryTokens, d *decision) *apiError {
	switch {
	case presented.err != nil:
		return errComponentTokenInvalid
	case !d.grants.allow(tokens.Component, nil, false):
		return errStandInKind
	case !presented.hasStandIn():
	case d.caller != nil && d.caller != presented.caller:
		return errKeyConflict
	default:
		d.add(presented.identity)
	}
	switch {
	case d.caller != nil || s.callers.disabled() || h.assumed:
		return nil
	case presented.foreign:
		return errComponentTokenForeign
	}
	return errNoKey
}

// formAccount returns the account that a field of the form names, or else the
// one of the prefix, header or configuration. A prefix or header that names
// another account is an error, unless it names the component. The result is nil
// if the form is unread, or if nothing names an account.
func (s *settings) formAccount(h *requestHead, field string) ([]byte, *apiError) {
	base, err := explicitAccount(h)
	if err != nil || h.form.state == formUnread {
		return nil, err
	}
	named := h.form.get(field)
	switch {
	case named == "" && base == nil:
		return s.defaultAppID, nil
	case named == "":
		return base, nil
	case base != nil && string(base) != named && !bytes.Equal(base, s.component):
		return nil, accountConflict("the prefix or header", "the request")
	}
	return []byte(named), nil
}

// bodyNamesAccount reports whether the account can only come from a body that
// is not known: the form does not name it, and appid, the result of formAccount,
// is none that an account's stand-in can be issued for.
func (s *settings) bodyNamesAccount(h *requestHead, field string, appid []byte) bool {
	return !h.form.complete() && h.form.get(field) == "" &&
		(appid == nil || bytes.Equal(appid, s.component))
}

// issue answers a request for a stand-in. It decides again, since the body is
// known only now.
func (c *call) issue() (err *apiError) {
	c.head.form = readForm(c.body.Bytes(), c.head.target.query)
	if c.decision, err = c.settings.decide(&c.head); err != nil {
		return c.countWrongKey(err)
	}
	path := c.decision.endpoint.Path
	if path == wechat.PathQueryAuth {
		return c.exchangeCode()
	}
	token, err := c.issueStandIn()
	if err != nil {
		if path == wechat.PathAuthorizerToken {
			return authorizerUnavailable(err)
		}
		return err
	}
	const expiresIn = int(standin.Lifetime / time.Second)
	switch path {
	case wechat.PathComponentToken:
		return c.respond(struct {
			Token     string `json:"component_access_token"`
			ExpiresIn int    `json:"expires_in"`
		}{token, expiresIn})
	case wechat.PathAuthorizerToken:
		return c.respond(struct {
			Token        string `json:"authorizer_access_token"`
			ExpiresIn    int    `json:"expires_in"`
			RefreshToken string `json:"authorizer_refresh_token"`
		}{token, expiresIn, placeholderRefreshToken})
	}
	return c.respond(struct {
		Token     string `json:"access_token"`
		ExpiresIn int    `json:"expires_in"`
	}{token, expiresIn})
}

// issueStandIn issues the stand-in that was decided, if the account exists. The
// caller's permission has been checked before, so that the result tells no
// caller about accounts of others.
func (c *call) issueStandIn() (string, *apiError) {
	if err := c.decision.caller.checkRate(c.start); err != nil {
		return "", err
	}
	appid, kind := string(c.decision.account), standin.Account
	if bytes.Equal(c.decision.account, c.settings.component) {
		kind = standin.Component
	} else {
		ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
		defer cancel()
		err := c.proxy.tokens.CheckAccount(ctx, appid)
		switch {
		case err == nil:
		case c.decision.endpoint.Path != wechat.PathAuthorizerToken && isUnknown(err):
			return "", errInvalidAppID
		default:
			return "", toAPIError(err, appid, time.Now())
		}
	}
	c.now = time.Now()
	return c.signStandIn(kind, appid), nil
}

// isUnknown reports whether err means that no token of the account can be had
// until a merchant acts.
func isUnknown(err error) bool {
	return errors.Is(err, tokens.ErrUnknownAccount) || errors.Is(err, tokens.ErrRevoked) ||
		errors.Is(err, tokens.ErrForgotten)
}

// signStandIn returns a stand-in for the caller of c, under the key that the
// caller has presented.
func (c *call) signStandIn(kind standin.Kind, appid string) string {
	name := "" // authentication is disabled
	if c.decision.caller != nil {
		name = c.decision.caller.name
	}
	return c.settings.signer.Issue(kind, appid, name, c.decision.key, c.now)
}

// respond sends v as WeChat would send it.
func (c *call) respond(v any) *apiError {
	body, err := json.Marshal(v)
	if err != nil {
		return errInternal
	}
	c.ctx.Response.Header.SetContentType("application/json; charset=utf-8")
	c.ctx.Response.SetBody(body)
	return nil
}
