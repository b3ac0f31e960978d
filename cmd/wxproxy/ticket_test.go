package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"wxproxy/sandbox"
)

const (
	ticketKey   = "orders-key_0123456789abcdef"
	strangerKey = "stock-key_0123456789abcdef0"
	returnTo    = "http://shop.example.com/back"
)

// withTickets adds to the configuration what a service needs to redeem tickets:
// orders may do so for account A, stock for B.
func (w *testEnv) withTickets() *testEnv {
	w.callbackExtra = fmt.Sprintf("public_url = %q\nreturn_to = [%q]", "http://"+w.callback, returnTo)
	for name, c := range map[string]struct{ key, appid string }{
		"orders": {ticketKey, accountA}, "stock": {strangerKey, accountB},
	} {
		w.blocks += fmt.Sprintf("[[caller]]\nname = %q\nkey_sha256 = \"%x\"\nappids = [%q]\n"+
			"paths = [\"*\"]\nmethods = [\"*\"]\n", name, sha256.Sum256([]byte(c.key)), c.appid)
	}
	return w
}

// noRedirect returns redirects instead of following them.
var noRedirect = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
	return http.ErrUseLastResponse
}}

// fetch sends a request of a browser and returns where the response leads and
// its body.
func (w *testEnv) fetch(req *http.Request, err error) (location, body string) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := noRedirect.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.Header.Get("Location"), string(b)
}

var (
	consentLink = regexp.MustCompile(`href="([^"]*/cgi-bin/componentloginpage[^"]*)"`)
	consentID   = regexp.MustCompile(`name="?login"? value="([^"]*)"`)
)

// consent opens /authorize as a merchant does, consents for appid, and returns
// the address at which the merchant returns to wxproxy.
func (w *testEnv) consent(appid, state string) (authorized string) {
	w.t.Helper()
	_, page := w.fetch(http.NewRequest("GET", "http://"+w.callback+"/authorize?state="+
		url.QueryEscape(state)+"&return_to="+url.QueryEscape(returnTo), nil))
	link := consentLink.FindStringSubmatch(page)
	if link == nil {
		w.t.Fatalf("got no link to WeChat in\n%s", page)
	}
	req, err := http.NewRequest("GET", html.UnescapeString(link[1]), nil)
	req.Header.Set("Referer", "http://"+w.callback+"/") // WeChat checks it
	_, page = w.fetch(req, err)
	id := consentID.FindStringSubmatch(page)
	if id == nil {
		w.t.Fatalf("got no form in\n%s", page)
	}
	req, err = http.NewRequest("POST", html.UnescapeString(link[1]),
		strings.NewReader(url.Values{"login": {html.UnescapeString(id[1])}, "appid": {appid}}.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", w.wxURL)
	authorized, page = w.fetch(req, err)
	if !strings.Contains(authorized, "auth_code=") {
		w.t.Fatalf("got location %q after the consent, want a code in it\n%s", authorized, page)
	}
	return authorized
}

// back returns the query with which a merchant comes back to return_to.
func (w *testEnv) back(authorized string) url.Values {
	w.t.Helper()
	location, page := w.fetch(http.NewRequest("GET", authorized, nil))
	target, err := url.Parse(location)
	if err != nil || !strings.HasPrefix(location, returnTo+"?") {
		w.t.Fatalf("got location %q, want an address below %s\n%s", location, returnTo, page)
	}
	return target.Query()
}

// redeem redeems a ticket with a caller's key.
func (w *testEnv) redeem(ticket, key string) (status int, body string) {
	w.t.Helper()
	req, err := http.NewRequest("GET",
		"http://"+w.proxy+"/.well-known/wxproxy/authorization?ticket="+url.QueryEscape(ticket), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// wantRedeemed redeems a ticket and checks what it says.
func (w *testEnv) wantRedeemed(what, ticket, state string) {
	w.t.Helper()
	status, body := w.redeem(ticket, ticketKey)
	var got struct {
		AppID string    `json:"appid"`
		State string    `json:"state"`
		At    time.Time `json:"authorized_at"`
	}
	err := json.Unmarshal([]byte(body), &got)
	if age := time.Since(got.At); status != 200 || err != nil || got.AppID != accountA ||
		got.State != state || age < -time.Second || age > 10*time.Minute {
		w.t.Errorf("%s: got %d %s, error %v, want %s with state %q, authorized now",
			what, status, body, err, accountA, state)
	}
}

func (w *testEnv) wantRefused(what, ticket, key string, want int) {
	w.t.Helper()
	if status, body := w.redeem(ticket, key); status != want || strings.Contains(body, `"appid"`) {
		w.t.Errorf("%s: got %d %s, want %d", what, status, body, want)
	}
}

// A merchant authorizes and comes back with a ticket, which a service redeems
// once, also after a restart. What other callers try does not use it up. A
// merchant cannot come back with the account of another: not with a used code
// and a state of its own, and not by opening return_to by hand.
func TestServiceRedeemsTicket(t *testing.T) {
	w := newTestEnv(t, sandbox.Config{}).withTickets().start()
	if err := w.wx.PushTicket(t.Context()); err != nil {
		t.Fatal(err)
	}
	const state = "session 1 & \"商\""
	authorized := w.consent(accountA, state)
	first := w.back(authorized)
	if first.Get("appid") != accountA || first.Get("state") != state || len(first) != 3 {
		t.Fatalf("got query %q, want appid, state and ticket", first)
	}
	ticket := first.Get("ticket")
	w.wantRefused("no ticket", "", ticketKey, 400)
	w.wantRefused("shortened", ticket[:len(ticket)-1], ticketKey, 400)
	w.wantRefused("no key", ticket, "", 401)
	w.wantRefused("wrong key", ticket, "wrong-key", 401)
	w.wantRefused("caller of another account", ticket, strangerKey, 403)
	w.wantRedeemed("first redemption", ticket, state)
	w.wantRefused("second redemption", ticket, ticketKey, 410)

	// A reload leads to another ticket, which survives a restart.
	second, third := w.back(authorized).Get("ticket"), w.back(authorized).Get("ticket")
	w.wantRedeemed("ticket of a reload", second, state)

	// Another merchant learns the used code.
	_, query, _ := strings.Cut(authorized, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	own := w.consent(accountB, "session 2")
	ownQuery, _ := url.ParseQuery(own[strings.Index(own, "?")+1:])
	stolen := "http://" + w.callback + "/authorized?s=" + url.QueryEscape(ownQuery.Get("s")) +
		"&auth_code=" + url.QueryEscape(values.Get("auth_code"))
	wantUsed := func(what string) {
		t.Helper()
		location, page := w.fetch(http.NewRequest("GET", stolen, nil))
		if location != "" || !strings.Contains(page, "授权码已使用") {
			t.Errorf("%s: got location %q and\n%s\nwant the code to be used", what, location, page)
		}
	}
	wantUsed("used code with another state")
	if got := w.back(own); got.Get("appid") != accountB || got.Get("state") != "session 2" {
		t.Errorf("got %q for the other merchant, want its own account and state", got)
	}

	w.end(syscall.SIGKILL)
	w.start()
	w.wantRefused("redeemed before the restart", ticket, ticketKey, 410)
	w.wantRedeemed("issued before the restart", third, state)
	w.wantRefused("again after the restart", third, ticketKey, 410)
	wantUsed("used code with another state, after a restart")
	w.wantRedeemed("return after a restart", w.back(authorized).Get("ticket"), state)

	// A ticket of another platform, or another instance.
	other := newTestEnv(t, sandbox.Config{}).withTickets().start()
	other.wantRefused("another instance", w.back(authorized).Get("ticket"), ticketKey, 400)

	w.end(syscall.SIGTERM)
	for _, secret := range []string{ticket, second, third, ticket[:60]} {
		if strings.Contains(w.out.String(), secret) {
			t.Errorf("got a ticket in the log, %.20s…, want none", secret)
		}
	}
}

// Of 50 redemptions at two replicas that share a Redis, one succeeds.
func TestReplicasRedeemOnce(t *testing.T) {
	r := startRedis(t)
	a := newTestEnv(t, sandbox.Config{}).withTickets()
	b := newTestEnv(t, sandbox.Config{}).withTickets()
	a.store, b.store = onRedis(r, "k"), onRedis(r, "k")
	a.start()
	b.start()
	if err := a.wx.PushTicket(t.Context()); err != nil {
		t.Fatal(err)
	}
	authorized := a.consent(accountA, "s")
	for round := range 4 {
		ticket := a.back(authorized).Get("ticket")
		var all sync.WaitGroup
		statuses := make(chan int, 50)
		for n := range cap(statuses) {
			all.Go(func() {
				status, _ := []*testEnv{a, b}[n%2].redeem(ticket, ticketKey)
				statuses <- status
			})
		}
		all.Wait()
		close(statuses)
		got := map[int]int{}
		for s := range statuses {
			got[s]++
		}
		if got[200] != 1 || got[410] != 49 {
			t.Errorf("round %d: got statuses %v, want one 200 and 49 with 410", round, got)
		}
	}
}
