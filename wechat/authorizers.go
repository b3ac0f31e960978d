package wechat

import (
	"context"
	"encoding/json"
	"strings"
	"time"
)

// This file asks WeChat about authorizers
// (doc/oplatform/openApi/authorization-management).

// PreAuthCode creates a code with which merchants open WeChat's authorization
// page (doc/oplatform/openApi/ticket-token/api_getpreauthcode). It returns the
// code and for how long it is valid.
func (c *Client) PreAuthCode(
	ctx context.Context, component string, token Secret,
) (Secret, time.Duration, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_create_preauthcode", token,
		fields{"component_appid": component}, &a)
	if err == nil && a.PreAuthCode == "" {
		err = noToken("pre_auth_code")
	}
	return NewSecret(a.PreAuthCode), a.ExpiresIn.seconds(10*time.Minute, time.Hour), err
}

// StartPushTicket asks WeChat to push tickets again after it has stopped
// (doc/oplatform/openApi/ticket-token/api_startpushticket). The next push
// follows within ten minutes. running reports that the pushes had not stopped.
func (c *Client) StartPushTicket(
	ctx context.Context, component string, secret Secret,
) (running bool, err error) {
	var a answer
	err = c.post(ctx, "/cgi-bin/component/api_start_push_ticket", Secret{}, fields{
		"component_appid": component, "component_secret": secret, // everywhere else it is component_appsecret
	}, &a)
	return strings.Contains(a.ErrMsg, "normal state"), err
}

// Authorizer is an account that has authorized the component.
type Authorizer struct {
	AppID string

	// Refresh is the current refresh token. It is empty if no authorization
	// code was ever exchanged, or the account has granted no API permission.
	Refresh Secret

	// Time is the time of the authorization, zero if the response has none.
	Time time.Time

	// Name is the nickname and Type the kind of account, in English. Both are
	// "" if the response has none.
	Name, Type string

	// UserName is the original id (gh_…) by which messages name the account, ""
	// if the response has none.
	UserName string

	// Date is when WeChat answered, by its clock; zero if the response does not
	// say, and in a list.
	Date time.Time
}

// Authorizer returns one account (api_getauthorizerinfo). WeChat's errcode
// [CodeNotAuthorized] means that the account has not authorized the component,
// or has revoked its authorization.
func (c *Client) Authorizer(
	ctx context.Context, component string, token Secret, appid string,
) (Authorizer, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_get_authorizer_info", token, fields{
		"component_appid": component, "authorizer_appid": appid,
	}, &a)
	i := a.AuthorizerInfo
	return Authorizer{
		AppID:    appid,
		Refresh:  NewSecret(a.AuthorizationInfo.AuthorizerRefreshToken),
		Name:     strings.TrimSpace(Sanitize(i.NickName, nameLimit)),
		Type:     a.accountType(),
		UserName: strings.TrimSpace(i.UserName),
		Date:     a.date,
	}, err
}

// accountType returns the kind of the account that the response describes. Each
// kind has its own object (api_getauthorizerinfo), promoters (带货助手) and
// suppliers (供货商) included.
func (a *answer) accountType() string {
	i := a.AuthorizerInfo
	for _, kind := range []struct {
		sign json.RawMessage
		name string
	}{
		{i.MiniProgram, "mini program"}, {i.Channels, "Channels account"}, {i.Store, "shop"},
		{i.Talent, "promoter"}, {i.Supplier, "supplier"},
	} {
		if kind.sign != nil {
			return kind.name
		}
	}
	if i.Service.ID == 2 {
		return "service account"
	}
	return "subscription account"
}

// nameLimit bounds the nickname of an account, in characters.
const nameLimit = 64

// ListPage is the largest count for [Client.Authorizers]. A larger one is
// errcode 40170.
const ListPage = 500

// Authorizers returns a page of the list of all accounts
// (api_getauthorizerlist), and how many accounts the list has. If the response
// does not say how many, the list goes on after a page that is full.
func (c *Client) Authorizers(
	ctx context.Context, component string, token Secret, offset, count int,
) (list []Authorizer, total int, err error) {
	var a answer
	err = c.post(ctx, "/cgi-bin/component/api_get_authorizer_list", token, fields{
		"component_appid": component, "offset": offset, "count": count,
	}, &a)
	if err == nil && a.List == nil && (a.TotalCount == nil || *a.TotalCount != 0) {
		err = noToken("list") // an empty one would mean that there are no accounts
	}
	for _, e := range a.List {
		if e.AuthorizerAppID != "" {
			list = append(list, Authorizer{AppID: e.AuthorizerAppID,
				Refresh: NewSecret(e.RefreshToken), Time: e.AuthTime.timeUntil(a.date)})
		}
	}
	if a.TotalCount != nil && *a.TotalCount > 0 {
		return list, int(*a.TotalCount), err
	}
	if total = offset + len(a.List); len(a.List) >= count {
		total++
	}
	return list, total, err
}

// timeUntil returns Unix seconds as a time, zero if there are none. What is
// later than the response itself counts as the time of the response: a time far
// ahead would be newer than all that follows. A zero date does not count.
func (n integer) timeUntil(date time.Time) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	t := time.Unix(int64(n), 0)
	if !date.IsZero() && t.After(date) {
		return date
	}
	return t
}
