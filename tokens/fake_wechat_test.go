package tokens_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/wechat"
)

// The accounts of the tests. WeChat knows all but unknownAccount.
const (
	component      = "wxcccccccccccccccc"
	accountA       = "wxaaaaaaaaaaaaaaaa"
	accountB       = "wxbbbbbbbbbbbbbbbb"
	unknownAccount = "wxeeeeeeeeeeeeeeee"
	ownAccount     = "wx00000000000000ff"
)

// fakeWeChat serves WeChat's token endpoints. Tests can count, replace, delay
// and fail its responses. The program as a whole is tested with the sandbox.
type fakeWeChat struct {
	down  atomic.Bool  // all responses are HTTP 502
	date  atomic.Int64 // of all responses, Unix seconds; 0: the real one, noDate: none
	ahead atomic.Int64 // how far the real one is ahead, in nanoseconds

	mu       sync.Mutex
	requests map[string]int // by last path segment, as all maps here
	serial   int            // makes every token a new one
	lifetime float64        // of every token, in seconds
	handlers map[string]handler
	gate     chan struct{}         // if not nil, every response waits until it is closed
	listed   map[string]authorizer // nil: WeChat knows every account, with the refresh token "held"
}

// noDate is a date of responses that have none.
const noDate = -1

// handler returns a response, or false for the usual one.
type handler func(request map[string]any) (response any, ok bool)

// authorizer is an account in WeChat's list.
type authorizer struct {
	refresh string
	time    int64 // of the authorization, Unix seconds
}

func newFakeWeChat(t *testing.T) (*fakeWeChat, *wechat.Client) {
	f := &fakeWeChat{requests: map[string]int{}, lifetime: 7200, handlers: map[string]handler{}}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	c := wechat.NewClient(srv.URL, nil)
	t.Cleanup(c.Close)
	return f, c
}

func (f *fakeWeChat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	date := time.Now().Add(time.Duration(f.ahead.Load()))
	w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
	endpoint := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	var in map[string]any
	json.NewDecoder(r.Body).Decode(&in)
	f.mu.Lock()
	f.requests[endpoint]++
	f.serial++
	serial, handle, gate := f.serial, f.handlers[endpoint], f.gate
	f.mu.Unlock()
	if gate != nil {
		<-gate
	}
	switch date := f.date.Load(); date {
	case 0:
	case noDate:
		w.Header()["Date"] = nil
	default:
		w.Header().Set("Date", time.Unix(date, 0).UTC().Format(http.TimeFormat))
	}
	if f.down.Load() {
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<html>bad gateway</html>")
		return
	}
	if handle != nil {
		if out, ok := handle(in); ok {
			json.NewEncoder(w).Encode(out)
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	json.NewEncoder(w).Encode(f.response(endpoint, in, serial))
}

// response returns the usual response. It requires f.mu.
func (f *fakeWeChat) response(endpoint string, in map[string]any, serial int) map[string]any {
	switch endpoint {
	case "api_component_token":
		return map[string]any{"component_access_token": fmt.Sprintf("C%d", serial), "expires_in": f.lifetime}
	case "api_authorizer_token":
		return map[string]any{
			"authorizer_access_token": fmt.Sprintf("A%d", serial), "expires_in": f.lifetime,
			"authorizer_refresh_token": in["authorizer_refresh_token"],
		}
	case "api_query_auth":
		code := in["authorization_code"].(string) // as codeOf makes them
		appid, _, _ := strings.Cut(code, "@")
		return map[string]any{"authorization_info": map[string]any{
			"authorizer_appid": appid, "expires_in": f.lifetime,
			"authorizer_access_token":  fmt.Sprintf("A%d", serial),
			"authorizer_refresh_token": "refresh@" + code,
		}}
	case "api_get_authorizer_info":
		refresh := "held"
		if a, ok := f.listed[in["authorizer_appid"].(string)]; ok {
			refresh = a.refresh
		} else if f.listed != nil || in["authorizer_appid"] == unknownAccount {
			return errcode(61003)
		}
		return map[string]any{
			"authorization_info": map[string]any{"authorizer_refresh_token": refresh},
			"authorizer_info": map[string]any{
				"nick_name": "店\u202e铺", "MiniProgramInfo": map[string]any{},
				"user_name": "gh_" + in["authorizer_appid"].(string),
			},
		}
	case "api_get_authorizer_list":
		appids := slices.Sorted(maps.Keys(f.listed))
		from, count := int(in["offset"].(float64)), int(in["count"].(float64))
		page := []any{}
		for _, a := range appids[min(from, len(appids)):min(from+count, len(appids))] {
			page = append(page, map[string]any{
				"authorizer_appid": a, "refresh_token": f.listed[a].refresh, "auth_time": f.listed[a].time,
			})
		}
		return map[string]any{"total_count": len(appids), "list": page}
	case "api_create_preauthcode":
		return map[string]any{"pre_auth_code": fmt.Sprintf("preauthcode@@@%d", serial), "expires_in": 600}
	case "stable_token":
		return map[string]any{"access_token": "S" + fmt.Sprint(in["force_refresh"]), "expires_in": f.lifetime}
	}
	return map[string]any{"errcode": 0, "errmsg": "ok"}
}

// count returns how many requests an endpoint got.
func (f *fakeWeChat) count(endpoint string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.requests[endpoint]
}

// wantCount fails the test if an endpoint did not get exactly want requests.
func (f *fakeWeChat) wantCount(t *testing.T, endpoint string, want int) {
	t.Helper()
	if got := f.count(endpoint); got != want {
		t.Errorf("%s: got %d requests, want %d", endpoint, got, want)
	}
}

// waitForCount waits until an endpoint got n requests.
func (f *fakeWeChat) waitForCount(t *testing.T, endpoint string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s gets %d requests", endpoint, n), func() bool { return f.count(endpoint) == n })
}

// handle replaces the responses of an endpoint; nil restores the usual ones.
func (f *fakeWeChat) handle(endpoint string, h handler) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.handlers[endpoint] = h
}

// fail makes an endpoint return an errcode.
func (f *fakeWeChat) fail(endpoint string, code int) {
	f.handle(endpoint, func(map[string]any) (any, bool) { return errcode(code), true })
}

// list sets the accounts that authorize the component.
func (f *fakeWeChat) list(l map[string]authorizer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed = l
}

// block makes all responses wait until the returned function is called, which
// the end of the test does, too.
func (f *fakeWeChat) block(t *testing.T) (unblock func()) {
	gate := make(chan struct{})
	unblock = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(unblock)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gate = gate
	return unblock
}

func errcode(code int) map[string]any { return map[string]any{"errcode": code, "errmsg": "scripted"} }
