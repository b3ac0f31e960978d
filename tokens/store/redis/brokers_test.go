//go:build unix

package redis_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/tokens"
	"wxproxy/tokens/store/redis"
	"wxproxy/wechat"
)

const (
	component = "wxcccccccccccccccc"
	account   = "wxaaaaaaaaaaaaaaaa"
)

// fakeWeChat issues a new token for every request and counts the requests.
type fakeWeChat struct {
	mu     sync.Mutex
	calls  map[string]int
	serial int
}

func (f *fakeWeChat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	f.mu.Lock()
	f.calls[name]++
	f.serial++
	n := f.serial
	f.mu.Unlock()
	out := map[string]any{"errcode": 61003, "errmsg": "scripted"}
	switch name {
	case "api_component_token":
		out = map[string]any{"component_access_token": fmt.Sprint("C", n), "expires_in": 7200}
	case "api_authorizer_token":
		time.Sleep(20 * time.Millisecond) // so that renewals overlap
		out = map[string]any{"authorizer_access_token": fmt.Sprint("A", n),
			"authorizer_refresh_token": fmt.Sprint("R", n), "expires_in": 7200}
	case "api_query_auth":
		out = map[string]any{"authorization_info": map[string]any{
			"authorizer_appid": account, "authorizer_access_token": fmt.Sprint("A", n),
			"authorizer_refresh_token": fmt.Sprint("R", n), "expires_in": 7200}}
	case "api_get_authorizer_list":
		out = map[string]any{"total_count": 1, "list": []any{
			map[string]any{"authorizer_appid": account, "refresh_token": "", "auth_time": 1000}}}
	}
	json.NewEncoder(w).Encode(out)
}

func (f *fakeWeChat) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[name]
}

// TestThreeBrokersShareOneRedis: 600 concurrent renewals in three brokers cost
// one request to WeChat, and what one broker learns about an account reaches
// all.
func TestThreeBrokersShareOneRedis(t *testing.T) {
	t.Parallel()
	r := start(t)
	f := &fakeWeChat{calls: map[string]int{}}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	client := wechat.NewClient(srv.URL, nil)
	t.Cleanup(client.Close)
	var brokers []*tokens.Broker
	for range 3 {
		s, err := redis.OpenSealed(t.Context(), r.url(), sealKey, patient)
		if err != nil {
			t.Fatal(err)
		}
		b, err := tokens.New(tokens.Config{Store: s, Client: client, CacheSize: 1000,
			Secrets: tokens.Secrets{Component: component, ComponentSecret: wechat.NewSecret("secret")}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			b.Close(t.Context())
			s.Close()
		})
		brokers = append(brokers, b)
	}
	if err := brokers[0].PutTicket(t.Context(), wechat.NewSecret("ticket@@@1"), time.Unix(1000, 0)); err != nil {
		t.Fatal(err)
	}
	authorize := func(b *tokens.Broker, code string, at int64) {
		t.Helper()
		if err := b.Authorize(t.Context(), account, wechat.NewSecret(code), time.Time{}, time.Unix(at, 0)); err != nil {
			t.Fatal(err)
		}
	}
	token := func(b *tokens.Broker) (tokens.Token, error) { return b.Token(t.Context(), account) }
	everywhere := func(what string, ok func(tokens.Token, error) bool) {
		t.Helper()
		for _, b := range brokers {
			eventually(t, what, func() bool { return ok(token(b)) })
		}
	}
	working := func(_ tokens.Token, err error) bool { return err == nil }
	authorize(brokers[0], "code@@@1", 1000)
	everywhere("authorized", working)

	for range 3 {
		stale, err := token(brokers[0])
		if err != nil {
			t.Fatal(err)
		}
		before := f.count("api_authorizer_token")
		var all sync.WaitGroup
		for _, b := range brokers {
			for range 200 {
				all.Go(func() {
					got, err := b.Renew(t.Context(), account, stale.Value)
					if err != nil || got.Value.Equal(stale.Value) {
						t.Errorf("Renew: got error %v or the stale token, want a new one", err)
					}
				})
			}
		}
		all.Wait()
		if n := f.count("api_authorizer_token") - before; n != 1 {
			t.Errorf("renewals: got %d, want 1", n)
		}
		fresh, err := token(brokers[0])
		if err != nil {
			t.Fatal(err)
		}
		everywhere("the new token", func(got tokens.Token, err error) bool {
			return err == nil && got.Value.Equal(fresh.Value)
		})
	}

	if err := brokers[1].MarkRevoked(t.Context(), account, time.Unix(1001, 0)); err != nil {
		t.Fatal(err)
	}
	everywhere("revoked", func(_ tokens.Token, err error) bool { return errors.Is(err, tokens.ErrRevoked) })
	authorize(brokers[2], "code@@@2", 1002)
	everywhere("authorized again", working)
	if err := brokers[0].Forget(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	everywhere("forgotten", func(_ tokens.Token, err error) bool {
		return errors.Is(err, tokens.ErrUnknownAccount)
	})

	// Redis is emptied: the brokers keep serving, and after the next ticket
	// they read the accounts from WeChat again.
	authorize(brokers[2], "code@@@3", 1004)
	everywhere("authorized a third time", working)
	lists := f.count("api_get_authorizer_list")
	r.do("FLUSHALL")
	everywhere("still served", working)
	if err := brokers[1].PutTicket(t.Context(), wechat.NewSecret("ticket@@@2"), time.Unix(2000, 0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the accounts are read from WeChat again", func() bool {
		_, err := brokers[2].Account(t.Context(), account)
		return err == nil && f.count("api_get_authorizer_list") == lists+1
	})
}
