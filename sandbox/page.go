package sandbox

import (
	_ "embed"
	"html/template"
	"net/http"
	"slices"

	"wxproxy/sandbox/internal/random"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// What the page shows at most.
const (
	pageCalls    = 50
	pageAccounts = 100
)

// servePage serves the page: the state, what happened, and every endpoint.
// Requests and violations are shown newest first.
func (c *controlServer) servePage(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		writeControl(w, nil, controlError{http.StatusMethodNotAllowed, "the page takes GET"})
		return
	}
	calls := c.calls(pageCalls)
	slices.Reverse(calls)
	violations := c.wx.Violations()
	slices.Reverse(violations)
	nonce := random.Base64(16)
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; "+
		"frame-ancestors 'none'; script-src 'nonce-"+nonce+"'; style-src 'nonce-"+nonce+"'")
	_ = page.Execute(w, map[string]any{ // fails only if the client is gone
		"Nonce": nonce, "State": c.view(0, pageAccounts), "Calls": calls, "Faults": c.wx.Faults(), "Routes": routes,
		"Violations": violations[:min(len(violations), pageCalls)],
	})
}
