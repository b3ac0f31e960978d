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
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"wxproxy/internal/redact"
)

// ErrUnreachable is wrapped by every error that is not WeChat's answer: no
// connection, a connection that broke, a timeout, an HTTP error, or a body that
// is not WeChat's JSON. Trying again later can help.
var ErrUnreachable = errors.New("WeChat could not be reached")

// Error is a response of WeChat with an errcode other than 0. Msg is its
// errmsg, sanitized and without the secrets of the request.
type Error struct {
	Code int
	Msg  string
	Date time.Time // when WeChat answered, by its clock; zero if unknown
}

// Error implements the error interface.
func (e *Error) Error() string { return fmt.Sprintf("WeChat answered %d %s", e.Code, e.Msg) }

// Code returns the errcode of an [Error] in err, and 0 for every other error.
func Code(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// Grant is the set of credentials in one response of WeChat.
type Grant struct {
	AppID   string        // the authorizer's, "" if the response names none
	Access  Secret        // empty if the account has granted no API permission
	Refresh Secret        // empty for the component and for own accounts
	Life    time.Duration // for which Access is valid, from now

	// FuncInfo is the JSON list of permissions that an authorizer has granted,
	// nil if the response has none.
	FuncInfo json.RawMessage

	// Date is when WeChat answered, by its clock and to the second; zero if the
	// response does not say.
	Date time.Time
}

// Gate stands in front of the requests of a [Client]. It is safe for concurrent
// use.
type Gate interface {
	// Enter is called before each request. It may wait. Its error is returned
	// instead of sending the request. Otherwise leave is called once, after the
	// response.
	Enter(ctx context.Context, call Call) (leave func(Outcome), err error)
}

// Call is what a [Gate] may know of a request.
type Call struct {
	Endpoint string // last segment of the path, such as "api_authorizer_token"
	// AppID is the component or own account whose quota the request uses; "" if
	// the request does not say.
	AppID string
}

// Outcome is what became of a request that a [Gate] let through.
type Outcome struct {
	Err  error     // nil, an [Error], or one that wraps [ErrUnreachable]
	Date time.Time // when WeChat answered, by its clock; zero if unknown
}

// Client calls the endpoints that issue tokens, and those about authorizers. It
// stores no tokens and never repeats a request. Its errors contain no URL and
// no secret. It is safe for concurrent use.
type Client struct {
	base string
	http *http.Client
	gate Gate // may be nil
}

const (
	// answerLimit bounds how much of a response is read, in bytes.
	answerLimit = 1 << 20

	// idleTimeout is below the 20 s after which WeChat closes idle connections.
	idleTimeout = 12 * time.Second

	// callTimeout bounds one call if its context does not end earlier.
	callTimeout = 10 * time.Second
)

// NewClient returns a client for WeChat's base URL, such as
// https://api.weixin.qq.com. roots are the CAs it trusts, nil for the system's.
func NewClient(upstream string, roots *x509.CertPool) *Client {
	// HTTP/1.1 only: whether WeChat's HTTP/2 works well is not known.
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
			// A redirect would send the credentials elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// WithGate returns a client that shares the connections of c and asks g before
// each request.
func (c *Client) WithGate(g Gate) *Client {
	gated := *c
	gated.gate = g
	return &gated
}

// Close closes idle connections. The client can still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ComponentToken fetches a new component_access_token
// (doc/oplatform/openApi/ticket-token/api_getcomponentaccesstoken). The old one
// stays valid for five minutes.
func (c *Client) ComponentToken(
	ctx context.Context, appid string, secret, ticket Secret,
) (Grant, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_component_token", Secret{}, fields{
		"component_appid": appid, "component_appsecret": secret, "component_verify_ticket": ticket,
	}, &a)
	if err == nil && a.ComponentAccessToken == "" {
		err = noToken("component_access_token")
	}
	return Grant{
		Access: NewSecret(a.ComponentAccessToken), Life: a.ExpiresIn.life(), Date: a.date,
	}, err
}

// AuthorizerToken fetches a new access token of an authorizer
// (doc/oplatform/openApi/ticket-token/api_getauthorizeraccesstoken). A refresh
// token in the grant replaces the one given.
func (c *Client) AuthorizerToken(
	ctx context.Context, component string, token Secret, appid string, refresh Secret,
) (Grant, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_authorizer_token", token, fields{
		"component_appid": component, "authorizer_appid": appid, "authorizer_refresh_token": refresh,
	}, &a)
	if err == nil && a.AuthorizerAccessToken == "" {
		err = noToken("authorizer_access_token")
	}
	return Grant{
		AppID:   appid,
		Access:  NewSecret(a.AuthorizerAccessToken),
		Refresh: NewSecret(a.AuthorizerRefreshToken),
		Life:    a.ExpiresIn.life(),
		Date:    a.date,
	}, err
}

// QueryAuth exchanges an authorization code
// (doc/oplatform/openApi/ticket-token/api_getauthorizerrefreshtoken). Both
// tokens are empty if the account has granted no API permission. A code works
// once.
func (c *Client) QueryAuth(
	ctx context.Context, component string, token, code Secret,
) (Grant, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/component/api_query_auth", token, fields{
		"component_appid": component, "authorization_code": code,
	}, &a)
	i := a.AuthorizationInfo
	if err == nil && i.AuthorizerAppID == "" {
		err = noToken("authorizer_appid")
	}
	return Grant{
		AppID:    i.AuthorizerAppID,
		Access:   NewSecret(i.AuthorizerAccessToken),
		Refresh:  NewSecret(i.AuthorizerRefreshToken),
		Life:     i.ExpiresIn.life(),
		FuncInfo: i.FuncInfo,
		Date:     a.date,
	}, err
}

// Ping asks WeChat for any response, without a token. Its error wraps
// [ErrUnreachable] if there is none, or one of a server in front of WeChat.
func (c *Client) Ping(ctx context.Context) error {
	return c.gated(ctx, Call{Endpoint: "ping"}, func() (time.Time, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/", nil)
		if err != nil {
			return time.Time{}, fmt.Errorf("%w: invalid upstream address", ErrUnreachable)
		}
		req.Header.Set("User-Agent", "wxproxy")
		resp, err := c.http.Do(req)
		if err != nil {
			return time.Time{}, fmt.Errorf("%w: %w", ErrUnreachable, withoutURL(err))
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, answerLimit)) // reuse the connection
		date, _ := http.ParseTime(resp.Header.Get("Date"))
		if resp.StatusCode >= http.StatusInternalServerError {
			return date, fmt.Errorf("%w: HTTP status %d", ErrUnreachable, resp.StatusCode)
		}
		return date, nil
	})
}

// StableToken fetches the token of an account by its app secret
// (/cgi-bin/stable_token). Without force, WeChat returns the current token
// until five minutes before it expires. With force it returns a new one, at
// most 20 times a day, and the old one is invalid at once.
func (c *Client) StableToken(
	ctx context.Context, appid string, secret Secret, force bool,
) (Grant, error) {
	var a answer
	err := c.post(ctx, "/cgi-bin/stable_token", Secret{}, fields{
		"grant_type": "client_credential", "appid": appid, "secret": secret, "force_refresh": force,
	}, &a)
	if err == nil && a.AccessToken == "" {
		err = noToken("access_token")
	}
	return Grant{
		AppID: appid, Access: NewSecret(a.AccessToken), Life: a.ExpiresIn.life(), Date: a.date,
	}, err
}

// noToken is the error of a response without errcode and without the field that
// was asked for.
func noToken(field string) error {
	return fmt.Errorf("%w: no %s in its response", ErrUnreachable, field)
}

// answer has the fields of all responses that the client reads.
type answer struct {
	date time.Time // of the response, by WeChat's clock; zero if it has none

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
		UserName string `json:"user_name"`
		Service  struct {
			ID integer `json:"id"`
		} `json:"service_type_info"`
		MiniProgram json.RawMessage `json:"MiniProgramInfo"`
		Channels    json.RawMessage `json:"channels_info"`
		Store       json.RawMessage `json:"store_info"`
		Talent      json.RawMessage `json:"talent_info"`
		Supplier    json.RawMessage `json:"supplier_info"`
	} `json:"authorizer_info"`
	TotalCount *integer `json:"total_count"`
	List       []struct {
		AuthorizerAppID string  `json:"authorizer_appid"`
		RefreshToken    string  `json:"refresh_token"`
		AuthTime        integer `json:"auth_time"`
	} `json:"list"`
}

// integer is a whole number as WeChat writes it: mostly a JSON number, in some
// responses a string with one. Any other value, such as null, counts as absent
// and is 0: a token is good whatever stands beside it.
type integer int64

// maxInteger bounds an integer: no response has more seconds or accounts, and
// as seconds it fits a time.Duration.
const maxInteger = 1 << 32

// UnmarshalJSON implements [json.Unmarshaler]. It returns no error. A fraction
// is cut off, except that a number between 0 and 1 becomes 1.
func (n *integer) UnmarshalJSON(b []byte) error {
	*n = 0
	f, err := strconv.ParseFloat(strings.TrimSpace(strings.Trim(string(b), `"`)), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || math.IsNaN(f) {
		return nil
	}
	f = min(max(f, -maxInteger), maxInteger)
	if *n = integer(f); f > 0 && f < 1 {
		*n = 1
	}
	return nil
}

// seconds returns an expires_in as a duration: the documented one if the
// response has none that is possible, and most at most.
func (n integer) seconds(documented, most time.Duration) time.Duration {
	if n <= 0 {
		return documented
	}
	return min(time.Duration(n)*time.Second, most)
}

// life returns the expires_in of a token, which is 7200 s by the documentation,
// and a day at most.
func (n integer) life() time.Duration { return n.seconds(7200*time.Second, 24*time.Hour) }

// decode decodes a response into out. A field of another type than expected
// counts as absent, because most are of no importance: what a caller needs, it
// finds missing. It returns an error if b is not a JSON object.
func decode(b []byte, out *answer) error {
	err := json.Unmarshal(b, out)
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		return nil // all other fields were decoded
	}
	return err
}

// fields is the JSON object of a request. It can hold secrets.
type fields map[string]any

// appid returns the account whose quota the request uses; see [Call].
func (f fields) appid() string {
	for _, name := range []string{"component_appid", "appid"} {
		if s, ok := f[name].(string); ok {
			return s
		}
	}
	return ""
}

// post passes the gate, sends one request and decodes the response into out.
// The error is the gate's, an [Error], or wraps [ErrUnreachable]. token, if
// any, goes into the query.
func (c *Client) post(
	ctx context.Context, path string, token Secret, in fields, out *answer,
) error {
	call := Call{Endpoint: path[strings.LastIndexByte(path, '/')+1:], AppID: in.appid()}
	return c.gated(ctx, call, func() (time.Time, error) {
		err := c.send(ctx, path, token, in, out)
		return out.date, err
	})
}

// gated passes the gate, if there is one, and calls send, which returns the
// date of WeChat's response.
func (c *Client) gated(ctx context.Context, call Call, send func() (time.Time, error)) error {
	if c.gate == nil {
		_, err := send()
		return err
	}
	leave, err := c.gate.Enter(ctx, call)
	if err != nil {
		return err
	}
	date, err := send()
	leave(Outcome{Err: err, Date: date})
	return err
}

// send is post without the gate.
func (c *Client) send(
	ctx context.Context, path string, token Secret, in fields, out *answer,
) error {
	revealed := make(map[string]any, len(in))
	for k, v := range in {
		if s, ok := v.(Secret); ok {
			v = s.Reveal()
		}
		revealed[k] = v
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // WeChat rejects \u003c on some paths
	if err := enc.Encode(revealed); err != nil {
		return err
	}
	target := c.base + path
	if !token.IsEmpty() {
		target += "?" + AccessToken + "=" + url.QueryEscape(token.Reveal())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, &body)
	if err != nil {
		return fmt.Errorf("%w: invalid upstream address", ErrUnreachable)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "wxproxy")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, withoutURL(err))
	}
	defer resp.Body.Close()
	out.date, _ = http.ParseTime(resp.Header.Get("Date")) // zero if it cannot be read
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	switch {
	case err != nil:
		return fmt.Errorf("%w: reading the response: %w", ErrUnreachable, withoutURL(err))
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%w: HTTP status %d", ErrUnreachable, resp.StatusCode)
	}
	// Nicknames can contain raw control characters, which encoding/json
	// rejects. Between values they are white space anyway.
	for i, ch := range raw {
		if ch < ' ' {
			raw[i] = ' '
		}
	}
	if err := decode(raw, out); err != nil && FindErrCode(raw) == 0 {
		return fmt.Errorf("%w: its response is not JSON", ErrUnreachable)
	}
	if code := FindErrCode(raw); code != 0 {
		return &Error{Code: code, Msg: maskErrMsg(out.ErrMsg, token, in), Date: out.date}
	}
	return nil
}

// withoutURL strips the URL from the errors of net/http, because it contains
// the token.
func withoutURL(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	return err
}

// maskErrMsg returns an errmsg that is safe to log: printable, short, and
// without credentials, should WeChat quote those of the request or others.
func maskErrMsg(msg string, token Secret, in fields) string {
	secrets := []Secret{token}
	for _, v := range in {
		if s, ok := v.(Secret); ok {
			secrets = append(secrets, s)
		}
	}
	return Sanitize(maskSecrets([]byte(msg), redact.Options{Names: true}, secrets...), 200)
}
