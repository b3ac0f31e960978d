package proxy

import (
	"context"
	"encoding/json"
	"time"

	"wxproxy/proxy/standin"
	"wxproxy/wechat"
)

// decideQueryAuth decides about api_query_auth, which exchanges an
// authorization code. It is a real call to WeChat, so the caller's methods and
// paths count.
func (s *settings) decideQueryAuth(h *requestHead, presented *queryTokens, d *decision) *apiError {
	if err := s.authenticateComponent(h, presented, d); err != nil {
		return err
	}
	if s.component == nil {
		return errNoComponent
	}
	if err := d.caller.authorizeEndpoint(h.method, h.target.decodedPath); err != nil {
		return err
	}
	if err := d.caller.authorizeAccount(s.component); err != nil {
		return err
	}
	named := h.form.get("component_appid")
	switch {
	case named != "" && named != string(s.component):
		return errInvalidAppID
	case h.form.complete() && h.form.get("authorization_code") == "":
		return errNoCode
	}
	return nil
}

// exchangeCode answers api_query_auth. The exchange is a real one. The tokens
// stay here, and the response has a stand-in.
func (c *call) exchangeCode() *apiError {
	exchange := c.settings.exchange
	if exchange == nil {
		return errNoExchange
	}
	if err := c.decision.caller.checkRate(c.start); err != nil {
		return err
	}
	// A code can be exchanged once only. So nothing here is repeated, and what
	// happens to the code is up to exchange, which saves the tokens before it
	// returns.
	ctx, cancel := context.WithDeadline(context.Background(), c.deadline)
	defer cancel()
	start := time.Now()
	authorization, err := exchange(ctx, wechat.NewSecret(c.head.form.get("authorization_code")))
	c.now = time.Now()
	c.upstreamTime = c.now.Sub(start)
	if err != nil {
		return exchangeError(err, c.now)
	}
	// Which account has authorized is known only now, so the permission for it
	// is checked now.
	c.decision.account = []byte(authorization.AppID)
	denied := c.decision.caller.authorizeAccount(c.decision.account)
	if denied == nil && !c.settings.allowIssue(&c.decision.grants, c.decision.account) {
		denied = ownAccountDenied(c.decision.account)
	}
	if denied != nil {
		return accountKept(denied)
	}
	// WeChat's list of granted permission sets passes as it is.
	permissions := authorization.FuncInfo
	if !json.Valid(permissions) {
		permissions = json.RawMessage("[]")
	}
	type info struct {
		AppID        string          `json:"authorizer_appid"`
		Token        string          `json:"authorizer_access_token"`
		ExpiresIn    int             `json:"expires_in"`
		RefreshToken string          `json:"authorizer_refresh_token"`
		FuncInfo     json.RawMessage `json:"func_info"`
	}
	return c.respond(struct {
		Info info `json:"authorization_info"`
	}{info{
		AppID:        authorization.AppID,
		Token:        c.signStandIn(standin.Account, authorization.AppID),
		ExpiresIn:    int(standin.Lifetime / time.Second),
		RefreshToken: placeholderRefreshToken,
		FuncInfo:     permissions,
	}})
}
