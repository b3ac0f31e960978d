package tokens_test

import (
	"context"
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

	"wxproxy/tokens"
	"wxproxy/tokens/store"
	"wxproxy/wechat"
)

const (
	component = "wxcccccccccccccccc"
	accountA  = "wxaaaaaaaaaaaaaaaa"
	accountB  = "wxbbbbbbbbbbbbbbbb"
	unknown   = "wxeeeeeeeeeeeeeeee"
	ownApp    = "wx00000000000000ff"
)

// script is WeChat's token endpoints, small enough to be stopped at any point. (The program as a whole
// is tested against the sandbox.)
type script struct {
	mu     sync.Mutex
	calls  map[string]int
	serial int
	life   float64                                        // seconds, of every token
	on     map[string]func(in map[string]any) (any, bool) // by last path segment; false: the usual answer
	gate   chan struct{}                                  // if set, every answer waits for it
	down   atomic.Bool
	listed map[string]listed // what WeChat knows; nil: any account, with the refresh token "held"
}

type listed struct {
	refresh string
	at      int64 // seconds
}

func newScript(t *testing.T) (*script, *wechat.Client) {
	s := &script{calls: map[string]int{}, life: 7200, on: map[string]func(map[string]any) (any, bool){}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	c := wechat.NewClient(srv.URL, nil)
	t.Cleanup(c.Close)
	return s, c
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	var in map[string]any
	json.NewDecoder(r.Body).Decode(&in)
	s.mu.Lock()
	s.calls[name]++
	s.serial++
	n, life, on, gate := s.serial, s.life, s.on[name], s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if s.down.Load() {
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprint(w, "<html>bad gateway</html>")
		return
	}
	if on != nil {
		if out, ok := on(in); ok {
			json.NewEncoder(w).Encode(out)
			return
		}
	}
	out := map[string]any{"expires_in": life}
	switch name {
	case "api_component_token":
		out["component_access_token"] = fmt.Sprintf("C%d", n)
	case "api_authorizer_token":
		out["authorizer_access_token"], out["authorizer_refresh_token"] = fmt.Sprintf("A%d", n), in["authorizer_refresh_token"]
	case "api_query_auth":
		code := in["authorization_code"].(string)
		appid, _, _ := strings.Cut(code, "@")
		out = map[string]any{"authorization_info": map[string]any{"authorizer_appid": appid, "authorizer_access_token": fmt.Sprintf("A%d", n),
			"authorizer_refresh_token": "refresh@" + code, "expires_in": life}}
	case "api_get_authorizer_info":
		refresh := "held"
		s.mu.Lock()
		if l, ok := s.listed[in["authorizer_appid"].(string)]; ok {
			refresh = l.refresh
		} else if s.listed != nil || in["authorizer_appid"] == unknown {
			out = errcode(61003)
			refresh = ""
		}
		s.mu.Unlock()
		if out["errcode"] == nil {
			out = map[string]any{"authorization_info": map[string]any{"authorizer_refresh_token": refresh}, "authorizer_info": map[string]any{"nick_name": "店\u202e铺", "MiniProgramInfo": map[string]any{}}}
		}
	case "api_get_authorizer_list":
		s.mu.Lock()
		appids := slices.Sorted(maps.Keys(s.listed))
		from, count := int(in["offset"].(float64)), int(in["count"].(float64))
		page := []any{}
		for _, a := range appids[min(from, len(appids)):min(from+count, len(appids))] {
			page = append(page, map[string]any{"authorizer_appid": a, "refresh_token": s.listed[a].refresh, "auth_time": s.listed[a].at})
		}
		s.mu.Unlock()
		out = map[string]any{"total_count": len(appids), "list": page}
	case "api_start_push_ticket":
		out = map[string]any{"errcode": 0, "errmsg": "ok"}
	case "api_create_preauthcode":
		out = map[string]any{"pre_auth_code": fmt.Sprintf("preauthcode@@@%d", n), "expires_in": 600}
	case "stable_token":
		out["access_token"] = "S" + fmt.Sprint(in["force_refresh"])
	}
	json.NewEncoder(w).Encode(out)
}

func (s *script) count(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[name]
}

func (s *script) answer(name string, f func(map[string]any) (any, bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on[name] = f
}

// knows sets what WeChat's list says.
func (s *script) knows(l map[string]listed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = l
}

func errcode(code int) map[string]any { return map[string]any{"errcode": code, "errmsg": "scripted"} }

// clock can be put forward by hand.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) forward(d time.Duration) { c.offset.Add(int64(d)) }
func (c *clock) use(cfg *tokens.Config)  { cfg.Now = c.now }

func secrets() tokens.Secrets {
	return tokens.Secrets{Component: component, ComponentSecret: wechat.NewSecret("cs"), Apps: map[string]wechat.Secret{ownApp: wechat.NewSecret("as")}}
}

func newBroker(t *testing.T, st store.Store, client *wechat.Client, change func(*tokens.Config)) *tokens.Broker {
	t.Helper()
	c := tokens.Config{Store: st, Client: client, CacheSize: 1000, Secrets: secrets()}
	if change != nil {
		change(&c)
	}
	b, err := tokens.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close(context.Background()) })
	return b
}

// authorized gives a broker with a ticket and one account.
func authorized(t *testing.T, st store.Store, client *wechat.Client, change func(*tokens.Config)) *tokens.Broker {
	t.Helper()
	b := newBroker(t, st, client, change)
	putTicket(t, b)
	authorize(t, b, accountA, 1000)
	return b
}

func putTicket(t *testing.T, b *tokens.Broker) {
	t.Helper()
	if err := b.PutTicket(t.Context(), wechat.NewSecret("ticket@@@1"), time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
}

func codeOf(appid string, created int64) wechat.Secret {
	return wechat.NewSecret(fmt.Sprintf("%s@%d", appid, created))
}

func authorize(t *testing.T, b *tokens.Broker, appid string, created int64) {
	t.Helper()
	if err := b.Authorize(t.Context(), appid, codeOf(appid, created), time.Time{}, time.Unix(created, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, err := b.Token(t.Context(), appid); return err == nil })
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never came true")
		}
	}
}

func mustToken(t *testing.T, b *tokens.Broker, appid string) tokens.Token {
	t.Helper()
	tok, err := b.Token(t.Context(), appid)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
