package wechat_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"wxproxy/wechat"
)

// recordingGate notes what passes, and rejects everything while err is set.
type recordingGate struct {
	err      error
	calls    []wechat.Call
	outcomes []wechat.Outcome
}

func (g *recordingGate) Enter(_ context.Context, call wechat.Call) (func(wechat.Outcome), error) {
	g.calls = append(g.calls, call)
	return func(o wechat.Outcome) { g.outcomes = append(g.outcomes, o) }, g.err
}

// Each request passes the gate once, and its outcome says what WeChat answered
// and when: a token, an errcode, no answer. A request that the gate rejects is
// not sent.
func TestGate(t *testing.T) {
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	status, body, sent := http.StatusOK, "", 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent++
		w.Header().Set("Date", date.Format(http.TimeFormat))
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	defer srv.Close()
	g := &recordingGate{}
	c := wechat.NewClient(srv.URL, nil).WithGate(g)
	defer c.Close()
	fetch := func() (wechat.Grant, error) {
		return c.ComponentToken(t.Context(), "wxcccccccccccccccc", wechat.NewSecret("s"), wechat.NewSecret("t"))
	}

	body = `{"component_access_token":"C1","expires_in":7200}`
	if grant, err := fetch(); err != nil || !grant.Date.Equal(date) {
		t.Errorf("with a token: got date %v, error %v, want %v", grant.Date, err, date)
	}
	body = `{"errcode":45009,"errmsg":"quota"}`
	var refused *wechat.Error
	if _, err := fetch(); !errors.As(err, &refused) || !refused.Date.Equal(date) {
		t.Errorf("with an errcode: got error %+v, want one of %v", refused, date)
	}
	status = http.StatusBadGateway
	if _, err := fetch(); !errors.Is(err, wechat.ErrUnreachable) {
		t.Errorf("with HTTP status 502: got error %v, want %v", err, wechat.ErrUnreachable)
	}
	if len(g.outcomes) != 3 || g.outcomes[0].Err != nil || wechat.Code(g.outcomes[1].Err) != 45009 ||
		!errors.Is(g.outcomes[2].Err, wechat.ErrUnreachable) {
		t.Errorf("outcomes: got %v, want a token, errcode 45009, unreachable", g.outcomes)
	}
	for i, o := range g.outcomes {
		if !o.Date.Equal(date) {
			t.Errorf("outcome %d: got date %v, want %v", i, o.Date, date)
		}
	}

	// A ping accepts any response but one of a broken server in between.
	for code, want := range map[int]error{200: nil, 404: nil, 502: wechat.ErrUnreachable} {
		status = code
		if err := c.Ping(t.Context()); !errors.Is(err, want) {
			t.Errorf("Ping with HTTP status %d: got error %v, want %v", code, err, want)
		}
	}
	if n := len(g.calls); g.calls[n-1] != (wechat.Call{Endpoint: "ping"}) || len(g.outcomes) != n {
		t.Errorf("pings: got %d outcomes and call %+v, want %d and ping", len(g.outcomes), g.calls[n-1], n)
	}
	g.calls, g.outcomes, sent = g.calls[:3], g.outcomes[:3], 3

	g.err = errors.New("closed")
	if _, err := fetch(); !errors.Is(err, g.err) {
		t.Errorf("with a closed gate: got error %v, want %v", err, g.err)
	}
	if sent != 3 || len(g.outcomes) != 3 {
		t.Errorf("got %d requests and %d outcomes, want 3 of each", sent, len(g.outcomes))
	}
	want := wechat.Call{Endpoint: "api_component_token", AppID: "wxcccccccccccccccc"}
	for _, call := range g.calls {
		if call != want {
			t.Errorf("call: got %+v, want %+v", call, want)
		}
	}
}
