package pages_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback/pages"
	"wxproxy/internal/returnticket"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

func TestMerchantIsRedirected(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{shop}})
	const done, target = "&return_to=https%3A%2F%2Fshop.example.com%2Fdone", "https://shop.example.com/done"
	long := strings.Repeat("a", 900)
	for _, tc := range []struct{ query, location string }{
		{"?type=1" + done, target + "?appid=" + account},
		{
			"?state=a%20b%26c%3D%22%E5%95%86%0A" + done,
			target + "?appid=" + account + "&state=a+b%26c%3D%22%E5%95%86%0A",
		},
		{"?state=x" + done + "%3Fstep%3D2%26q%3Da%2520b", target + "?step=2&q=a%20b&appid=" + account + "&state=x"},
		{"?state=x" + done + "%3F", target + "?appid=" + account + "&state=x"},
		{"?state=x" + done + "%3Fstep%3D2%26", target + "?step=2&appid=" + account + "&state=x"},
		{"?state=x" + done + "%23%2Froute%3Fa", target + "?appid=" + account + "&state=x#/route?a"},
		{"?return_to=https%3A%2F%2Fshop.example.com", "https://shop.example.com?appid=" + account},
		{
			"?state=" + rep("%FF", 512) + "&return_to=" + shop + long,
			shop + long + "?appid=" + account + "&state=" + rep("%FF", 512),
		},
	} {
		r := w.consent(w.open(tc.query))
		if got := r.header.Get("Location"); r.status != http.StatusSeeOther || got != tc.location ||
			r.body != "" {
			t.Errorf("%s: got status %d and Location %q, want 303 and %q",
				tc.query, r.status, got, tc.location)
		}
		if got := r.header.Get("Content-Type"); got != "" {
			t.Errorf("%s: got Content-Type %q without a body, want none", tc.query, got)
		}
		// The address contains the code.
		if got := r.header.Get("Referrer-Policy"); got != "no-referrer" {
			t.Errorf("%s: got Referrer-Policy %q, want no-referrer", tc.query, got)
		}
		w.clock.advance(time.Hour) // so that no limit is reached
	}
	if !strings.Contains(w.log.String(), "account="+account) {
		t.Errorf("got log\n%s\nwant the account in it", w.log)
	}
}

// The address that a merchant is redirected to has a ticket for the account and
// the state of the link, on each return a new one. It is valid for the
// component and the key only.
func TestRedirectHasTicket(t *testing.T) {
	tickets := returnticket.NewSigner(bytes.Repeat([]byte{1}, 32))
	w := start(t, pages.Config{ReturnTo: []string{shop}, Tickets: tickets})
	claimed := map[string]bool{}
	redeemer := returnticket.Redeemer{
		Signer: tickets, Component: component, Now: w.clock.now,
		Claim: func(_ context.Context, key string, _ time.Time) (bool, error) {
			first := !claimed[key]
			claimed[key] = true
			return first, nil
		},
	}
	permit := func(string) error { return nil }
	const target = "?return_to=https%3A%2F%2Fshop.example.com%2F%3Fa%3Db%23c&state="
	for _, state := range []string{"", "s", "a b&ticket=x\r\n商\xff", strings.Repeat("\xff", 512)} {
		w.clock.advance(time.Hour)
		uri := w.open(target + url.QueryEscape(state))
		for range 2 {
			r := w.consent(uri)
			to, err := url.Parse(r.header.Get("Location"))
			if err != nil || to.Fragment != "c" || to.Query().Get("a") != "b" || r.body != "" {
				t.Fatalf("state %q: got Location %v, error %v, body %q", state, to, err, r.body)
			}
			got, err := redeemer.Redeem(t.Context(), to.Query().Get("ticket"), permit)
			want := returnticket.Authorization{AppID: account, State: state, At: w.exchanger.at}
			if err != nil || got != want {
				t.Errorf("state %q: got %+v, error %v, want %+v", state, got, err, want)
			}
		}
		if len(claimed) == 0 || len(claimed)%2 != 0 {
			t.Errorf("state %q: got %d different tickets, want two each", state, len(claimed))
		}
	}
	if strings.Contains(w.log.String(), "ticket") {
		t.Errorf("got log\n%s\nwant no ticket in it", w.log)
	}
}

func TestMerchantWithoutReturnToSeesSuccess(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{shop}})
	w.exchanger.name = "商店"
	for _, query := range []string{"", "?state=x", "?type=2"} {
		r := w.consent(w.open(query), "Accept-Language", "en")
		p := w.parse(r)
		if r.status != 200 || p.title != "Authorized" || !strings.Contains(p.text, account) ||
			!strings.Contains(p.text, "商店") {
			t.Errorf("%q: got status %d and page %+v, want the success page with the account",
				query, r.status, p)
		}
		if got := r.header.Get("Referrer-Policy"); got != "no-referrer" {
			t.Errorf("%q: got Referrer-Policy %q, want no-referrer", query, got)
		}
	}
}

// wantRedirect returns with a state that must lead to a redirect.
func (w *env) wantRedirect(what, redirectURI string) {
	w.t.Helper()
	if r := w.consent(redirectURI); r.status != http.StatusSeeOther {
		w.t.Errorf("%s: got status %d, want 303", what, r.status)
	}
}

// wantSuccessPage returns with a state that must not lead to a redirect,
// although the code is exchanged.
func (w *env) wantSuccessPage(what, redirectURI string) {
	w.t.Helper()
	w.clock.advance(time.Minute)
	r := w.consent(redirectURI)
	if location := r.header.Get("Location"); r.status != 200 || location != "" || w.parse(r).title != "授权成功" {
		w.t.Errorf("%s: got status %d and Location %q, want the success page", what, r.status, location)
	}
}

func TestForgedStateDoesNotRedirect(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{shop}})
	redirectURI := w.open("?state=abc&return_to=https%3A%2F%2Fshop.example.com%2Fdone")
	_, s, _ := strings.Cut(redirectURI, "s=")
	w.wantRedirect("unchanged", redirectURI)
	for i := range len(s) {
		other := byte('A')
		if s[i] == other {
			other = 'B'
		}
		w.wantSuccessPage(fmt.Sprint("character ", i, " changed"), "/authorized?s="+s[:i]+string(other)+s[i+1:])
	}
	w.wantSuccessPage("cut off", redirectURI[:len(redirectURI)-1])
	w.wantSuccessPage("longer", redirectURI+"A")
	w.wantSuccessPage("padded", redirectURI+"=")
	w.wantSuccessPage("repeated", redirectURI+"&s="+s)
	w.wantSuccessPage("empty", "/authorized?s=")
	w.wantSuccessPage("missing", "/authorized")
	w.wantSuccessPage("too long", "/authorized?s="+rep("A", 5000))
	w.wantSuccessPage("not base64", "/authorized?s=%00%ff")
}

func TestStateIsForOneKeyAndComponent(t *testing.T) {
	c := pages.Config{ReturnTo: []string{shop}, StateKey: bytes.Repeat([]byte{7}, 32)}
	w := start(t, c)
	const query = "?return_to=https%3A%2F%2Fshop.example.com%2Fdone"
	start(t, c).wantRedirect("another replica", w.open(query))
	randomKey := start(t, pages.Config{ReturnTo: []string{shop}})
	w.wantSuccessPage("state of a random key", randomKey.open(query))
	start(t, pages.Config{ReturnTo: []string{shop}}).wantSuccessPage(
		"state of another random key", randomKey.open(query))
	c.ComponentAppID = "wx0000000000000001"
	w.wantSuccessPage("state of another component", start(t, c).open(query))
}

func TestStateExpiresAfterFourHours(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{shop}})
	redirectURI := w.open("?return_to=https%3A%2F%2Fshop.example.com%2Fdone")
	w.clock.advance(4*time.Hour - time.Second)
	w.wantRedirect("after 3:59:59", redirectURI)
	w.clock.advance(time.Second)
	w.wantSuccessPage("after 4:00:00", redirectURI)
}

func TestRemovedReturnToDoesNotRedirect(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{shop}})
	redirectURI := w.open("?return_to=https%3A%2F%2Fshop.example.com%2Fdone")
	w.handler.Reconfigure(pages.Config{
		ComponentAppID: component, PublicURL: publicURL, ReturnTo: []string{shop + "other"},
	})
	w.wantSuccessPage("address removed from return_to", redirectURI)
}

// A browser reloads, goes back and restores its windows. The code is exchanged
// once.
func TestReloadedPageExchangesOnce(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{shop}})
	redirectURI := w.open("?return_to=https%3A%2F%2Fshop.example.com%2F")
	for range 30 { // more than the limit for new codes
		w.wantRedirect("reloaded", redirectURI)
		if r := w.request(http.MethodHead, "/authorized?auth_code="+codeInQuery); r.status != 200 ||
			r.body != "" {
			t.Fatalf("HEAD: got status %d and body %q, want 200 and no body", r.status, r.body)
		}
	}
	w.wantCalls(1, 1)
	if r := w.get("/authorized?auth_code=another"); r.status != 200 {
		t.Errorf("another code: got status %d, want 200", r.status)
	}
	w.wantCalls(1, 2)
	// Another state shares nothing with the first one: the broker decides.
	w.clock.advance(time.Second)
	other := w.open("?return_to=https%3A%2F%2Fshop.example.com%2F")
	w.exchanger.exchange = func(context.Context, int, string) error {
		return tokens.ErrForeignState
	}
	for _, uri := range []string{other, "/authorized"} {
		r := w.consent(uri, "Accept-Language", "en")
		if p := w.parse(r); r.status != 410 || p.title != "This authorization was already used" {
			t.Errorf("%s: got status %d and page %+v, want 410 and a used code", uri, r.status, p)
		}
	}
	w.wantRedirect("reloaded once more", redirectURI)
	_, s, _ := strings.Cut(redirectURI, "s=")
	_, o, _ := strings.Cut(other, "s=")
	if got, want := w.exchanger.states, []string{s, "", o, ""}; !slices.Equal(got, want) {
		t.Errorf("got states %q with the code, want %q", got, want)
	}
}

func TestConcurrentReturnsExchangeOnce(t *testing.T) {
	w := start(t, pages.Config{})
	arrived, release := make(chan struct{}), make(chan struct{})
	w.exchanger.exchange = func(_ context.Context, n int, _ string) error {
		if n == 1 {
			close(arrived)
			<-release
			return fmt.Errorf("%w: once", tokens.ErrUnavailable)
		}
		return nil
	}
	var requests sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	request := func() {
		requests.Go(func() {
			r := w.consent("/authorized")
			mu.Lock()
			defer mu.Unlock()
			statuses[r.status]++
		})
	}
	request()
	<-arrived
	for range 9 {
		request()
	}
	close(release)
	requests.Wait()
	// Those that waited for the first exchange fail with it. Those that came
	// later share the second one, which succeeds.
	if statuses[200]+statuses[503] != 10 || statuses[503] < 1 {
		t.Errorf("got responses by status %v, want 10 with 200 or 503, and at least one 503", statuses)
	}
	if r := w.consent("/authorized"); r.status != 200 {
		t.Errorf("after the failure: got status %d, want 200", r.status)
	}
	w.wantCalls(0, 2)
}

func TestFailedExchange(t *testing.T) {
	const (
		reload    = "Your authorization is not lost. Reload this page in a minute."
		again     = "authorize again"
		used      = "This authorization was already used"
		revoked   = "The authorization was revoked"
		connected = "This account is already connected"
		frozen    = "This account is restricted"
		notReady  = "WeChat cannot be reached right now"
		query     = "?category_ids=1%7C2&return_to=https%3A%2F%2Fshop.example.com%2Fdone&state=a+b&type=2"
	)
	for name, tc := range map[string]struct {
		err         error
		status      int
		title, text string
		hasLink     bool // back to /authorize
	}{
		"code used":      {&wechat.Error{Code: 61009, Msg: "code is invalid"}, 410, used, again, true},
		"code been used": {&wechat.Error{Code: 40163}, 410, used, again, true},
		"code expired": {fmt.Errorf("exchange: %w",
			&wechat.Error{Code: 61010}), 410, "This authorization has expired", again, true},
		"revoked":        {tokens.ErrRevoked, 409, revoked, again, true},
		"not authorized": {&wechat.Error{Code: 61003}, 409, revoked, again, true},
		"stale":          {tokens.ErrStale, 409, revoked, again, true},
		"confirmed":      {&wechat.Error{Code: 61018}, 409, connected, "nothing left to do", false},
		"frozen":         {&wechat.Error{Code: 50002, Msg: "user limited"}, 409, frozen, again, true},
		"unreachable": {fmt.Errorf("%w: connection refused",
			wechat.ErrUnreachable), 502, notReady, reload, false},
		"timeout":     {context.DeadlineExceeded, 504, notReady, reload, false},
		"no ticket":   {tokens.ErrNoTicket, 503, notReady, reload, false},
		"unavailable": {tokens.ErrUnavailable, 503, notReady, reload, false},
		"stopping":    {tokens.ErrClosed, 503, notReady, reload, false},
		"busy":        {&wechat.Error{Code: -1}, 503, notReady, reload, false},
		"rejected": {
			&wechat.Error{Code: 61004, Msg: "access clientip is not registered"},
			502, "WeChat rejected the request", "61004", false,
		},
		"other error": {
			errors.New("it quotes " + authCode + " and " + codeInQuery),
			500, "Something went wrong", "reload this page", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, pages.Config{ReturnTo: []string{shop}})
			w.exchanger.exchange = func(context.Context, int, string) error { return tc.err }
			redirectURI := w.open(query)
			r := w.consent(redirectURI, "Accept-Language", "en-GB")
			p := w.parse(r)
			if r.status != tc.status || p.lang != "en" || p.title != tc.title ||
				!strings.Contains(p.text, tc.text) {
				t.Errorf("got status %d and page %+v, want %d, title %q and text %q",
					r.status, p, tc.status, tc.title, tc.text)
			}
			zh := w.parse(w.consent(redirectURI))
			if zh.lang != "zh-CN" || zh.title == p.title ||
				strings.ContainsAny(zh.title+zh.text+p.text, "{}") {
				t.Errorf("got Chinese page %+v, want texts of its own, without braces", zh)
			}
			if got, want := r.header.Get("Retry-After") != "", tc.text == reload; got != want {
				t.Errorf("got Retry-After %q, want it set: %v", r.header.Get("Retry-After"), want)
			}
			if got := p.links[""]; tc.hasLink && (got == nil || got.String() != "/authorize"+query) ||
				!tc.hasLink && got != nil {
				t.Errorf("got link %v to try again, want /authorize%s: %v", got, query, tc.hasLink)
			}
			if !strings.Contains(w.log.String(), "exchanging an authorization code failed") {
				t.Errorf("got log\n%s\nwant the failure in it", w.log)
			}
			// A failure is not remembered.
			w.exchanger.exchange = nil
			w.wantRedirect("after the failure", redirectURI)
		})
	}
}

func TestReturnWithoutCode(t *testing.T) {
	w := start(t, pages.Config{})
	for _, query := range []string{
		"", "?", "?auth_code=", "?auth_code=a&auth_code=b",
		"?auth_code=a%20b", "?auth_code=%00", "?auth_code=%E5%95%86",
		"?auth_code=" + rep("a", 513), "?" + rep("a", 7000),
	} {
		r := w.get("/authorized" + query)
		if p := w.parse(r); r.status != 400 || p.title != "没有收到授权" || p.links[""].String() != "/authorize" {
			t.Errorf("%.30s: got status %d and page %+v, want 400 and a link to /authorize",
				query, r.status, p)
		}
	}
	w.wantCalls(0, 0)
	if log := w.log.String(); log != "" {
		t.Errorf("got log\n%s\nwant none, because anyone can send such requests", log)
	}
}

func TestHeadOfReturnExchangesNoCode(t *testing.T) {
	w := start(t, pages.Config{})
	r := w.request(http.MethodHead, "/authorized?auth_code="+codeInQuery)
	if r.status != 200 || r.body != "" {
		t.Errorf("got status %d and body %q, want 200 and no body", r.status, r.body)
	}
	w.wantCalls(0, 0)
}

// Made-up codes cost calls to WeChat, so they are limited like /authorize.
// Reloading the page costs none.
func TestExchangesAreLimited(t *testing.T) {
	w := start(t, pages.Config{})
	w.exchanger.exchange = func(_ context.Context, _ int, code string) error {
		if code == authCode {
			return nil
		}
		return &wechat.Error{Code: 61009}
	}
	w.wantSuccessPage("first return", "/authorized")
	var last response
	for i := range 50 {
		last = w.get(fmt.Sprintf("/authorized?auth_code=%d", i))
	}
	if last.status != 429 || last.header.Get("Retry-After") == "" {
		t.Errorf("made-up code: got status %d and Retry-After %q, want 429 and a time",
			last.status, last.header.Get("Retry-After"))
	}
	w.wantCalls(0, 5)
	if r := w.consent("/authorized"); r.status != 200 {
		t.Errorf("reloaded: got status %d, want 200", r.status)
	}
	if r := w.get("/authorize"); r.status != 200 { // has a limit of its own
		t.Errorf("/authorize: got status %d, want 200", r.status)
	}
	if r := w.get("/authorized?auth_code=x", "X-Forwarded-For", "203.0.113.9"); r.status != 410 {
		t.Errorf("another client: got status %d, want 410", r.status)
	}
}

// Returns with a valid state, and codes that were pushed, are not counted, even
// after 100 clients have used up what there is for made-up codes. One state
// brings three rejected codes at most before it counts like none: one after
// another and all at once.
func TestValidStatesAreNotCounted(t *testing.T) {
	w := start(t, pages.Config{ReturnTo: []string{shop}})
	const pushed, query = "pushed", "?return_to=https%3A%2F%2Fshop.example.com%2F"
	w.exchanger.known = map[string]bool{pushed: true}
	junk := func(uri string, client, n int) response {
		return w.get(fmt.Sprintf("%s&auth_code=junk-%d-%d", uri, client, n),
			"X-Forwarded-For", fmt.Sprintf("198.51.100.%d", client))
	}
	w.exchanger.exchange = func(_ context.Context, _ int, code string) error {
		if strings.HasPrefix(code, "junk") {
			return &wechat.Error{Code: 61009}
		}
		return nil
	}
	for client := range 100 {
		for n := range 5 {
			junk("/authorized?", client, n)
		}
	}
	if r := junk("/authorized?", 101, 0); r.status != 429 {
		t.Fatalf("made-up code of a new client: got status %d, want 429", r.status)
	}
	flood := func(n int) response { return junk(w.open(query), 1, n) }
	for n := range 15 { // from the same address, too
		if r := flood(n); r.status != 410 {
			t.Errorf("rejected code %d, with its own state: got status %d, want 410", n, r.status)
		}
		w.clock.advance(time.Second) // another second, another state
	}
	w.wantRedirect("valid state", w.open(query))
	if r := w.get("/authorized?auth_code=" + pushed); r.status != 200 {
		t.Errorf("pushed code without a state: got status %d, want 200", r.status)
	}
	one := w.open(query)
	for n := range 3 {
		if r := junk(one, 2, 10+n); r.status != 410 {
			t.Errorf("rejected code %d of one state: got status %d, want 410", n, r.status)
		}
	}
	if r := junk(one, 2, 20); r.status != 429 {
		t.Errorf("rejected code 4 of one state: got status %d, want 429", r.status)
	}

	// Failures that are not the code's cost no attempt.
	w.clock.advance(time.Second)
	one = w.open(query)
	rejects := w.exchanger.exchange
	w.exchanger.exchange = func(context.Context, int, string) error { return wechat.ErrUnreachable }
	for n := range 10 {
		if r := junk(one, 3, n); r.status != 502 {
			t.Errorf("WeChat is unreachable, code %d: got status %d, want 502", n, r.status)
		}
	}
	// At once: three of them reach WeChat.
	w.exchanger.mu.Lock()
	w.exchanger.exchange = rejects
	before := w.exchanger.returned
	w.exchanger.mu.Unlock()
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() { junk(one, 3, 100+n) })
	}
	all.Wait()
	if got := w.exchanger.returned - before; got != 3 {
		t.Errorf("20 codes of one state at once: got %d exchanges, want 3", got)
	}
}

// Each request of a page is counted once, by its result.
func TestPagesAreObserved(t *testing.T) {
	var mu sync.Mutex
	got := map[string]int{}
	w := start(t, pages.Config{Observe: func(page, result string) {
		mu.Lock()
		defer mu.Unlock()
		got[page+" "+result]++
	}})
	w.exchanger.exchange = func(_ context.Context, _ int, code string) error {
		if code == "junk" {
			return &wechat.Error{Code: 61009}
		}
		return nil
	}
	for range 21 {
		w.get("/authorize")
	}
	w.get("/authorize?type=9")
	w.request(http.MethodHead, "/authorize")
	w.get("/authorize", "Sec-Purpose", "prefetch")
	w.exchanger.preAuth = func() error { return tokens.ErrUnavailable }
	w.get("/authorize", "X-Forwarded-For", "203.0.113.9")
	w.consent("/authorized")
	w.request(http.MethodHead, "/authorized")
	w.get("/authorized")
	for range 6 {
		w.get("/authorized?auth_code=junk")
	}
	want := map[string]int{
		"authorize ok": 20, "authorize limited": 1, "authorize invalid": 1, "authorize robot": 2,
		"authorize failed": 1,
		"authorized ok":    1, "authorized robot": 1, "authorized invalid": 1,
		"authorized rejected": 4, "authorized limited": 2,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A TLS proxy that does not name its clients makes all of them one. The log
// says so when that one reaches its limit.
func TestMissingForwardedForIsLogged(t *testing.T) {
	const warning = "share one limit"
	w := start(t, pages.Config{})
	for range 25 {
		w.get("/authorize", "X-Forwarded-For", "203.0.113.9")
	}
	for range 20 {
		w.get("/authorize")
	}
	if strings.Contains(w.log.String(), warning) {
		t.Errorf("got log\n%s\nwant no warning yet", w.log)
	}
	for range 20 {
		w.get("/authorize")
	}
	if n := strings.Count(w.log.String(), warning); n != 1 {
		t.Errorf("got %d warnings, want 1, in\n%s", n, w.log)
	}
}

// The merchant can close the window after the consent.
func TestExchangeOutlivesTheConnection(t *testing.T) {
	w := start(t, pages.Config{})
	requests := make(chan context.Context, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		requests <- r.Context()
		w.handler.ServeHTTP(rw, r)
	}))
	defer srv.Close()
	w.addr = srv.Listener.Addr().String()

	arrived, result := make(chan struct{}), make(chan error, 1)
	w.exchanger.exchange = func(ctx context.Context, _ int, _ string) error {
		close(arrived)
		<-(<-requests).Done() // net/http has seen the end of the connection
		var err error
		if _, bounded := ctx.Deadline(); ctx.Err() != nil || !bounded {
			err = fmt.Errorf("got context error %v, deadline %v, want none and a deadline",
				ctx.Err(), bounded)
		}
		result <- err
		return nil
	}
	conn := w.dial()
	fmt.Fprintf(conn, "GET /authorized?auth_code=%s HTTP/1.1\r\nHost: a\r\n\r\n", codeInQuery)
	<-arrived
	conn.Close()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestPanickingExchangeIsRetried(t *testing.T) {
	w := start(t, pages.Config{})
	w.exchanger.exchange = func(_ context.Context, n int, _ string) error {
		if n == 1 {
			panic(authCode)
		}
		return nil
	}
	const path = "/authorized?auth_code=" + codeInQuery
	if resp, err := http.Get("http://" + w.addr + path); err == nil { // net/http closes the connection
		resp.Body.Close()
		t.Errorf("got status %d, want a closed connection", resp.StatusCode)
	}
	if r := w.get(path); r.status != 200 {
		t.Errorf("after the panic: got status %d, want 200", r.status)
	}
}
