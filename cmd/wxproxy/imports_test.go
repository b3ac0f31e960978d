package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports enforces which package may import which.
func TestImports(t *testing.T) {
	own := map[string][]string{
		"wxproxy/wechat":  {"wxproxy/internal/redact"},
		"wxproxy/metrics": {},

		"wxproxy/sandbox": {"wxproxy/sandbox/internal/origin", "wxproxy/sandbox/internal/protocol",
			"wxproxy/sandbox/internal/push",
			"wxproxy/sandbox/internal/random", "wxproxy/sandbox/internal/state", "wxproxy/wechat"},
		"wxproxy/sandbox/internal/protocol": {"wxproxy/sandbox/internal/origin",
			"wxproxy/sandbox/internal/push", "wxproxy/sandbox/internal/random",
			"wxproxy/sandbox/internal/state", "wxproxy/wechat"},
		"wxproxy/sandbox/internal/state":  {"wxproxy/sandbox/internal/random", "wxproxy/wechat"},
		"wxproxy/sandbox/internal/push":   {"wxproxy/sandbox/internal/random", "wxproxy/wechat"},
		"wxproxy/sandbox/internal/origin": {},
		"wxproxy/sandbox/internal/random": {},

		"wxproxy/tokens/namespace": {"wxproxy/tokens/store"},
		"wxproxy/tokens": {"wxproxy/internal/clock",
			"wxproxy/tokens/governor", "wxproxy/tokens/store",
			"wxproxy/wechat"},
		"wxproxy/tokens/governor": {"wxproxy/wechat"},
		"wxproxy/tokens/store": {"wxproxy/internal/clock",
			"wxproxy/tokens/store/internal/durable"},
		"wxproxy/tokens/store/internal/durable": {},
		"wxproxy/tokens/store/archive":          {"wxproxy/tokens/store/internal/durable"},
		"wxproxy/tokens/store/bolt": {"wxproxy/internal/clock",
			"wxproxy/tokens/store", "wxproxy/tokens/store/internal/durable"},
		"wxproxy/tokens/store/redis":     {"wxproxy/internal/clock", "wxproxy/tokens/store"},
		"wxproxy/tokens/store/storetest": {"wxproxy/tokens/store"},

		"wxproxy/proxy": {"wxproxy/internal/hostname", "wxproxy/internal/peerlimit",
			"wxproxy/internal/redact",
			"wxproxy/internal/returnticket",
			"wxproxy/proxy/admission", "wxproxy/proxy/standin",
			"wxproxy/proxy/transport", "wxproxy/tokens", "wxproxy/wechat"},
		"wxproxy/proxy/admission": {},
		"wxproxy/proxy/standin":   {},
		"wxproxy/proxy/transport": {},

		"wxproxy/internal/clock":        {},
		"wxproxy/internal/hostname":     {},
		"wxproxy/internal/peerlimit":    {},
		"wxproxy/internal/proctest":     {},
		"wxproxy/internal/recovery":     {},
		"wxproxy/internal/redact":       {},
		"wxproxy/internal/returnticket": {},
		"wxproxy/internal/tcptest":      {},

		"wxproxy/callback": {"wxproxy/callback/pages", "wxproxy/callback/queue",
			"wxproxy/internal/recovery", "wxproxy/tokens", "wxproxy/tokens/store", "wxproxy/wechat"},
		"wxproxy/callback/queue": {"wxproxy/internal/clock", "wxproxy/internal/recovery",
			"wxproxy/tokens/store"},
		"wxproxy/callback/pages": {"wxproxy/internal/returnticket", "wxproxy/tokens", "wxproxy/wechat"},

		"wxproxy/console": {"wxproxy/internal/hostname", "wxproxy/internal/peerlimit",
			"wxproxy/internal/recovery",
			"wxproxy/callback/queue",
			"wxproxy/tokens", "wxproxy/tokens/store", "wxproxy/tokens/store/archive", "wxproxy/wechat"},

		"wxproxy/bench/prime":   {"wxproxy/wechat"},
		"wxproxy/bench/bare":    {},
		"wxproxy/bench/harness": {"wxproxy/sandbox"},
		"wxproxy/bench/guard":   {"wxproxy/bench/harness"},
		"wxproxy/bench/load":    {"wxproxy/bench/harness"},
		"wxproxy/bench/scale":   {},
		"wxproxy/bench/chart":   {},

		"wxproxy/conformance": {},

		"wxproxy/cmd/wxproxy/internal/config": {"wxproxy/callback",
			"wxproxy/cmd/wxproxy/internal/suggest",
			"wxproxy/internal/hostname", "wxproxy/proxy", "wxproxy/tokens/store/redis",
			"wxproxy/wechat"},
		"wxproxy/cmd/wxproxy/internal/suggest":   {},
		"wxproxy/cmd/wxproxy/internal/table":     {"wxproxy/wechat"},
		"wxproxy/cmd/wxproxy/internal/tokenfile": {},
	}
	only := map[string]string{ // a library → the packages that may import it, besides those below bench
		"github.com/prometheus/":    "wxproxy/metrics",
		"github.com/valyala/":       "wxproxy/proxy wxproxy/proxy/transport",
		"github.com/dgraph-io/":     "wxproxy/tokens",
		"golang.org/x/sync/":        "wxproxy/tokens wxproxy/tokens/namespace",
		"go.etcd.io/bbolt":          "wxproxy/tokens/store/bolt",
		"github.com/redis/":         "wxproxy/tokens/store/redis",
		"go.uber.org/":              "",
		"github.com/piglig/":        "wxproxy/callback/pages",
		"github.com/makiuchi-d/":    "",
		"golang.org/x/text/":        "wxproxy/callback/pages",
		"github.com/pelletier/":     "wxproxy/cmd/wxproxy/internal/config",
		"github.com/mattn/":         "wxproxy/cmd/wxproxy/internal/table",
		"github.com/spf13/":         "wxproxy/cmd/wxproxy",
		"testing":                   "wxproxy/tokens/store/storetest wxproxy/internal/proctest",
		"net/http/httptest":         "",
		"github.com/dustin/":        "",
		"github.com/klauspost/":     "",
		"google.golang.org/":        "",
		"github.com/molecule-man/":  "",
		"github.com/beorn7/":        "",
		"github.com/munnerz/":       "",
		"github.com/cespare/xxhash": "",
	}
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "wxproxy/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		names := strings.Fields(line)
		pkg, imports := names[0], names[1:]
		allowed, known := own[pkg]
		if !known && pkg != "wxproxy/cmd/wxproxy" && pkg != "wxproxy/cmd/wxproxy/internal/server" {
			t.Errorf("%s: got no entry in this test, want the packages that it may import", pkg)
		}
		for _, i := range imports {
			if strings.HasPrefix(i, "wxproxy/") && known && !slices.Contains(allowed, i) {
				t.Errorf("%s imports %s, want only %q", pkg, i, allowed)
			}
			for lib, owner := range only {
				if (i == lib || strings.HasSuffix(lib, "/") && strings.HasPrefix(i, lib)) &&
					!slices.Contains(strings.Fields(owner), pkg) && !strings.HasPrefix(pkg, "wxproxy/bench/") {
					t.Errorf("%s imports %s, which only %q may", pkg, i, owner)
				}
			}
		}
	}
}
