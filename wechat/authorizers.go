package wechat

import (
	"context"
	"strings"
	"time"
)

// What the component asks about those that have authorized it
// (doc/oplatform/openApi/authorization-management).

// PreAuthCode makes the code that the authorization pages are opened with
// (doc/oplatform/openApi/ticket-token/api_getpreauthcode), and says how long it lives.
func (c *Client) PreAuthCode(ctx context.Context, component string, token Secret) (Secret, time.Duration, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_create_preauthcode", token, fields{"component_appid": component}, &a)
	if err == nil && a.PreAuthCode == "" {
		err = noToken("pre_auth_code")
	}
	life := time.Duration(a.ExpiresIn) * time.Second
	if life <= 0 {
		life = 10 * time.Minute
	}
	return NewSecret(a.PreAuthCode), life, err
}

// StartPushTicket asks WeChat to push tickets again after it gave up
// (doc/oplatform/openApi/ticket-token/api_startpushticket). The ticket comes by the next push, ten minutes
// later at most. running: the pushes had not stopped at all.
func (c *Client) StartPushTicket(ctx context.Context, component string, secret Secret) (running bool, err error) {
	var a answer
	err = c.post(ctx, "/cgi-bin/component/api_start_push_ticket", Secret{}, fields{
		"component_appid": component, "component_secret": secret, // another name than everywhere else
	}, &a)
	return strings.Contains(a.ErrMsg, "normal state"), err
}

// Authorizer is an account that has authorized the component.
type Authorizer struct {
	AppID string
	// Refresh is the refresh token that WeChat holds; empty where no code was ever exchanged, or the
	// account has no API permission.
	Refresh Secret
	// Time of the authorization; zero in answers that do not say it.
	Time time.Time
	// Name is the nickname, Type the kind in words; both are "" in answers that do not say them.
	Name, Type string
}

// Authorizer asks for one account (api_getauthorizerinfo). [CodeNotAuthorized]: it has not authorized the
// component, or has withdrawn.
func (c *Client) Authorizer(ctx context.Context, component string, token Secret, appid string) (Authorizer, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_get_authorizer_info", token, fields{
		"component_appid": component, "authorizer_appid": appid,
	}, &a)
	i := a.AuthorizerInfo
	kind := "subscription account"
	switch {
	case i.MiniProgram != nil: // its presence is the official sign
		kind = "mini program"
	case i.Channels != nil:
		kind = "Channels account"
	case i.Store != nil:
		kind = "shop"
	case i.Service.ID == 2:
		kind = "service account"
	}
	return Authorizer{AppID: appid, Refresh: NewSecret(a.AuthorizationInfo.AuthorizerRefreshToken), Name: strings.TrimSpace(Sanitize(i.NickName, 64)), Type: kind}, err
}

// ListPage is the most that [Client.Authorizers] may be asked for; more is errcode 40170.
const ListPage = 500

// Authorizers asks for a page of all accounts (api_getauthorizerlist), and says how many there are in all.
func (c *Client) Authorizers(ctx context.Context, component string, token Secret, offset, count int) (list []Authorizer, total int, err error) {
	var a answer
	err = c.post(ctx, "/cgi-bin/component/api_get_authorizer_list", token, fields{
		"component_appid": component, "offset": offset, "count": count,
	}, &a)
	for _, e := range a.List {
		if e.AuthorizerAppID != "" {
			at := time.Time{}
			if e.AuthTime > 0 {
				at = time.Unix(int64(e.AuthTime), 0)
			}
			list = append(list, Authorizer{AppID: e.AuthorizerAppID, Refresh: NewSecret(e.RefreshToken), Time: at})
		}
	}
	return list, int(a.TotalCount), err
}
