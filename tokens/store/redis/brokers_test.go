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

// replicas are three brokers, each with a store of its own on the same Redis.
type replicas struct {
	t       *testing.T
	redis   *server
	wechat  *fakeWeChat
	brokers []*tokens.Broker
}

// startReplicas returns when the account is authorized at all three.
func startReplicas(t *testing.T) *replicas {
	t.Helper()
	p := &replicas{t: t, redis: start(t), wechat: &fakeWeChat{calls: map[string]int{}}}
	srv := httptest.NewServer(p.wechat)
	t.Cleanup(srv.Close)
	client := wechat.NewClient(srv.URL, nil)
	t.Cleanup(client.Close)
	for range 3 {
		s, err := redis.OpenSealed(t.Context(), p.redis.url(), sealKey, patient)
		if err != nil {
			t.Fatal(err)
		}
		secrets := tokens.Secrets{Component: component, ComponentSecret: wechat.NewSecret("secret")}
		b, err := tokens.New(tokens.Config{Store: s, Client: client, CacheSize: 1000, Secrets: secrets})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			b.Close(t.Context())
			s.Close()
		})
		p.brokers = append(p.brokers, b)
	}
	p.putTicket(0, "ticket@@@1", 1000)
	p.authorize(0, "code@@@1", 1000)
	p.everywhere("authorized", succeeds)
	return p
}

func (p *replicas) putTicket(i int, ticket string, at int64) {
	p.t.Helper()
	err := p.brokers[i].PutTicket(p.t.Context(), wechat.NewSecret(ticket), time.Unix(at, 0))
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *replicas) authorize(i int, code string, at int64) {
	p.t.Helper()
	err := p.brokers[i].Authorize(p.t.Context(), account, wechat.NewSecret(code), time.Time{}, time.Unix(at, 0))
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *replicas) token(i int) tokens.Token {
	p.t.Helper()
	token, err := p.brokers[i].Token(p.t.Context(), account)
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

// everywhere waits until the token of the account satisfies ok at each replica.
func (p *replicas) everywhere(what string, ok func(tokens.Token, error) bool) {
	p.t.Helper()
	for _, b := range p.brokers {
		eventually(p.t, what, func() bool { return ok(b.Token(p.t.Context(), account)) })
	}
}

func succeeds(_ tokens.Token, err error) bool { return err == nil }

func failsWith(target error) func(tokens.Token, error) bool {
	return func(_ tokens.Token, err error) bool { return errors.Is(err, target) }
}

// TestReplicasShareRenewals: 600 concurrent renewals at three replicas cost one
// request to WeChat, and all replicas get the new token.
func TestReplicasShareRenewals(t *testing.T) {
	t.Parallel()
	p := startReplicas(t)
	for range 3 {
		stale := p.token(0)
		before := p.wechat.count("api_authorizer_token")
		var all sync.WaitGroup
		for _, b := range p.brokers {
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
		if n := p.wechat.count("api_authorizer_token") - before; n != 1 {
			t.Errorf("renewals: got %d, want 1", n)
		}
		fresh := p.token(0)
		p.everywhere("the new token", func(got tokens.Token, err error) bool {
			return err == nil && got.Value.Equal(fresh.Value)
		})
	}
}

// TestReplicasShareDecisions: what one replica learns about an account reaches
// all.
func TestReplicasShareDecisions(t *testing.T) {
	t.Parallel()
	p := startReplicas(t)
	if err := p.brokers[1].MarkRevoked(t.Context(), account, time.Unix(1001, 0)); err != nil {
		t.Fatal(err)
	}
	p.everywhere("revoked", failsWith(tokens.ErrRevoked))
	p.authorize(2, "code@@@2", 1002)
	p.everywhere("authorized again", succeeds)
	if err := p.brokers[0].Forget(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	p.everywhere("forgotten", failsWith(tokens.ErrForgotten))
}

// TestReplicasSurviveEmptiedRedis: the replicas keep serving, and after the
// next ticket they read the accounts from WeChat again.
func TestReplicasSurviveEmptiedRedis(t *testing.T) {
	t.Parallel()
	p := startReplicas(t)
	// The first ticket has the same effect, once for all replicas.
	eventually(t, "the first list of accounts", func() bool {
		return p.wechat.count("api_get_authorizer_list") == 1
	})
	p.redis.do("FLUSHALL")
	p.everywhere("still served", succeeds)
	p.putTicket(1, "ticket@@@2", 2000)
	eventually(t, "the accounts are read from WeChat again", func() bool {
		_, err := p.brokers[2].Account(t.Context(), account)
		return err == nil && p.wechat.count("api_get_authorizer_list") == 2
	})
}
