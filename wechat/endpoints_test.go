package wechat_test

import (
	"strings"
	"testing"

	"wxproxy/wechat"
)

// First match wins only if no row stands behind a prefix that covers it, and no row twice.
func TestEndpointsOrder(t *testing.T) {
	seen := map[string]bool{}
	for i, e := range wechat.Endpoints {
		if seen[e.Path] && len(e.Actions) == 0 {
			t.Errorf("%s stands twice", e.Path)
		}
		seen[e.Path] = true
		if !strings.HasPrefix(e.Path, "/") || strings.Contains(strings.TrimSuffix(e.Path, "*"), "*") {
			t.Errorf("%s: not a path, or a prefix ending in one star", e.Path)
		}
		if e.Need == wechat.NeedRefusal && e.Why == "" {
			t.Errorf("%s is refused without a reason", e.Path)
		}
		if (e.Need == wechat.NeedSecret) != (e.Twin != "") {
			t.Errorf("%s: a call that needs a secret has a twin, and no other", e.Path)
		}
		for _, later := range wechat.Endpoints[i+1:] {
			if p, isPrefix := strings.CutSuffix(e.Path, "*"); isPrefix && strings.HasPrefix(later.Path, p) {
				t.Errorf("%s is never reached behind %s", later.Path, e.Path)
			}
		}
	}
}

func TestTableFindsOwnRowsFirst(t *testing.T) {
	table := wechat.NewTable([]wechat.Endpoint{
		{Path: "/cgi-bin/component/api_query_auth", Need: wechat.NeedComponent},
		{Path: "/cgi-bin/user/*", Need: wechat.NeedRefusal},
		{Path: "/cgi-bin/user/info", Need: wechat.NeedNothing},
	}, wechat.Endpoints)
	f := func(path string, want wechat.Need) {
		t.Helper()
		if got := table.Find(path, "").Need; got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	f("/cgi-bin/component/api_query_auth", wechat.NeedComponent)
	f("/cgi-bin/user/info", wechat.NeedRefusal)
	f("/cgi-bin/user/get", wechat.NeedRefusal)
	f("/cgi-bin/users", wechat.NeedAccount)
	f("/cgi-bin/token", wechat.NeedStandIn)
	f("/cgi-bin/token/", wechat.NeedStandIn)
	f("/cgi-bin/clear_quota/v2/", wechat.NeedRefusal)
	f("/cgi-bin/tokens", wechat.NeedAccount)
	f("/", wechat.NeedAccount)
	f("", wechat.NeedAccount)
	var zero wechat.Table
	if got := zero.Find("/cgi-bin/token", "").Need; got != wechat.NeedAccount {
		t.Errorf("the zero table: %d", got)
	}
}
