package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/console"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

const (
	accountA  = "wxaaaaaaaaaaaaaaaa"
	accountB  = "wxbbbbbbbbbbbbbbbb"
	unknown   = "wx0000000000000000"
	component = "wxcccccccccccccccc"
)

// fakeBackend takes the place of the broker: accounts in a map, and chosen
// errors.
type fakeBackend struct {
	mu          sync.Mutex
	accounts    map[string]tokens.Account
	imported    map[string]string
	fails       map[string]error // by appid, "" for what concerns no account
	noComponent bool             // no component is configured
	wait        func(context.Context) error
	imports     func() // called by each Import
}

func newBackend() *fakeBackend {
	now := time.Now()
	return &fakeBackend{
		accounts: map[string]tokens.Account{
			accountA: {AppID: accountA, Kind: tokens.Authorizer, State: tokens.Active,
				Name: "小店 <b>", Type: "mini program", Token: "11112222", RefreshToken: "33334444",
				Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour), Authorized: time.Date(
					2026, 5, 4, 3, 2, 1, 987, time.FixedZone("CST", 8*3600))},
			accountB: {AppID: accountB, Kind: tokens.Authorizer, State: tokens.Revoked,
				Revoked: now.Add(-time.Hour), Failures: 3, Failure: "it has withdrawn"},
			component: {AppID: component, Kind: tokens.Component, State: tokens.Active,
				Type: "component", Token: "55556666", Issued: now, Expires: now.Add(2 * time.Hour)},
		},
		imported: map[string]string{}, fails: map[string]error{},
	}
}

func (o *fakeBackend) get(appid string) (tokens.Account, error) {
	if err := o.fails[appid]; err != nil {
		return tokens.Account{}, err
	}
	a, ok := o.accounts[appid]
	if !ok {
		return a, tokens.ErrUnknownAccount
	}
	return a, nil
}

func (o *fakeBackend) Account(_ context.Context, appid string) (tokens.Account, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.get(appid)
}

func (o *fakeBackend) List(
	_ context.Context, offset, limit int, filter tokens.AccountFilter,
) ([]tokens.Account, int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.fails[""]; err != nil {
		return nil, 0, err
	}
	var all []tokens.Account
	for _, appid := range slices.Sorted(maps.Keys(o.accounts)) {
		a := o.accounts[appid]
		if strings.Contains(strings.ToLower(appid+"\n"+a.Name), strings.ToLower(filter.Query)) &&
			(filter.State == "" || filter.State == a.State) {
			all = append(all, a)
		}
	}
	from := min(offset, len(all))
	return all[from:min(from+limit, len(all))], len(all), nil
}

func (o *fakeBackend) Refresh(ctx context.Context, appid string) (tokens.Account, error) {
	if o.wait != nil {
		if err := o.wait(ctx); err != nil {
			return tokens.Account{}, err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	a, err := o.get(appid)
	if err != nil {
		return a, err
	}
	a.Token, a.Issued = "77778888", time.Now()
	o.accounts[appid] = a
	return a, nil
}

func (o *fakeBackend) Forget(_ context.Context, appid string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.fails[appid]; err != nil {
		return err
	}
	a := o.accounts[appid]
	o.accounts[appid] = tokens.Account{
		AppID: appid, Kind: tokens.Authorizer, State: tokens.Forgotten, Name: a.Name,
		Forgotten: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC),
	}
	return nil
}

func (o *fakeBackend) Sync(
	ctx context.Context, opts tokens.SyncOptions,
) (tokens.SyncResult, error) {
	if o.wait != nil {
		if err := o.wait(ctx); err != nil {
			return tokens.SyncResult{}, err
		}
	}
	if err := o.fails[""]; err != nil {
		return tokens.SyncResult{}, err
	}
	got := tokens.SyncResult{Listed: 9, Added: 1, Recovered: 2, Unchanged: 6, Held: 30,
		Took: 1234567 * time.Microsecond}
	if opts.Restore {
		got.Recovered += 10
	}
	if opts.Confirm {
		got.Revoked, got.Held = got.Held, 0
	}
	return got, nil
}

func (o *fakeBackend) Import(_ context.Context, appid string, refresh wechat.Secret) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.fails[appid]; err != nil {
		return false, err
	}
	if o.imports != nil {
		o.imports()
	}
	if _, there := o.imported[appid]; there {
		return false, nil
	}
	o.imported[appid] = refresh.Reveal()
	return true, nil
}

// fakeStats are the stats of a fakeBackend.
type fakeStats struct{ o *fakeBackend }

func (g fakeStats) Component() string {
	if g.o.noComponent {
		return ""
	}
	return component
}
func (g fakeStats) TicketAge() (time.Duration, bool)       { return 90 * time.Second, true }
func (g fakeStats) ComponentExpiry() (time.Duration, bool) { return time.Hour, !g.o.noComponent }
func (g fakeStats) AccountCounts() (tokens.AccountCounts, bool) {
	return tokens.AccountCounts{Active: 10, Revoked: 2, Failing: 1, Forgotten: 4}, true
}
func (g fakeStats) Comparison() (tokens.Comparison, bool) {
	return tokens.Comparison{Age: time.Minute, Held: 30, HeldOf: 400}, true
}

func (o *fakeBackend) config() console.Config {
	return console.Config{Accounts: o, Stats: fakeStats{o},
		About: console.About{Version: "v1", GoVersion: "go1", Store: "file", Started: time.Now().Add(-time.Hour)},
		Explain: func(appid, method, path, caller string) (console.Explanation, error) {
			if !strings.HasPrefix(path, "/") {
				return console.Explanation{}, fmt.Errorf("%w: no slash", console.ErrQuestion)
			}
			e := console.Explanation{AppID: appid, Method: method, Path: path,
				Credential: "authorizer", Holder: appid, Parameter: "access_token",
				Rule: console.Rule{Path: "*", Source: "default"}}
			if caller != "" {
				e.Caller = &console.Verdict{Name: caller, Allowed: true, Reason: "it may"}
			}
			return e, nil
		}}
}

// ask makes a request and returns status, header and body. Headers have the
// form "Name: value".
func ask(t *testing.T, address, method, path, body string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// fields returns the members of a response that must be a JSON object.
func (a answer) fields(t *testing.T) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(a.body), &out); err != nil {
		t.Fatalf("got %s, want a JSON object: %v", a.body, err)
	}
	if a.header.Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("Content-Type: got %q, want JSON", a.header.Get("Content-Type"))
	}
	return out
}
