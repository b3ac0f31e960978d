package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"wxproxy/proxy/standin"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

var errNoExchange = &problem{status: http.StatusServiceUnavailable, msg: "authorization codes cannot be exchanged here",
	hint: "let the merchant's browser bring the code to the callback listener", retryAfter: time.Minute}

// issueExchanged answers api_query_auth: the exchange is a real one, and the tokens stay here.
func (c *call) issueExchanged() *problem {
	if p := c.asComponent(); p != nil {
		return p
	}
	if c.s.component == nil {
		return errNoComponent
	}
	if p := c.who.mayCall(c.cx.Method(), c.target.plain); p != nil {
		return p
	}
	if p := c.who.mayActFor(c.s.component); p != nil {
		return p
	}
	f := c.readForm()
	if named := f.get("component_appid"); named != "" && named != string(c.s.component) {
		return errBadAppID
	}
	code := f.get("authorization_code")
	switch {
	case code == "":
		return &problem{status: http.StatusOK, errcode: wechat.CodeCodeInvalid, msg: "code is invalid hint: [wxproxy: there is no authorization_code in the body]"}
	case c.s.exchange == nil:
		return errNoExchange
	}
	if p := c.paced(); p != nil {
		return p
	}
	ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
	defer cancel()
	began := time.Now()
	a, err := c.s.exchange(ctx, wechat.NewSecret(code))
	c.now = time.Now()
	c.upstream = c.now.Sub(began)
	if err != nil {
		return exchangeProblem(err, c.now)
	}
	c.plan.appid = []byte(a.AppID)
	if p := c.who.mayActFor(c.plan.appid); p != nil {
		return problemf(p.status, "the account is authorized, and others may call for it", "%s", p.msg)
	}
	if !json.Valid(a.FuncInfo) {
		a.FuncInfo = json.RawMessage("[]")
	}
	type info struct {
		AppID    string          `json:"authorizer_appid"`
		Token    string          `json:"authorizer_access_token"`
		Life     int             `json:"expires_in"`
		Refresh  string          `json:"authorizer_refresh_token"`
		FuncInfo json.RawMessage `json:"func_info"`
	}
	standIn := c.s.signer.Issue(standin.Account, a.AppID, c.name(), c.now)
	return c.answer(struct {
		Info info `json:"authorization_info"`
	}{info{a.AppID, standIn, seconds(standin.Lifetime), keptRefreshToken, a.FuncInfo}})
}

// exchangeProblem is what the caller is told of a code that could not be exchanged.
func exchangeProblem(err error, now time.Time) *problem {
	var said *wechat.Error
	switch {
	case errors.As(err, &said) && !wechat.TokenRefused(said.Code, true):
		return &problem{status: http.StatusOK, errcode: said.Code, msg: said.Msg}
	case said != nil:
		return problemf(http.StatusServiceUnavailable, "try again; the code was not spent", "WeChat did not take the component's token")
	case errors.Is(err, wechat.ErrUnreachable) && !errors.Is(err, tokens.ErrUnavailable):
		return problemf(http.StatusBadGateway, "the code may have been spent; try again", "the exchange failed: %s", err)
	}
	return problemOf(err, "the component", now)
}
