package sandbox

import (
	"net/http"
	"sync"
	"time"

	"wxproxy/wechat"
)

// WeChat is one pretended WeChat with one component. It is safe for concurrent use.
type WeChat struct {
	cfg       Config // as completed by New; not written afterwards
	crypt     *wechat.Crypt
	pusher    *http.Client
	endpoints map[string]endpoint // by path; not written after New

	faults  faults
	history history
	pushes  sync.WaitGroup // those that nobody waits for

	// mu guards all below. It is never held while something is read from or written to a connection, and nothing
	// that is called under it blocks or calls back into the user's code.
	mu          sync.Mutex
	pushURL     string
	closed      bool
	accounts    map[string]*account
	order       []*account // as they were added
	tokens      book[*token]
	codes       book[*authCode] // authorization codes
	preAuths    book[*preAuthCode]
	logins      book[login]     // consent pages that are open
	tickets     book[time.Time] // ticket → when it was made
	spent       book[bool]      // end users' login codes, which serve once
	userRefresh book[*token]    // end users' refresh tokens
	ticket      string          // the newest; "" before the first
	pushedAt    time.Time       // when a ticket last met with "success"; zero: never
	// component is an account like others as far as its token and its quota are concerned.
	component    account
	secrets      secretList
	userSecrets  secretList
	media        mediaStore
	templates    []libraryEntry
	domains      map[string]string // component-wide domains, by kind
	lastTemplate int
	lastMessage  int64
}

// Close waits for pushes under way that were started by a call (api_start_push_ticket); later ones are not begun.
// Serving goes on.
func (s *WeChat) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.pushes.Wait()
	s.pusher.CloseIdleConnections()
}

// ComponentAppID gives the component's appid: the configured one, or [DefaultComponentAppID].
func (s *WeChat) ComponentAppID() string { return s.cfg.ComponentAppID }

// account gives the account of that appid, the component's own included, or nil. s.mu is held.
func (s *WeChat) account(appid string) *account {
	if appid == s.cfg.ComponentAppID {
		return &s.component
	}
	return s.accounts[appid]
}
