package state

import "sync"

// ConsentPage is a consent page that is open in a merchant's browser.
type ConsentPage struct {
	PreAuthCode string
	RedirectURI string
	AuthType    string // "" if BizAppID decides
	BizAppID    string // the one account that may consent, "" for any
}

// ConsentPages holds the consent pages that were opened, the last 10,000. It is
// safe for concurrent use.
type ConsentPages struct {
	mu   sync.Mutex // guards everything below
	open boundedMap[ConsentPage]
}

func newConsentPages() *ConsentPages {
	return &ConsentPages{open: newBoundedMap[ConsentPage](maxPages)}
}

// Open records a page under the ID that its form carries.
func (p *ConsentPages) Open(id string, page ConsentPage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open.put(id, page)
}

// Find returns the page of that ID.
func (p *ConsentPages) Find(id string) (ConsentPage, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open.get(id)
}
