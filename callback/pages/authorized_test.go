package pages_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback/pages"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

func TestMerchantComesBack(t *testing.T) {
	v := visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}})
	f := func(query, want string) {
		t.Helper()
		r := v.comeBack(v.open(query))
		if r.status != http.StatusSeeOther || r.header.Get("Location") != want || r.body != "" {
			t.Errorf("%s: %d %q, want %q", query, r.status, r.header.Get("Location"), want)
		}
		if r.header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("the address, code and all, is told to the shop: %v", r.header)
		}
		v.clock.forward(time.Hour)
	}
	const back = "&return_to=https%3A%2F%2Fshop.example.com%2Fdone"
	f("?type=1"+back, "https://shop.example.com/done?appid="+account)
	f("?state=a%20b%26c%3D%22%E5%95%86%0A"+back, "https://shop.example.com/done?appid="+account+"&state=a+b%26c%3D%22%E5%95%86%0A")
	f("?state=x"+back+"%3Fstep%3D2%26q%3Da%2520b", "https://shop.example.com/done?step=2&q=a%20b&appid="+account+"&state=x")
	f("?state=x"+back+"%3F", "https://shop.example.com/done?appid="+account+"&state=x")
	f("?state=x"+back+"%23%2Froute%3Fa", "https://shop.example.com/done?appid="+account+"&state=x#/route?a")
	f("?return_to=https%3A%2F%2Fshop.example.com", "https://shop.example.com?appid="+account)
	f("?state="+strings.Repeat("%FF", 512)+"&return_to=https://shop.example.com/"+strings.Repeat("a", 900),
		"https://shop.example.com/"+strings.Repeat("a", 900)+"?appid="+account+"&state="+strings.Repeat("%FF", 512))

	// With nowhere to go, the merchant is told.
	v.desk.name = "商店"
	for _, query := range []string{"", "?state=x", "?type=2"} {
		r := v.comeBack(v.open(query), "Accept-Language", "en")
		if p := v.read(r); r.status != 200 || p.title != "Authorized" || !strings.Contains(p.text, account) {
			t.Errorf("%q: %d %+v", query, r.status, p)
		}
		if r.header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%v", r.header)
		}
	}
	if !strings.Contains(v.logged(), "account="+account) {
		t.Error("not logged")
	}
}

// Without a good s the code counts all the same: losing an authorization would be worse. But nobody is sent anywhere.
func TestForgedPassage(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	v := visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}, StateKey: key})
	const query = "?state=abc&return_to=https%3A%2F%2Fshop.example.com%2Fdone"
	back := v.open(query)
	_, s, _ := strings.Cut(back, "s=")
	stays := func(what, back string) {
		t.Helper()
		v.clock.forward(time.Minute)
		if r := v.comeBack(back); r.status != 200 || r.header.Get("Location") != "" || v.read(r).title != "授权成功" {
			t.Errorf("%s: %d %q", what, r.status, r.header.Get("Location"))
		}
	}
	goes := func(what string, v *visited, back string) {
		t.Helper()
		if r := v.comeBack(back); r.status != 303 {
			t.Errorf("%s: %d", what, r.status)
		}
	}
	goes("as it was made", v, back)
	for i := range len(s) {
		c := byte('A')
		if s[i] == c {
			c = 'B'
		}
		stays(fmt.Sprint("character ", i), "/authorized?s="+s[:i]+string(c)+s[i+1:])
	}
	stays("cut", back[:len(back)-1])
	stays("longer", back+"A")
	stays("padded", back+"=")
	stays("twice", back+"&s="+s)
	stays("empty", "/authorized?s=")
	stays("none", "/authorized")
	stays("huge", "/authorized?s="+strings.Repeat("A", 5000))
	stays("no base64", "/authorized?s=%00%ff")

	// The key is the same in all replicas; a random one is nobody else's, and another component's page is another page.
	goes("another replica", visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}, StateKey: key}), v.open(query))
	stays("a random key", visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}}).open(query))
	other := visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}, StateKey: key, ComponentAppID: "wx0000000000000001"})
	stays("another component", other.open(query))

	back = v.open(query)
	v.clock.forward(4*time.Hour - 2*time.Second)
	goes("just in time", v, back)
	v.clock.forward(2 * time.Second)
	stays("too late", back)

	back = v.open(query)
	v.handler.Reconfigure(pages.Config{ComponentAppID: component, PublicURL: publicURL, ReturnTo: []string{"https://shop.example.com/other"}})
	stays("taken back by the operator", back)
}

// A browser repeats itself: reloads, goes back, restores its windows. The code is exchanged once.
func TestSecondOpening(t *testing.T) {
	v := visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}})
	back := v.open("?return_to=https%3A%2F%2Fshop.example.com%2F")
	for range 30 { // more often than new codes may come
		if r := v.comeBack(back); r.status != 303 {
			t.Fatalf("%d", r.status)
		}
		if r := v.comeBack("/authorized"); r.status != 200 || v.read(r).title != "授权成功" {
			t.Fatalf("%d", r.status)
		}
		if r := v.ask(http.MethodHead, "/authorized?auth_code="+codeInQuery); r.status != 200 || r.body != "" {
			t.Fatalf("HEAD: %d", r.status)
		}
	}
	if _, returned := v.desk.counts(); returned != 1 {
		t.Errorf("exchanged %d times", returned)
	}
	if r := v.get("/authorized?auth_code=another"); r.status != 200 {
		t.Errorf("another code: %d", r.status)
	}
	if _, returned := v.desk.counts(); returned != 2 {
		t.Errorf("exchanged %d times", returned)
	}
}

func TestOpeningsAtOnce(t *testing.T) {
	v := visit(t, pages.Config{})
	arrived, release := make(chan struct{}), make(chan struct{})
	v.desk.exchange = func(_ context.Context, n int, _ string) error {
		if n == 1 {
			close(arrived)
			<-release
			return fmt.Errorf("%w: once", tokens.ErrUnavailable)
		}
		return nil
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	visit := func() {
		wg.Go(func() {
			r := v.comeBack("/authorized")
			mu.Lock()
			defer mu.Unlock()
			statuses[r.status]++
		})
	}
	visit()
	<-arrived
	for range 9 {
		visit()
	}
	close(release)
	wg.Wait()
	// Those that joined the first share its fate; those that came later try again. Then it is done.
	if statuses[200]+statuses[503] != 10 || statuses[503] < 1 {
		t.Errorf("%v", statuses)
	}
	if r := v.comeBack("/authorized"); r.status != 200 {
		t.Errorf("%d: the failure is remembered", r.status)
	}
	if _, returned := v.desk.counts(); returned != 2 {
		t.Errorf("exchanged %d times", returned)
	}
}

func TestExchangeFails(t *testing.T) {
	const (
		reload = "Your authorization is not lost. Reload this page in a minute."
		again  = "authorize again"
	)
	for name, c := range map[string]struct {
		err         error
		status      int
		title, text string
		wayBack     bool
	}{
		"used":        {&wechat.Error{Code: 61009, Msg: "code is invalid"}, 410, "This authorization was used already", again, true},
		"been used":   {&wechat.Error{Code: 40163}, 410, "This authorization was used already", again, true},
		"expired":     {fmt.Errorf("exchange: %w", &wechat.Error{Code: 61010}), 410, "This authorization has expired", again, true},
		"withdrawn":   {tokens.ErrRevoked, 409, "The authorization was withdrawn", again, true},
		"not ours":    {&wechat.Error{Code: 61003}, 409, "The authorization was withdrawn", again, true},
		"overtaken":   {tokens.ErrStale, 409, "The authorization was withdrawn", again, true},
		"bound":       {&wechat.Error{Code: 61018}, 409, "This account is connected already", "nothing left to do", false},
		"frozen":      {&wechat.Error{Code: 50002, Msg: "user limited"}, 409, "This account is restricted", again, true},
		"unreachable": {fmt.Errorf("%w: connection refused", wechat.ErrUnreachable), 502, "WeChat cannot be reached right now", reload, false},
		"late":        {context.DeadlineExceeded, 504, "WeChat cannot be reached right now", reload, false},
		"no ticket":   {tokens.ErrNoTicket, 503, "WeChat cannot be reached right now", reload, false},
		"unavailable": {tokens.ErrUnavailable, 503, "WeChat cannot be reached right now", reload, false},
		"stopping":    {tokens.ErrClosed, 503, "WeChat cannot be reached right now", reload, false},
		"busy":        {&wechat.Error{Code: -1}, 503, "WeChat cannot be reached right now", reload, false},
		"refused":     {&wechat.Error{Code: 61004, Msg: "access clientip is not registered"}, 502, "WeChat refused the request", "61004", false},
		"defect":      {errors.New("it quotes " + theCode + " and " + codeInQuery), 500, "Something went wrong", "reload this page", false},
	} {
		t.Run(name, func(t *testing.T) {
			v := visit(t, pages.Config{ReturnTo: []string{"https://shop.example.com/"}})
			v.desk.exchange = func(context.Context, int, string) error { return c.err }
			const query = "?category_ids=1%7C2&return_to=https%3A%2F%2Fshop.example.com%2Fdone&state=a+b&type=2"
			back := v.open(query)
			r := v.comeBack(back, "Accept-Language", "en-GB")
			p := v.read(r)
			if r.status != c.status || p.title != c.title || !strings.Contains(p.text, c.text) || p.lang != "en" {
				t.Errorf("%d %+v", r.status, p)
			}
			if zh := v.read(v.comeBack(back)); zh.lang != "zh-CN" || zh.title == p.title || strings.ContainsAny(zh.title+zh.text, "{}") || strings.ContainsAny(p.text, "{}") {
				t.Errorf("%+v", zh)
			}
			if (r.header.Get("Retry-After") != "") != (c.text == reload) || r.header.Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("%v", r.header)
			}
			if got := p.links[""]; c.wayBack != (got != nil) {
				t.Errorf("the way back: %v", got)
			} else if c.wayBack && got.String() != "/authorize"+query {
				t.Errorf("the way back: %s, want %s", got, query)
			}
			if !strings.Contains(v.logged(), "could not be exchanged") {
				t.Error("not logged")
			}
			// The next one is a new try.
			v.desk.exchange = nil
			if r := v.comeBack(back); r.status != 303 {
				t.Errorf("afterwards: %d", r.status)
			}
		})
	}
}

func TestNoCodeComesBack(t *testing.T) {
	v := visit(t, pages.Config{})
	for _, query := range []string{"", "?", "?auth_code=", "?auth_code=a&auth_code=b", "?auth_code=a%20b", "?auth_code=%00", "?auth_code=%E5%95%86", "?auth_code=" + strings.Repeat("a", 513), "?" + strings.Repeat("a", 7000)} {
		r := v.get("/authorized" + query)
		if p := v.read(r); r.status != 400 || p.title != "没有收到授权" || p.links[""].String() != "/authorize" {
			t.Errorf("%.30s: %d %+v", query, r.status, p)
		}
	}
	if _, returned := v.desk.counts(); returned != 0 {
		t.Errorf("%d exchanges", returned)
	}
}

// Made-up codes cost calls at WeChat, and are limited like the page itself; reloading is not.
func TestExchangesAreLimited(t *testing.T) {
	v := visit(t, pages.Config{})
	v.desk.exchange = func(_ context.Context, _ int, code string) error {
		if code == theCode {
			return nil
		}
		return &wechat.Error{Code: 61009}
	}
	if r := v.comeBack("/authorized"); r.status != 200 {
		t.Fatal(r.status)
	}
	var last reply
	for i := range 25 {
		last = v.get(fmt.Sprintf("/authorized?auth_code=%d", i))
	}
	if _, returned := v.desk.counts(); last.status != 429 || last.header.Get("Retry-After") == "" || returned != 20 {
		t.Errorf("%d, %d exchanges", last.status, returned)
	}
	if r := v.comeBack("/authorized"); r.status != 200 {
		t.Errorf("reloading: %d", r.status)
	}
	if r := v.get("/authorize"); r.status != 200 { // another purse
		t.Errorf("the page: %d", r.status)
	}
	if r := v.get("/authorized?auth_code=x", "X-Forwarded-For", "203.0.113.9"); r.status != 410 {
		t.Errorf("another client: %d", r.status)
	}
}

// A merchant who closes the window has consented all the same.
func TestHungUpMerchantIsAuthorized(t *testing.T) {
	v := visit(t, pages.Config{})
	arrived, closed, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	v.desk.exchange = func(ctx context.Context, _ int, _ string) error {
		close(arrived)
		<-closed
		_, bounded := ctx.Deadline()
		if err := ctx.Err(); err != nil || !bounded {
			result <- fmt.Errorf("%v, bounded %v", err, bounded)
		}
		result <- nil
		return nil
	}
	conn := v.dial()
	fmt.Fprintf(conn, "GET /authorized?auth_code=%s HTTP/1.1\r\nHost: a\r\n\r\n", codeInQuery)
	<-arrived
	conn.Close()
	close(closed)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

// A panic is not remembered as the code's result: the next request tries again.
func TestPanickingExchangeIsRetried(t *testing.T) {
	v := visit(t, pages.Config{})
	v.desk.exchange = func(_ context.Context, n int, _ string) error {
		if n == 1 {
			panic(theCode)
		}
		return nil
	}
	const path = "/authorized?auth_code=" + codeInQuery
	if resp, err := http.Get("http://" + v.addr + path); err == nil { // net/http closes the connection
		resp.Body.Close()
		t.Errorf("got status %d, want a closed connection", resp.StatusCode)
	}
	if r := v.get(path); r.status != 200 {
		t.Errorf("after the panic: got status %d, want 200", r.status)
	}
}
