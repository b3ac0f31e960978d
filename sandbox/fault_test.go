package sandbox_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"wxproxy/sandbox"
)

func gunzip(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	must(t, err)
	out, err := io.ReadAll(z)
	must(t, err)
	return out
}

func (wx *env) fault(f sandbox.Fault) int {
	wx.t.Helper()
	id, err := wx.AddFault(f)
	must(wx.t, err)
	return id
}

func TestFaultsMatchAndRunOut(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	access, _ := wx.grant(shop)
	other, _ := wx.grant(mini)
	get := func(token string) response { return wx.get("/cgi-bin/user/get?access_token=" + token) }
	wx.fault(sandbox.Fault{Path: "/cgi-bin/user", Appid: shop, Times: 2, ErrCode: 45009})
	get(other).wantCode(0)
	wx.get("/cgi-bin/menu/get?access_token=" + access).wantCode(46003)
	get(access).wantCode(45009)
	if f := wx.Faults(); len(f) != 1 || f[0].Times != 1 {
		t.Errorf("got faults %+v, want one with a request left", f)
	}
	get(access).wantCode(45009)
	get(access).wantCode(0)

	// A request of the component is about the account that it names.
	wx.fault(sandbox.Fault{Appid: mini, Times: 1, ErrCode: -1})
	wx.renew(shop, wx.AuthorizerRefreshToken(shop), wx.CurrentToken(wx.ComponentAppID())).wantCode(0)
	wx.renew(mini, wx.AuthorizerRefreshToken(mini), wx.CurrentToken(wx.ComponentAppID())).wantCode(-1)

	a, b := wx.fault(sandbox.Fault{ErrCode: 45011}), wx.fault(sandbox.Fault{ErrCode: 50002})
	get(access).wantCode(45011)
	get(access).wantCode(45011)
	if !wx.RemoveFault(a) || wx.RemoveFault(a) {
		t.Error("RemoveFault: want true for a fault that is there, false the second time")
	}
	get(access).wantCode(50002)
	wx.ClearFaults()
	if wx.RemoveFault(b) {
		t.Error("RemoveFault after ClearFaults: got true, want false")
	}
	get(wx.CurrentToken(shop)).wantCode(0)
}

func TestFaultResponses(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	once := func(f sandbox.Fault) response {
		t.Helper()
		f.Times = 1
		wx.fault(f)
		return wx.get("/any/path")
	}
	contains(t, once(sandbox.Fault{ErrCode: 40029, ErrString: true}).body,
		`"errcode":"40029","errmsg":"invalid code rid: `)
	contains(t, once(sandbox.Fault{ErrCode: 77, ErrMsg: "so"}).body, `{"errcode":77,"errmsg":"so rid: `)
	if g := once(sandbox.Fault{Status: 502}); g.status != 502 || g.header.Get("Content-Type") != "text/html" {
		t.Errorf("got HTTP %d %v, want 502 with text/html", g.status, g.header)
	} else {
		contains(t, g.body, "Bad Gateway")
	}
	if g := once(sandbox.Fault{Empty: true}); g.status != 200 || len(g.body) != 0 {
		t.Errorf("got HTTP %d %q, want 200 and an empty body", g.status, g.body)
	}
	if g := once(sandbox.Fault{Body: "\x00{", BodyType: "image/x"}); g.status != 200 ||
		string(g.body) != "\x00{" || g.header.Get("Content-Type") != "image/x" {
		t.Errorf("got HTTP %d %q %v, want 200 and the bytes with their type", g.status, g.body, g.header)
	}
	if g := once(sandbox.Fault{Body: "{}", Status: 503}); g.status != 503 || string(g.body) != "{}" {
		t.Errorf("got HTTP %d %q, want 503 and the body", g.status, g.body)
	}
	if g := once(sandbox.Fault{Body: "{}", Gzip: true}); g.header.Get("Content-Encoding") != "gzip" &&
		string(g.body) != "{}" {
		t.Errorf("got %q, want {}, compressed or decompressed by the transport", g.body)
	}
	if g := once(sandbox.Fault{Chunked: true}); g.code() != 40066 || g.header.Get("Content-Length") != "" {
		t.Errorf("got %q %v, want the real response without Content-Length", g.body, g.header)
	}
	if g := once(sandbox.Fault{Body: strings.Repeat("x", 100),
		Drip: sandbox.Span(time.Millisecond)}); len(g.body) != 100 {
		t.Errorf("drip: got %d bytes, want 100", len(g.body))
	}
	if g := once(sandbox.Fault{Delay: sandbox.Span(time.Millisecond)}); g.code() != 40066 {
		t.Errorf("delay: got %q, want the real response", g.body)
	}
}

func TestFaultGzipIgnoresAcceptEncoding(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	wx.fault(sandbox.Fault{Gzip: true})
	if g := wx.do("GET", "/x", "", "Accept-Encoding",
		"identity"); g.header.Get("Content-Encoding") != "gzip" ||
		!bytes.Contains(gunzip(t, g.body), []byte("40066")) {
		t.Errorf("got %q, want the response compressed", g.body)
	}
}

// The request is carried out although its response never arrives.
func TestFaultBreak(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	_, refresh := wx.grant(shop)
	before := wx.CurrentToken(shop)
	wx.fault(sandbox.Fault{Path: "/cgi-bin/component/", Break: sandbox.BreakBefore, Times: 1})
	body := js("component_appid", wx.ComponentAppID(), "authorizer_appid", shop, "authorizer_refresh_token",
		refresh)
	target := wx.url + "/cgi-bin/component/api_authorizer_token?access_token=" + wx.CurrentToken(wx.ComponentAppID())
	req, err := http.NewRequest("POST", target, strings.NewReader(body))
	must(t, err)
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Errorf("got %s, want a closed connection", resp.Status)
	}
	if wx.CurrentToken(shop) == before {
		t.Error("got the old token, want the request carried out")
	}
	if c := wx.History()[len(wx.History())-1]; c.Status != 0 || c.Fault == 0 {
		t.Errorf("got %+v, want status 0 and the ID of the fault", c)
	}

	wx.fault(sandbox.Fault{Body: strings.Repeat("x", 1000), Break: sandbox.BreakMiddle, Times: 1})
	conn, err := net.Dial("tcp", strings.TrimPrefix(wx.url, "http://"))
	must(t, err)
	defer conn.Close()
	io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	got, err := io.ReadAll(resp.Body)
	if resp.ContentLength != 1000 || len(got) != 500 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %d of %d bytes and %v, want 500 of 1000 and an unexpected EOF", len(got),
			resp.ContentLength, err)
	}
}

// Hold delays the response, not the record: a test sees that the request has
// arrived.
func TestFaultHold(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	wx := newEnv(t, sandbox.Config{Observe: func(sandbox.Call) { close(arrived) }})
	wx.fault(sandbox.Fault{Path: "/held", Hold: release, Times: 1})
	answered := make(chan response, 1)
	go func() { answered <- wx.get("/held") }()
	<-arrived
	select {
	case <-answered:
		t.Error("got a response before the fault released it")
	default:
	}
	if n := wx.Count("/held"); n != 1 {
		t.Errorf("got %d requests in the history, want 1", n)
	}
	close(release)
	if g := <-answered; g.code() != 40066 {
		t.Errorf("released: got %s, want errcode 40066", g.body)
	}
}

func TestAddFaultRejectsContradictions(t *testing.T) {
	wx := newEnv(t, sandbox.Config{})
	for _, f := range []sandbox.Fault{
		{}, {Times: 3}, {ErrCode: 1, Status: 500}, {ErrCode: 1, Empty: true}, {Empty: true,
			Body: "x"}, {Status: 99}, {Status: 600},
		{Break: "later"}, {ErrCode: 1, Times: -1}, {Delay: -1}, {Drip: -1}, {Status: 500,
			ErrMsg: "x"}, {ErrString: true, Empty: true},
	} {
		if _, err := wx.AddFault(f); err == nil {
			t.Errorf("AddFault(%+v): got no error, want one", f)
		}
	}
	if f := wx.Faults(); len(f) != 0 {
		t.Errorf("got faults %+v, want none", f)
	}
}
