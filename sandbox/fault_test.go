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

func (w *world) fault(f sandbox.Fault) int {
	w.t.Helper()
	id, err := w.AddFault(f)
	must(w.t, err)
	return id
}

func TestFaultsMatchAndEnd(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	access, _ := w.grant(shop)
	other, _ := w.grant(mini)
	get := func(token string) got { return w.get("/cgi-bin/user/get?access_token=" + token) }
	w.fault(sandbox.Fault{Path: "/cgi-bin/user", Appid: shop, Times: 2, ErrCode: 45009})
	get(other).want(0)
	w.get("/cgi-bin/menu/get?access_token=" + access).want(46003)
	get(access).want(45009)
	if f := w.Faults(); len(f) != 1 || f[0].Times != 1 {
		t.Errorf("left: %+v", f)
	}
	get(access).want(45009)
	get(access).want(0)

	// The account that a component's call is about counts as well.
	w.fault(sandbox.Fault{Appid: mini, Times: 1, ErrCode: -1})
	w.renew(shop, w.AuthorizerRefreshToken(shop), w.CurrentToken(w.ComponentAppID())).want(0)
	w.renew(mini, w.AuthorizerRefreshToken(mini), w.CurrentToken(w.ComponentAppID())).want(-1)

	a, b := w.fault(sandbox.Fault{ErrCode: 45011}), w.fault(sandbox.Fault{ErrCode: 50002})
	get(access).want(45011)
	get(access).want(45011)
	if !w.RemoveFault(a) || w.RemoveFault(a) {
		t.Error("RemoveFault")
	}
	get(access).want(50002)
	w.ClearFaults()
	if w.RemoveFault(b) {
		t.Error("ClearFaults left one")
	}
	get(w.CurrentToken(shop)).want(0)
}

func TestFaultAnswers(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	once := func(f sandbox.Fault) got {
		t.Helper()
		f.Times = 1
		w.fault(f)
		return w.get("/any/path")
	}
	contains(t, once(sandbox.Fault{ErrCode: 40029, ErrString: true}).body, `"errcode":"40029","errmsg":"invalid code rid: `)
	contains(t, once(sandbox.Fault{ErrCode: 77, ErrMsg: "so"}).body, `{"errcode":77,"errmsg":"so rid: `)
	if g := once(sandbox.Fault{Status: 502}); g.status != 502 || g.header.Get("Content-Type") != "text/html" {
		t.Errorf("%d %v", g.status, g.header)
	} else {
		contains(t, g.body, "Bad Gateway")
	}
	if g := once(sandbox.Fault{Empty: true}); g.status != 200 || len(g.body) != 0 {
		t.Errorf("%d %q", g.status, g.body)
	}
	if g := once(sandbox.Fault{Body: "\x00{", BodyType: "image/x"}); g.status != 200 || string(g.body) != "\x00{" || g.header.Get("Content-Type") != "image/x" {
		t.Errorf("%d %q %v", g.status, g.body, g.header)
	}
	if g := once(sandbox.Fault{Body: "{}", Status: 503}); g.status != 503 || string(g.body) != "{}" {
		t.Errorf("%d %q", g.status, g.body)
	}
	if g := once(sandbox.Fault{Body: "{}", Gzip: true}); g.header.Get("Content-Encoding") != "gzip" && string(g.body) != "{}" {
		t.Errorf("%q", g.body) // the transport may have unpacked it
	}
	if g := once(sandbox.Fault{Chunked: true}); g.code() != 40066 || g.header.Get("Content-Length") != "" {
		t.Errorf("%q %v", g.body, g.header)
	}
	if g := once(sandbox.Fault{Body: strings.Repeat("x", 100), Drip: sandbox.Span(time.Millisecond)}); len(g.body) != 100 {
		t.Errorf("%q", g.body)
	}
	if g := once(sandbox.Fault{Delay: sandbox.Span(time.Millisecond)}); g.code() != 40066 {
		t.Errorf("%q", g.body)
	}
}

func TestFaultGzipWhetherAskedForOrNot(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	w.fault(sandbox.Fault{Gzip: true})
	if g := w.do("GET", "/x", "", "Accept-Encoding", "identity"); g.header.Get("Content-Encoding") != "gzip" || !bytes.Contains(gunzip(t, g.body), []byte("40066")) {
		t.Errorf("%q", g.body)
	}
}

// The call was carried out, and its answer never arrived.
func TestBreakingOff(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	_, refresh := w.grant(shop)
	before := w.CurrentToken(shop)
	w.fault(sandbox.Fault{Path: "/cgi-bin/component/", Break: sandbox.BreakBefore, Times: 1})
	body := js("component_appid", w.ComponentAppID(), "authorizer_appid", shop, "authorizer_refresh_token", refresh)
	req, _ := http.NewRequest("POST", w.url+"/cgi-bin/component/api_authorizer_token?access_token="+w.CurrentToken(w.ComponentAppID()), strings.NewReader(body))
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		resp.Body.Close()
		t.Error("answered")
	}
	if w.CurrentToken(shop) == before {
		t.Error("the call was not carried out")
	}
	if c := w.History()[len(w.History())-1]; c.Status != 0 || c.Fault == 0 {
		t.Errorf("%+v", c)
	}

	w.fault(sandbox.Fault{Body: strings.Repeat("x", 1000), Break: sandbox.BreakMiddle, Times: 1})
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	must(t, err)
	defer conn.Close()
	io.WriteString(conn, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	got, err := io.ReadAll(resp.Body)
	if resp.ContentLength != 1000 || len(got) != 500 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d of %d bytes, %v", len(got), resp.ContentLength, err)
	}
}

// Hold keeps the answer, not the record: a test sees that the call has arrived.
func TestHold(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, sandbox.Config{Observe: func(sandbox.Call) { close(arrived) }})
	w.fault(sandbox.Fault{Path: "/held", Hold: release, Times: 1})
	answered := make(chan got, 1)
	go func() { answered <- w.get("/held") }()
	<-arrived
	select {
	case <-answered:
		t.Error("answered too early")
	default:
	}
	if w.Count("/held") != 1 {
		t.Error("not in the history")
	}
	close(release)
	if g := <-answered; g.code() != 40066 {
		t.Errorf("%s", g.body)
	}
}

func TestFaultsThatMakeNoSense(t *testing.T) {
	w := newWorld(t, sandbox.Config{})
	for _, f := range []sandbox.Fault{
		{}, {Times: 3}, {ErrCode: 1, Status: 500}, {ErrCode: 1, Empty: true}, {Empty: true, Body: "x"}, {Status: 99}, {Status: 600},
		{Break: "later"}, {ErrCode: 1, Times: -1}, {Delay: -1}, {Drip: -1}, {Status: 500, ErrMsg: "x"}, {ErrString: true, Empty: true},
	} {
		if _, err := w.AddFault(f); err == nil {
			t.Errorf("accepted: %+v", f)
		}
	}
	if len(w.Faults()) != 0 {
		t.Error("kept one of them")
	}
}
