package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"wxproxy/callback"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// authorizations does what the authorisation pages need with what the broker has so far: a code that comes with a
// merchant's browser is waited for until it has come as a push too, and the account serves.
type authorizations struct {
	*tokens.Broker
	upstream string
	client   *http.Client

	mu     sync.Mutex
	pushed map[string]string // fingerprint of a code → appid
}

// authorizationsOf prefers the broker's own.
func authorizationsOf(b *tokens.Broker, cfg config, p parts) (callback.Authorizations, callback.Accounts) {
	if own, ok := any(b).(callback.Authorizations); ok {
		return own, b
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	if p.roots != nil {
		t.TLSClientConfig.RootCAs = p.roots
	}
	a := &authorizations{Broker: b, upstream: cfg.Proxy.Upstream, client: &http.Client{Transport: t}, pushed: make(map[string]string)}
	return a, a
}

func (a *authorizations) PreAuthCode(ctx context.Context) (code wechat.Secret, life time.Duration, err error) {
	component := a.Component()
	token, err := a.Token(ctx, component)
	if err != nil {
		return code, 0, err
	}
	body, _ := json.Marshal(map[string]string{"component_appid": component})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.upstream+"/cgi-bin/component/api_create_preauthcode?access_token="+url.QueryEscape(token.Value.Reveal()), bytes.NewReader(body))
	if err != nil {
		return code, 0, wechat.ErrUnreachable
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return code, 0, wechat.ErrUnreachable // err quotes the address
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var in struct {
		Code string `json:"pre_auth_code"`
		Life int    `json:"expires_in"`
	}
	if n := wechat.FindErrCode(raw); n != 0 {
		return code, 0, &wechat.Error{Code: n}
	}
	if err != nil || json.Unmarshal(raw, &in) != nil || in.Code == "" {
		return code, 0, wechat.ErrUnreachable
	}
	return wechat.NewSecret(in.Code), time.Duration(in.Life) * time.Second, nil
}

func (a *authorizations) Authorize(ctx context.Context, appid string, code wechat.Secret, expires, created time.Time) error {
	err := a.Broker.Authorize(ctx, appid, code, expires, created)
	if err == nil {
		a.mu.Lock()
		a.pushed[code.Fingerprint()] = appid
		a.mu.Unlock()
	}
	return err
}

func (a *authorizations) Exchange(ctx context.Context, code wechat.Secret) (tokens.Authorization, error) {
	for {
		a.mu.Lock()
		appid := a.pushed[code.Fingerprint()]
		a.mu.Unlock()
		if appid != "" {
			_, err := a.Token(ctx, appid)
			return tokens.Authorization{AppID: appid}, err
		}
		select {
		case <-ctx.Done():
			return tokens.Authorization{}, fmt.Errorf("%w: the code was not pushed", tokens.ErrUnavailable)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
