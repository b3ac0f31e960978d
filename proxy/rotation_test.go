package proxy_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"testing"
	"time"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// newOrdersKey is the key that the caller orders gets next.
const newOrdersKey = "orders-key_next_0123456789"

// keyed returns a caller that is allowed everything, with these keys.
func keyed(name string, keys ...string) proxy.Caller {
	c := named(name, "")
	c.KeySHA256 = nil
	for _, k := range keys {
		c.KeySHA256 = append(c.KeySHA256, sha256.Sum256([]byte(k)))
	}
	return c
}

// standInText matches a stand-in in any response.
var standInText = regexp.MustCompile(`wxp_[A-Za-z0-9_-]+`)

// rotationConfig is a proxy for the caller orders with these keys. WeChat's
// responses contain a token of account.
func rotationConfig(t *testing.T, up string, keys ...string) proxy.Config {
	t.Helper()
	return proxy.Config{
		Component: component, Upstream: up, Tokens: &fakeTokens{current: "T0"}, StandInKey: key,
		Callers: []proxy.Caller{keyed("orders", keys...), named("stock", stockKey)},
		Exchange: func(context.Context, wechat.Secret) (tokens.Authorization, error) {
			return tokens.Authorization{AppID: account}, nil
		},
	}
}

// waysToFetch are all ways in which a caller gets a stand-in with a key.
var waysToFetch = map[string]func(key, componentStandIn string) string{
	"token, key as secret": func(key, _ string) string {
		return get("/cgi-bin/token?appid=" + account + "&secret=" + key)
	},
	"token, key in header": func(key, _ string) string {
		return get("/cgi-bin/token?appid="+account+"&secret=x", "Authorization: Bearer "+key)
	},
	"token, key in both": func(key, _ string) string {
		return get("/cgi-bin/token?appid="+account+"&secret="+key, "X-Wxproxy-Key: "+key)
	},
	"stable_token": func(key, _ string) string {
		return post("/cgi-bin/stable_token", `{"appid":"`+account+`","secret":"`+key+`"}`)
	},
	"component_token": func(key, _ string) string {
		return post("/cgi-bin/component/api_component_token",
			`{"component_appid":"`+component+`","component_appsecret":"`+key+`"}`)
	},
	"authorizer_token, component's stand-in": func(_, st string) string {
		return post("/cgi-bin/component/api_authorizer_token?component_access_token="+st,
			`{"authorizer_appid":"`+account+`"}`)
	},
	"authorizer_token, key": func(key, _ string) string {
		return post("/cgi-bin/component/api_authorizer_token", `{"authorizer_appid":"`+account+`"}`,
			"Proxy-Authorization: "+basic("x", key))
	},
	"query_auth, component's stand-in": func(_, st string) string {
		return post("/cgi-bin/component/api_query_auth?component_access_token="+st,
			`{"component_appid":"`+component+`","authorization_code":"code"}`)
	},
	"WeChat's response, component's stand-in": func(_, st string) string {
		return post("/cgi-bin/component/api_get_authorizer_info?component_access_token="+st, `{}`)
	},
	"WeChat's response, key": func(key, _ string) string {
		return post("/cgi-bin/component/api_get_authorizer_info", `{}`, "X-Wxproxy-Key: "+key)
	},
}

// TestRemovedKeyEndsItsStandIns checks that a stand-in is valid as long as its
// caller has the key under which it was issued, and no longer: each way to
// fetch one × its key or the other key of the caller removed × after a reload,
// in another process with the new configuration (a replica, or a restart), and
// after the key was added again.
func TestRemovedKeyEndsItsStandIns(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"authorization_info":{"authorizer_appid":"`+account+
			`","authorizer_access_token":"T0"}}`)
	})
	both := rotationConfig(t, up, ordersKey, newOrdersKey)
	p, addr := start(t, up, func(c *proxy.Config) { *c = both })
	_, replica := start(t, up, func(c *proxy.Config) { *c = rotationConfig(t, up, newOrdersKey) })
	fetched := map[string]map[string]string{} // by key, by way
	for _, k := range []string{ordersKey, newOrdersKey} {
		fetched[k] = map[string]string{}
		for name, request := range waysToFetch {
			resp, body := send(t, addr, request(k, fetchComponent(t, addr, k)))
			st := standInText.FindString(body)
			if resp.StatusCode != 200 || st == "" || len(st) > 512 {
				t.Fatalf("%s: got %s %s, want a stand-in", name, resp.Status, body)
			}
			fetched[k][name] = st
		}
	}
	check := func(when, addr string, valid map[string]bool) {
		t.Helper()
		for k, all := range fetched {
			for name, st := range all {
				path := "/cgi-bin/user/info?access_token="
				if name == "component_token" {
					path = "/wxa/gettemplatelist?access_token="
				}
				want := `{"errcode":40001,`
				if valid[k] {
					want = `{"authorization_info"`
				}
				resp, body := send(t, addr, get(path+st))
				what := fmt.Sprintf("%s, %s, key %s", when, name, k)
				checkResponse(t, what, resp, body, 200, want)
			}
		}
	}
	all := map[string]bool{ordersKey: true, newOrdersKey: true}
	check("both keys", addr, all)
	check("replica with the new key", replica, map[string]bool{newOrdersKey: true})
	for _, c := range []struct {
		when  string
		keys  []string
		valid map[string]bool
	}{
		{"the old key removed", []string{newOrdersKey}, map[string]bool{newOrdersKey: true}},
		{"the new key removed", []string{ordersKey}, map[string]bool{ordersKey: true}},
		{"both in the other order", []string{newOrdersKey, ordersKey}, all},
		{"a third key", []string{"third-key_0123456789abc"}, nil},
		{"no key", nil, nil},
	} {
		if err := p.Reconfigure(rotationConfig(t, up, c.keys...)); err != nil {
			t.Fatal(err)
		}
		check(c.when, addr, c.valid)
	}
}

// TestStandInIsIssuedUnderTheKeySent checks under which key a stand-in is
// issued if a request presents more than one credential of its caller: the key
// that it sends, and not the one of the stand-in that it sends, too.
func TestStandInIsIssuedUnderTheKeySent(t *testing.T) {
	up, _ := recordingServer(t)
	config := rotationConfig(t, up, ordersKey, newOrdersKey)
	p, addr := start(t, up, func(c *proxy.Config) { *c = config })
	const path = "/cgi-bin/component/api_authorizer_token?component_access_token="
	old, form := fetchComponent(t, addr, ordersKey), `{"authorizer_appid":"`+account+`"}`
	mine := fetchStandIn(t, addr, post(path+old, form, "X-Wxproxy-Key: "+newOrdersKey))
	if err := p.Reconfigure(rotationConfig(t, up, newOrdersKey)); err != nil {
		t.Fatal(err)
	}
	resp, body := send(t, addr, get("/cgi-bin/user/info?access_token="+mine))
	checkResponse(t, "issued with the new key and an old stand-in", resp, body, 200, "T0")
	resp, body = send(t, addr, post(path+old, form))
	checkResponse(t, "component's stand-in of the old key", resp, body, 503, `{"errcode":-503,`)
}

// TestStandInsOfThePreviousVersion checks that stand-ins without a key id are
// valid until they expire, as long as their caller exists, and that a stand-in
// that is fetched by means of one ends with the caller's first key: caller with
// a key, with another key, without a key × forwarded or for another stand-in.
func TestStandInsOfThePreviousVersion(t *testing.T) {
	up, _ := recordingServer(t)
	p, addr := start(t, up, func(c *proxy.Config) { *c = rotationConfig(t, up, ordersKey) })
	later := time.Now().Add(time.Hour)
	mine, c := forge(1, 1, later, account, "orders"), forge(1, 2, later, component, "orders")
	const path = "/cgi-bin/component/api_authorizer_token?component_access_token="
	child := fetchStandIn(t, addr, post(path+c, `{"authorizer_appid":"`+account+`"}`))
	for _, keys := range [][]string{{ordersKey}, {newOrdersKey, ordersKey}, {newOrdersKey}, nil} {
		if err := p.Reconfigure(rotationConfig(t, up, keys...)); err != nil {
			t.Fatal(err)
		}
		resp, body := send(t, addr, get("/cgi-bin/user/info?access_token="+mine))
		checkResponse(t, fmt.Sprint("the stand-in itself, keys ", keys), resp, body, 200, "T0")
		want := `{"errcode":40001,`
		if len(keys) > 0 && keys[len(keys)-1] == ordersKey {
			want = "T0"
		}
		resp, body = send(t, addr, get("/cgi-bin/user/info?access_token="+child))
		checkResponse(t, fmt.Sprint("fetched with it, keys ", keys), resp, body, 200, want)
	}
	config := rotationConfig(t, up)
	config.Callers = config.Callers[1:]
	if err := p.Reconfigure(config); err != nil {
		t.Fatal(err)
	}
	resp, body := send(t, addr, get("/cgi-bin/user/info?access_token="+mine))
	checkResponse(t, "caller removed", resp, body, 200, `{"errcode":40001,`)
}
