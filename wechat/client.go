package wechat

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ErrUnreachable: no usable answer came: no connection, broken off, too late, an HTTP
// error, or something that is not WeChat's JSON. Trying again later may help.
var ErrUnreachable = errors.New("WeChat could not be reached")

// Error is a refusal by WeChat, with its errcode and errmsg.
type Error struct {
	Code int
	Msg  string
}

func (e *Error) Error() string { return fmt.Sprintf("WeChat answered %d %s", e.Code, e.Msg) }

// Code gives the errcode of an error that WeChat answered, 0 for every other.
func Code(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// Grant is what WeChat hands out for an account.
type Grant struct {
	AppID   string        // the authorizer's; "" where the answer names none
	Access  Secret        // empty where an account has no API permission
	Refresh Secret        // empty for the component and for own accounts
	Life    time.Duration // of Access, from now
	// FuncInfo is the JSON list of the permissions that an authorizer gave; nil where the answer has none.
	FuncInfo json.RawMessage
}

// Client calls the endpoints that hand out tokens. It keeps no tokens, resends nothing, and no
// error of it holds a URL or a secret. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
}

const (
	// answerLimit bounds what is read of an answer, in bytes.
	answerLimit = 1 << 20
	// WeChat closes idle connections after about 20 s.
	idleTimeout = 12 * time.Second
	// callTimeout bounds one call where the context does not end earlier.
	callTimeout = 10 * time.Second
)

// NewClient takes WeChat's base URL, such as https://api.weixin.qq.com, and the roots
// that vouch for it; nil stands for the system's.
func NewClient(upstream string, roots *x509.CertPool) *Client {
	// HTTP/1.1 only: nobody has shown that WeChat's HTTP/2 is sound.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &Client{
		base: strings.TrimSuffix(upstream, "/"),
		http: &http.Client{
			Timeout: callTimeout,
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
				TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				TLSHandshakeTimeout: 5 * time.Second,
				IdleConnTimeout:     idleTimeout,
				MaxIdleConnsPerHost: 16,
				Protocols:           protocols,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ComponentToken fetches a new component_access_token
// (doc/oplatform/openApi/ticket-token/api_getcomponentaccesstoken). The old one lives on for five minutes.
func (c *Client) ComponentToken(ctx context.Context, appid string, secret, ticket Secret) (Grant, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_component_token", Secret{}, fields{
		"component_appid": appid, "component_appsecret": secret, "component_verify_ticket": ticket,
	}, &a)
	if err == nil && a.ComponentAccessToken == "" {
		err = noToken("component_access_token")
	}
	return Grant{Access: NewSecret(a.ComponentAccessToken), Life: a.ExpiresIn.life()}, err
}

// AuthorizerToken renews an authorizer's token
// (doc/oplatform/openApi/ticket-token/api_getauthorizeraccesstoken). The refresh token in the answer, if
// any, takes the place of the one given.
func (c *Client) AuthorizerToken(ctx context.Context, component string, token Secret, appid string, refresh Secret) (Grant, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_authorizer_token", token, fields{
		"component_appid": component, "authorizer_appid": appid, "authorizer_refresh_token": refresh,
	}, &a)
	if err == nil && a.AuthorizerAccessToken == "" {
		err = noToken("authorizer_access_token")
	}
	return Grant{AppID: appid, Access: NewSecret(a.AuthorizerAccessToken), Refresh: NewSecret(a.AuthorizerRefreshToken), Life: a.ExpiresIn.life()}, err
}

// QueryAuth exchanges an authorization code
// (doc/oplatform/openApi/ticket-token/api_getauthorizerrefreshtoken). Both tokens are empty where the
// account has no API permission. A code serves once.
func (c *Client) QueryAuth(ctx context.Context, component string, token, code Secret) (Grant, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_query_auth", token, fields{
		"component_appid": component, "authorization_code": code,
	}, &a)
	i := a.AuthorizationInfo
	if err == nil && i.AuthorizerAppID == "" {
		err = noToken("authorizer_appid")
	}
	return Grant{AppID: i.AuthorizerAppID, Access: NewSecret(i.AuthorizerAccessToken), Refresh: NewSecret(i.AuthorizerRefreshToken), Life: i.ExpiresIn.life(), FuncInfo: i.FuncInfo}, err
}

// StableToken fetches the token of an account whose secret we hold (/cgi-bin/stable_token).
// Without force WeChat answers the current token until five minutes before its end; with it
// a new one, 20 times a day at most, and the old one is dead at once.
func (c *Client) StableToken(ctx context.Context, appid string, secret Secret, force bool) (Grant, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/stable_token", Secret{}, fields{
		"grant_type": "client_credential", "appid": appid, "secret": secret, "force_refresh": force,
	}, &a)
	if err == nil && a.AccessToken == "" {
		err = noToken("access_token")
	}
	return Grant{AppID: appid, Access: NewSecret(a.AccessToken), Life: a.ExpiresIn.life()}, err
}

func noToken(field string) error {
	return fmt.Errorf("%w: its answer has no %s", ErrUnreachable, field)
}

type answer struct {
	AccessToken            string  `json:"access_token"`
	PreAuthCode            string  `json:"pre_auth_code"`
	ComponentAccessToken   string  `json:"component_access_token"`
	AuthorizerAccessToken  string  `json:"authorizer_access_token"`
	AuthorizerRefreshToken string  `json:"authorizer_refresh_token"`
	ExpiresIn              integer `json:"expires_in"`
	ErrMsg                 string  `json:"errmsg"`
	AuthorizationInfo      struct {
		AuthorizerAppID        string          `json:"authorizer_appid"`
		AuthorizerAccessToken  string          `json:"authorizer_access_token"`
		AuthorizerRefreshToken string          `json:"authorizer_refresh_token"`
		ExpiresIn              integer         `json:"expires_in"`
		FuncInfo               json.RawMessage `json:"func_info"`
	} `json:"authorization_info"`
	AuthorizerInfo struct {
		NickName string `json:"nick_name"`
		Service  struct {
			ID integer `json:"id"`
		} `json:"service_type_info"`
		MiniProgram json.RawMessage `json:"MiniProgramInfo"`
		Channels    json.RawMessage `json:"channels_info"`
		Store       json.RawMessage `json:"store_info"`
	} `json:"authorizer_info"`
	TotalCount integer `json:"total_count"`
	List       []struct {
		AuthorizerAppID string  `json:"authorizer_appid"`
		RefreshToken    string  `json:"refresh_token"`
		AuthTime        integer `json:"auth_time"`
	} `json:"list"`
}

// integer takes the string that some answers have in its place, too.
type integer int64

func (n *integer) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		return errors.New("not a number where one should be")
	}
	*n = integer(v)
	return nil
}

// life is what WeChat promises of a token, kept to sane bounds: the documented 7200 s where it
// says nothing, a day at most.
func (s integer) life() time.Duration {
	if s <= 0 {
		return 7200 * time.Second
	}
	return min(time.Duration(s)*time.Second, 24*time.Hour)
}

type fields map[string]any

func (c *Client) post(ctx context.Context, path string, token Secret, in fields, out *answer) error {
	shown := make(map[string]any, len(in))
	for k, v := range in {
		if s, ok := v.(Secret); ok {
			v = s.Reveal()
		}
		shown[k] = v
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // WeChat refuses \u003c on some paths
	if err := enc.Encode(shown); err != nil {
		return err
	}
	target := c.base + path
	if !token.IsEmpty() {
		target += "?" + AccessToken + "=" + url.QueryEscape(token.Reveal())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, &body)
	if err != nil {
		return fmt.Errorf("%w: bad upstream address", ErrUnreachable)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "wxproxy")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, withoutURL(err))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	switch {
	case err != nil:
		return fmt.Errorf("%w: the answer broke off: %w", ErrUnreachable, withoutURL(err))
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%w: it answered HTTP %d", ErrUnreachable, resp.StatusCode)
	}
	// Nicknames hold raw control characters, which encoding/json refuses. Between values they
	// are white space anyway.
	for i, ch := range raw {
		if ch < ' ' {
			raw[i] = ' '
		}
	}
	if err := json.Unmarshal(raw, out); err != nil && FindErrCode(raw) == 0 {
		return fmt.Errorf("%w: it answered something that is not JSON", ErrUnreachable)
	}
	if code := FindErrCode(raw); code != 0 {
		return &Error{Code: code, Msg: maskErrMsg(out.ErrMsg, token, in)}
	}
	return nil
}

// withoutURL strips the address, token and all, that net/http quotes in its errors.
func withoutURL(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	return err
}

// maskErrMsg returns an errmsg that is safe to log: printable, short, and
// without the secrets of the request, should WeChat quote them.
func maskErrMsg(msg string, token Secret, in fields) string {
	hide := func(s Secret) {
		if !s.IsEmpty() {
			msg = strings.ReplaceAll(msg, s.Reveal(), redacted)
		}
	}
	hide(token)
	for _, v := range in {
		if s, ok := v.(Secret); ok {
			hide(s)
		}
	}
	return Sanitize(msg, 200)
}
