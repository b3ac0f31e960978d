package sandbox

import (
	_ "embed"
	"html/template"
	"net/http"
	"slices"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// pageCalls is how many calls the page shows, the newest first; pageAccounts how many accounts.
const (
	pageCalls    = 50
	pageAccounts = 100
)

// servePage shows people what there is and what can be done.
func (s *WeChat) servePage(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		answerControl(w, nil, refusal{http.StatusMethodNotAllowed, "the page takes GET"})
		return
	}
	nonce := random(16)
	calls := s.shown(pageCalls)
	slices.Reverse(calls)
	violations := s.Violations()
	slices.Reverse(violations)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; script-src 'nonce-"+nonce+"'; style-src 'nonce-"+nonce+"'")
	_ = page.Execute(w, map[string]any{ // fails only if the reader has left
		"Nonce": nonce, "State": s.state(0, pageAccounts), "Calls": calls, "Faults": s.Faults(), "Routes": routes,
		"Violations": violations[:min(len(violations), pageCalls)],
	})
}
