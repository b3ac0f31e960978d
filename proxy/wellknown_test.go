package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/internal/returnticket"
	"wxproxy/proxy"
	"wxproxy/proxy/standin"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

const authorizationPath = "/.well-known/wxproxy/authorization"

// redemption is a proxy that redeems tickets from a store in memory.
type redemption struct {
	t       *testing.T
	addr    string
	proxy   *proxy.Proxy
	signer  *returnticket.Signer
	sent    func() []string // to WeChat
	mu      sync.Mutex
	at      time.Time
	storeUp bool
	log     strings.Builder // what Watch has seen
}

func newRedemption(t *testing.T, callers ...proxy.Caller) *redemption {
	r := &redemption{
		t: t, signer: returnticket.NewSigner(key), at: time.Unix(1_790_000_000, 0), storeUp: true,
	}
	s := store.NewMemory()
	redeemer := &returnticket.Redeemer{
		Signer: r.signer, Component: component,
		Now: func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.at },
		Claim: func(ctx context.Context, key string, _ time.Time) (bool, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if !r.storeUp {
				return false, errors.New("store is down")
			}
			return s.Claim(ctx, key, time.Now().Add(time.Hour))
		},
	}
	var upstream string
	upstream, r.sent = recordingServer(t)
	r.proxy, r.addr = start(t, upstream, func(c *proxy.Config) {
		withRoutes(c)
		// A route for everything, which must not matter.
		c.Routes = append(c.Routes, wechat.Endpoint{Path: "/*", Need: wechat.NeedNothing})
		c.Callers, c.Redeem, c.StandInKey = callers, redeemer.Redeem, key
		c.Watch = func(call proxy.Call) {
			r.mu.Lock()
			defer r.mu.Unlock()
			fmt.Fprintf(&r.log, "%+v\n", call)
		}
	})
	return r
}

func (r *redemption) setStore(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.storeUp = up
}

// ticket returns a new ticket.
func (r *redemption) ticket(appid, state string) string {
	a := returnticket.Authorization{AppID: appid, State: state, At: r.at.Add(-time.Minute)}
	return r.signer.Issue(component, a, r.at)
}

// want sends a raw request and checks the response.
func (r *redemption) want(raw string, status int, text string) {
	r.t.Helper()
	resp, body := send(r.t, r.addr, raw)
	checkResponse(r.t, raw, resp, body, status, text)
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		r.t.Errorf("%.100s: got Cache-Control %q, want no-store", raw, got)
	}
	if got := resp.Header.Get("X-Wxproxy-Token"); got != "none" {
		r.t.Errorf("%.100s: got X-Wxproxy-Token %q, want none", raw, got)
	}
}

func withKey(key string) string { return "Authorization: Bearer " + key }

// A ticket is redeemed once. Redemptions that are refused (no key, a wrong one,
// method, path, account, a prefix, header or stand-in of another account, the
// store) do not use it up.
func TestTicketIsRedeemedOnce(t *testing.T) {
	orders, stock := named("orders", ordersKey), named("stock", stockKey)
	orders.AppIDs = []string{account}
	stock.AppIDs = []string{other}
	paths := named("paths", "paths-key_0123456789")
	paths.Paths = []string{"/cgi-bin/*"}
	methods := named("methods", "methods-key_0123456789")
	methods.Methods = []string{"POST"}
	all := named("all", "all-key_0123456789")
	r := newRedemption(t, orders, stock, paths, methods, all)
	signer, err := standin.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	standIn := func(appid string) string {
		id := signer.KeyID(all.KeySHA256[0])
		return "&access_token=" + signer.Issue(standin.Account, appid, "all", id, time.Now())
	}

	const state = "a b&\"<商\x00"
	ticket := r.ticket(account, state)
	uri := authorizationPath + "?ticket=" + ticket
	for _, tc := range []struct {
		raw    string
		status int
		text   string
	}{
		{get(uri), 401, `{"errcode":-401,`},
		{get(uri, withKey("wrong")), 401, `{"errcode":-401,`},
		{get(uri, withKey(stockKey)), 403, `caller stock is not allowed to call for ` + account},
		{get(uri, withKey("paths-key_0123456789")), 403, "not allowed to call this path"},
		{get(uri, withKey("methods-key_0123456789")), 403, "not allowed to use method GET"},
		{get("/"+other+uri, withKey("all-key_0123456789")), 400, "another account"},
		{get(uri, withKey("all-key_0123456789"), "X-WX-APPID: "+other), 400, "another account"},
		{get("/"+other+uri, withKey(ordersKey)), 403, "not allowed to call for " + other},
		{get(uri + standIn(other)), 400, "another account"},
		{get(uri+standIn(other), withKey(ordersKey)), 200, `{"errcode":40001,`},
		{get(uri+"&ticket="+ticket, withKey(ordersKey)), 400, "ticket is missing"},
		{get(authorizationPath, withKey(ordersKey)), 400, "ticket is missing"},
		{get(authorizationPath+"?ticket=", withKey(ordersKey)), 400, "ticket is missing"},
		{get(authorizationPath+"?Ticket="+ticket, withKey(ordersKey)), 400, "ticket is missing"},
		{get(authorizationPath+"?ticket="+ticket+"A", withKey(ordersKey)), 400, "not issued here"},
		{get(authorizationPath+"?ticket=%zz", withKey(ordersKey)), 400, "ticket is missing"},
		{post(authorizationPath, "ticket="+ticket, withKey(ordersKey)), 405, "only takes GET"},
		{post(uri, "", withKey(ordersKey)), 405, "only takes GET"},
		{strings.Replace(get(uri, withKey(ordersKey)), "GET", "HEAD", 1), 405, ""},
		{get(uri, "Sec-Fetch-Site: cross-site", withKey(ordersKey)), 403, "web browsers"},
	} {
		r.want(tc.raw, tc.status, tc.text)
	}
	r.setStore(false)
	r.want(get(uri, withKey(ordersKey)), 503, "the store does not respond")
	r.setStore(true)

	resp, body := send(t, r.addr, get("/"+component+uri, withKey(ordersKey)))
	checkResponse(t, "prefix of the component", resp, body, 403, "not allowed to call for ")
	resp, body = send(t, r.addr, get(uri, withKey(ordersKey)))
	var got map[string]string
	want := map[string]string{
		"appid": account, "state": state, "authorized_at": "2026-09-21T14:12:20Z",
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %d %s, error %v, want %q", resp.StatusCode, body, err, want)
	}
	r.want(get(uri, withKey(ordersKey)), 410, "ticket was used")
	r.want(get(uri, withKey(stockKey)), 403, "caller stock is not allowed")

	// Every way of naming the account, and of authenticating.
	fresh := func() string { return authorizationPath + "?a=b&ticket=" + r.ticket(account, "") }
	for _, raw := range []string{
		get("/"+account+fresh(), withKey(ordersKey)),
		get("/"+component+fresh(), withKey("all-key_0123456789")),
		get(fresh(), "X-WX-APPID: "+account, "X-Wxproxy-Key: "+ordersKey),
		get(fresh() + standIn(account)),
		get("http://api.weixin.qq.com"+fresh(), withKey(ordersKey)),
		get(strings.Replace(fresh(), "well", "%77ell", 1), withKey(ordersKey)),
	} {
		r.want(raw, 200, `{"appid":"`+account+`","state":"",`)
	}

	expired := r.ticket(account, "")
	r.mu.Lock()
	r.at = r.at.Add(returnticket.Lifetime)
	r.mu.Unlock()
	r.want(get(authorizationPath+"?ticket="+expired, withKey(ordersKey)), 410, "ticket expired")
	if sent := r.sent(); len(sent) > 0 {
		t.Errorf("got requests to WeChat %q, want none", sent)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.log.String()
	if strings.Contains(seen, ticket[:40]) || !strings.Contains(seen, "AppID:"+account) {
		t.Errorf("got calls\n%s\nwant the account and no ticket", seen)
	}
}

// The rate of a caller counts, and without callers there is no key.
func TestTicketAndLimits(t *testing.T) {
	limited := named("orders", ordersKey)
	limited.Rate, limited.Burst = 1, 1
	r := newRedemption(t, limited)
	ticket := authorizationPath + "?ticket=" + r.ticket(account, "s")
	r.want(get(authorizationPath+"?ticket=x", withKey(ordersKey)), 400, "not issued here")
	r.want(get(ticket, withKey(ordersKey)), 429, "rate limit")

	r = newRedemption(t)
	r.want(strings.Replace(get(authorizationPath+"?ticket="+r.ticket(other, "s")),
		"Host: localhost", "Host: localhost", 1), 200, `{"appid":"`+other+`","state":"s",`)
}

// What is below /.well-known/wxproxy never reaches WeChat: spelling × method ×
// prefix × absolute form, although a [[route]] forwards every path.
func TestOwnPathsAreNotForwarded(t *testing.T) {
	r := newRedemption(t, named("all", ordersKey))
	const folder = "/.well-known/wxproxy"
	for _, path := range []string{
		folder, folder + "/", folder + "/x", folder + "/ca.pemx", folder + "/authorization/",
		folder + "/authorization/x", folder + "/Authorization", folder + "/%61uthorizatio%6E/",
		folder + "/authorization%20", folder + "/authorization.", folder + "/ａuthorization",
		"/.Well-Known/wxproxy/authorization", "/.WELL-KNOWN/WXPROXY/AUTHORIZATION",
		"/.well%2Dknown/wxproxy/x", "/.well-known/%57xproxy", "/%2ewell-known/wxproxy/x",
		"/.well-known%2fwxproxy/x", folder + "%2fauthorization", "/.well-known/./wxproxy/x",
		"/.well-known//wxproxy/x", folder + "/../wxproxy/x", "/x/../.well-known/wxproxy/x",
		`/.well-known\wxproxy/x`, folder + ";a=b/authorization", folder + "/authorization;a",
		"///.well-known/wxproxy/x", folder + "//authorization", folder + "/\u212A",
	} {
		for _, prefix := range []string{
			"", "/", "/" + account, "/" + account + "/", "/" + component,
			"http://api.weixin.qq.com", "http://api.weixin.qq.com/" + account,
		} {
			for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "PROPFIND"} {
				target := prefix + path + "?ticket=x"
				raw := strings.Replace(get(target, withKey(ordersKey)), "GET", method, 1)
				resp, body := send(t, r.addr, raw)
				if s := resp.StatusCode; s != 400 && s != 403 && s != 404 && s != 405 {
					t.Errorf("%s %s: got %d %s, want 400, 403, 404 or 405", method, target, s, body)
				}
				e, err := r.proxy.Explain("", method, strings.TrimSuffix(target, "?ticket=x"))
				if err == nil && e.Forwarded != "" {
					t.Errorf("Explain %s %s: got forwarded to %s", method, target, e.Forwarded)
				}
			}
		}
	}
	if sent := r.sent(); len(sent) > 0 {
		t.Errorf("got requests to WeChat %q, want none", sent)
	}
	for _, path := range []string{"/.well-known/wxproxyx", "/.well-known/other", "/x" + folder + "/x"} {
		before := len(r.sent())
		if send(t, r.addr, get(path, withKey(ordersKey))); len(r.sent()) != before+1 {
			t.Errorf("%s: got no request to WeChat, want it forwarded", path)
		}
	}
	e, err := r.proxy.Explain("", http.MethodGet, authorizationPath)
	if err != nil || !e.Own || e.Credential != "none" || e.Rule != authorizationPath {
		t.Errorf("Explain: got %+v, error %v, want an endpoint of wxproxy's own", e, err)
	}
	if e, _ := r.proxy.Explain("", "POST", authorizationPath); e.Status != 405 {
		t.Errorf("Explain POST: got %+v, want status 405", e)
	}
	if ok, reason := r.proxy.Permission("all", "", "GET", authorizationPath+"?ticket=x"); !ok {
		t.Errorf("Permission: got %s, want it allowed", reason)
	}
}

// Of 50 requests with one ticket at once, one gets the authorization.
func TestConcurrentRequestsRedeemOnce(t *testing.T) {
	r := newRedemption(t, named("all", ordersKey))
	raw := get(authorizationPath+"?ticket="+r.ticket(account, "s"), withKey(ordersKey))
	statuses := make(chan int, 50)
	var all sync.WaitGroup
	for range cap(statuses) {
		all.Go(func() {
			resp, _ := send(t, r.addr, raw)
			statuses <- resp.StatusCode
		})
	}
	all.Wait()
	close(statuses)
	got := map[int]int{}
	for s := range statuses {
		got[s]++
	}
	if got[200] != 1 || got[410] != 49 {
		t.Errorf("got responses by status %v, want one 200 and 49 with 410", got)
	}
}
