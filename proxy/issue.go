package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"wxproxy/proxy/standin"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// SDKs insist on fetching a token before they call, and on sending it. The paths on which they do are answered
// here, with the names and types of WeChat's answers (doc/oplatform/openApi/ticket-token) and a stand-in in the place of
// each token. Never with 40001, 40014 or 42001: there SDKs ask again at once, without end.

// keptRefreshToken is in the place of refresh tokens. It looks like one, as SDKs store it; sent back it is ignored.
const keptRefreshToken = "refreshtoken@@@wxproxy-keeps-it"

var (
	errBadAppID  = &problem{status: http.StatusOK, errcode: wechat.CodeInvalidAppID, msg: "invalid appid hint: [wxproxy: no account that it could give a token of]"}
	errBadSecret = &problem{status: http.StatusOK, errcode: wechat.CodeInvalidSecret, msg: "invalid appsecret hint: [wxproxy: the secret must be the caller's key]"}
	errFormLarge = &problem{status: http.StatusRequestEntityTooLarge, msg: "this body is too large for a request of a token", hint: "send the appid and the key, as WeChat's documentation says"}
)

// issue answers a call that WeChat never gets, or in another form.
func (c *call) issue() *problem {
	if len(c.body) > longestForm {
		return errFormLarge
	}
	var p *problem
	if c.who, p = c.shownKey(); p != nil {
		return p
	}
	switch path := c.plan.endpoint.Path; path {
	case wechat.PathToken, wechat.PathStableToken:
		return c.issueOwn()
	case wechat.PathComponentToken:
		return c.issueComponent()
	case wechat.PathAuthorizerToken:
		return c.issueAuthorizer()
	case wechat.PathQueryAuth:
		return c.issueExchanged()
	default:
		panic("BUG: nobody answers " + path)
	}
}

// issueOwn answers /cgi-bin/token and /cgi-bin/stable_token: what SDKs use that know one account only, whatever it
// is here.
func (c *call) issueOwn() *problem {
	f := c.readForm()
	if !c.byKey(f.get("secret")) {
		return errBadSecret
	}
	appid, p := c.account(f.get("appid"))
	if p != nil {
		return p
	}
	if !isAppID(appid) || bytes.Equal(appid, c.s.component) {
		return errBadAppID
	}
	standIn, err := c.standInOf(appid)
	switch {
	case errors.Is(err, tokens.ErrUnknownAccount), errors.Is(err, tokens.ErrRevoked):
		return errBadAppID
	case err != nil:
		return problemOf(err, string(appid), time.Now())
	}
	return c.answer(struct {
		Token string `json:"access_token"`
		Life  int    `json:"expires_in"`
	}{standIn, seconds(standin.Lifetime)})
}

// issueComponent answers api_component_token.
func (c *call) issueComponent() *problem {
	f := c.readForm()
	if !c.byKey(f.get("component_appsecret")) {
		return errBadSecret
	}
	if c.s.component == nil || f.get("component_appid") != string(c.s.component) {
		return errBadAppID
	}
	standIn, err := c.standInOf(c.s.component)
	if err != nil {
		return problemOf(err, string(c.s.component), time.Now())
	}
	return c.answer(struct {
		Token string `json:"component_access_token"`
		Life  int    `json:"expires_in"`
	}{standIn, seconds(standin.Lifetime)})
}

// issueAuthorizer answers api_authorizer_token. Whatever the refresh token: it is a placeholder, empty, or null.
// Nothing that goes wrong is an HTTP 200: SDKs take that for success, and forget their refresh token for good.
func (c *call) issueAuthorizer() *problem {
	if p := c.asComponent(); p != nil {
		return p
	}
	f := c.readForm()
	switch named := f.get("component_appid"); {
	case c.s.component == nil:
		return unusable("fill in [component]", "no component is configured")
	case named != "" && named != string(c.s.component):
		return unusable("compare it with [component] appid", "component_appid is not this component's")
	case !isAppID([]byte(f.get("authorizer_appid"))), f.get("authorizer_appid") == string(c.s.component):
		return unusable("name the account that authorized the component", "authorizer_appid is no account's")
	}
	appid, p := c.account(f.get("authorizer_appid"))
	if p != nil {
		return p
	}
	standIn, err := c.standInOf(appid)
	if err != nil {
		p := problemOf(err, string(appid), time.Now())
		if p.status == http.StatusForbidden || p.status == http.StatusTooManyRequests {
			return p
		}
		return &problem{status: http.StatusServiceUnavailable, msg: p.msg, hint: p.hint, retryAfter: max(p.retryAfter, time.Second)}
	}
	return c.answer(struct {
		Token   string `json:"authorizer_access_token"`
		Life    int    `json:"expires_in"`
		Refresh string `json:"authorizer_refresh_token"`
	}{standIn, seconds(standin.Lifetime), keptRefreshToken})
}

// byKey finds out who calls where the key is in the place of a secret. A key in a header, or a certificate, will
// do as well, whatever the secret is then; but it must not be another caller's.
func (c *call) byKey(secret string) bool {
	if c.s.roster.open() {
		return true
	}
	who := c.s.roster.find([]byte(secret))
	if c.who != nil {
		return who == nil || who == c.who
	}
	c.who = who
	return who != nil
}

// asComponent finds out who calls where a component's stand-in or a key is needed.
func (c *call) asComponent() *problem {
	st := &c.caller.standIn
	switch {
	case c.shown.problem != nil:
		return unusable(fetchAgain, "the component_access_token is a stand-in that is over, or that nobody here made")
	case st.AppID == nil:
	case st.Kind != standin.Component:
		return unusable(fetchAgain, "the token is an account's, and this call needs the component's")
	case c.who != nil && c.who != c.shown.who:
		return errTwoKeys
	default:
		c.who = c.shown.who
	}
	switch {
	case c.who != nil || c.s.roster.open():
		return nil
	case c.shown.foreign:
		return unusable(fetchAgain, "the token is none that was given out here")
	}
	return errNoKey
}

// fetchAgain is what to do about a component's token that will not do.
const fetchAgain = "fetch a new component_access_token"

// unusable is a refusal that is no HTTP 200, as SDKs take that for success.
func unusable(hint, msg string) *problem {
	return &problem{status: http.StatusServiceUnavailable, msg: msg, hint: hint, retryAfter: time.Minute}
}

// account is the one that a form names, or else prefix, header or default. A prefix or header that names
// another one is an error, unless it is the component.
func (c *call) account(named string) ([]byte, *problem) {
	base, p := c.s.named(c.target, c.caller)
	switch {
	case p != nil:
		return nil, p
	case named == "" && base == nil:
		return c.s.defaultAppID, nil
	case named == "":
		return base, nil
	case base != nil && string(base) != named && !bytes.Equal(base, c.s.component):
		return nil, contradiction("the prefix or header", "the request")
	}
	return []byte(named), nil
}

// standInOf makes a stand-in of appid if the caller may have it, and if there is such an account. The
// first question is the caller's right, so that nobody learns of accounts that are not his.
func (c *call) standInOf(appid []byte) (string, error) {
	c.plan.appid = appid
	if p := c.who.mayActFor(appid); p != nil {
		return "", p
	}
	if p := c.paced(); p != nil {
		return "", p
	}
	kind := standin.Account
	if bytes.Equal(appid, c.s.component) {
		kind = standin.Component
	} else {
		ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
		defer cancel()
		if err := c.p.tokens.Known(ctx, string(appid)); err != nil {
			return "", err
		}
	}
	c.now = time.Now()
	return c.s.signer.Issue(kind, string(appid), c.name(), c.now), nil
}

// name is whom a stand-in is made for, "" where nobody is asked.
func (c *call) name() string {
	if c.who == nil {
		return ""
	}
	return c.who.name
}

// answer sends what an SDK expects.
func (c *call) answer(v any) *problem {
	body, err := json.Marshal(v)
	if err != nil {
		return errDefect
	}
	c.cx.Response.Header.SetContentType("application/json; charset=utf-8")
	c.cx.Response.SetBody(body)
	return nil
}

func seconds(d time.Duration) int { return int(d / time.Second) }
