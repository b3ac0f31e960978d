package wechat_test

import (
	"strings"
	"testing"

	"wxproxy/wechat"
)

// First match wins, so no row may follow a prefix that covers it, or occur
// twice.
func TestEveryEndpointIsReachable(t *testing.T) {
	seen := map[string]bool{}
	for i, e := range wechat.Endpoints {
		if seen[e.Path] && len(e.Actions) == 0 {
			t.Errorf("%s: got two rows, want one", e.Path)
		}
		seen[e.Path] = true
		if !strings.HasPrefix(e.Path, "/") || strings.Contains(strings.TrimSuffix(e.Path, "*"), "*") {
			t.Errorf("%s: want a path, or a prefix that ends in one star", e.Path)
		}
		if e.Need == wechat.NeedRefusal && e.Why == "" {
			t.Errorf("%s: got a refusal without a reason", e.Path)
		}
		if (e.Need == wechat.NeedSecret) != (e.Twin != "") {
			t.Errorf("%s: got need %d and twin %q, want a twin for NeedSecret only", e.Path, e.Need, e.Twin)
		}
		for _, later := range wechat.Endpoints[i+1:] {
			if p, isPrefix := strings.CutSuffix(e.Path, "*"); isPrefix && strings.HasPrefix(later.Path, p) {
				t.Errorf("%s: it is never found, because %s precedes it", later.Path, e.Path)
			}
		}
	}
}

func TestTableFindsOwnRowsFirst(t *testing.T) {
	table := wechat.NewTable([]wechat.Endpoint{
		{Path: "/cgi-bin/component/api_query_auth", Need: wechat.NeedComponent},
		{Path: "/cgi-bin/user/*", Need: wechat.NeedRefusal},
		{Path: "/cgi-bin/user/info", Need: wechat.NeedNothing},
		{Path: "/wxa/Hidden/", Need: wechat.NeedRefusal},
		{Path: "/wxa/open*", Need: wechat.NeedNothing},
	}, wechat.Endpoints)
	f := func(path string, want wechat.Need) {
		t.Helper()
		if got := table.Find(path, "").Need; got != want {
			t.Errorf("Find(%s): got need %d, want %d", path, got, want)
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
	f("/cgi-bin/component/api_query_auth/", wechat.NeedComponent)
	f("/cgi-bin/user", wechat.NeedRefusal)
	f("/CGI-BIN/User/", wechat.NeedRefusal)
	f("/wxa/hidden", wechat.NeedRefusal)
	f("/wxa/HIDDEN/", wechat.NeedRefusal)
	f("/wxa/hidden/a", wechat.NeedAccount)
	f("/wxa/ope", wechat.NeedAccount)
	f("/wxa/open", wechat.NeedNothing)
	f("/wxa/openA/b/", wechat.NeedNothing)
	f("/cgi-bin/Clear_Quota/V2", wechat.NeedRefusal)
	f("/cgi-bin/component", wechat.NeedComponent)
	f("/CGI-BIN/"+strings.Repeat("A", 200), wechat.NeedAccount)
	if !table.ByAction("/wxa/SetDefaultAmsInfo/") || table.ByAction("/wxa/setdefaultamsinf") {
		t.Error("ByAction: got another result than for the path as it is written")
	}
	f("/", wechat.NeedAccount)
	f("", wechat.NeedAccount)
	var zero wechat.Table
	if got := zero.Find("/cgi-bin/token", "").Need; got != wechat.NeedAccount {
		t.Errorf("Find in the zero table: got need %d, want %d", got, wechat.NeedAccount)
	}
}

// TestCovers checks that one path covers another if it matches all of its paths,
// in every spelling.
func TestCovers(t *testing.T) {
	for _, c := range []struct {
		path, other string
		want        bool
	}{
		{"/a", "/a", true}, {"/a", "/A/", true}, {"/a/", "/a", true}, {"/a", "/b", false},
		{"/a", "/a/b", false},
		{"/a/*", "/a", true}, {"/a/*", "/a/", true}, {"/a/*", "/A/b", true}, {"/a/*", "/ab", false},
		{"/a*", "/ab", true},
		{"/a*", "/a/*", true}, {"/a/*", "/a*", false}, {"/a", "/a*", false}, {"*", "/a*", true},
		{"/A*", "/ab*", true},
	} {
		if got := wechat.Covers(c.path, c.other); got != c.want {
			t.Errorf("Covers(%q, %q): got %v, want %v", c.path, c.other, got, c.want)
		}
	}
}
