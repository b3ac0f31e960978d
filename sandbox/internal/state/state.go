// Package state is the memory of the sandbox WeChat. Each type owns one kind of
// data together with the lock that guards it, so that no handler can touch data
// without its lock:
//
//	Accounts      accounts, consents, authorization codes, access tokens
//	Tickets       component_verify_tickets
//	EndUsers      tokens and login codes of end users
//	Profiles      what requests stored for each account: menu, tags, options, releases
//	Quotas        numbers of calls, and how often they were cleared
//	Media         uploaded files
//	Templates     the component's template library
//	Domains       the component-wide domain lists
//	ConsentPages  consent pages that are open in a browser
//	SecretList    every secret that was given out
//
// Operations that must be atomic together are one method of one type. A consent
// voids codes, invalidates tokens and spends its pre-auth code in one step. A
// code is checked, spent and turned into tokens in one step. Nothing needs two
// of these types to change at once. Admitting a token and serving the request
// are two steps, as at WeChat: a token that becomes invalid in between was
// admitted.
//
// Locks are held for memory operations only, never during I/O. The one nesting
// is that Accounts, Tickets and EndUsers call SecretList.Add with their own
// lock held; SecretList calls nothing.
//
// Methods that make one of WeChat's decisions return its errcode, 0 for
// success. Times are passed in, so that one request has one time.
package state

import "time"

// Bounds that let a sandbox run for days. What falls out is unknown from then
// on, as it is at WeChat after a while.
const (
	maxTokens   = 100_000
	maxSecrets  = 200_000
	maxAccounts = 100_000
	maxPages    = 10_000
)

// Config holds the settings that the state depends on. All are required.
type Config struct {
	ComponentAppID      string
	TokenLife           time.Duration // lifetime of access tokens
	Grace               time.Duration // how long a replaced access token works, 0 for none
	TicketLife          time.Duration // lifetime of tickets
	RotateRefreshTokens bool          // each renewal replaces the refresh token
}

// State is everything that one sandbox WeChat remembers about WeChat's side.
type State struct {
	Accounts  *Accounts
	Tickets   *Tickets
	EndUsers  *EndUsers
	Profiles  *Profiles
	Quotas    *Quotas
	Media     *Media
	Templates *Templates
	Domains   *Domains
	Pages     *ConsentPages

	// PlatformSecrets holds what must never leave the platform: the
	// configured secrets, tickets, tokens, refresh tokens, authorization codes.
	PlatformSecrets *SecretList
	// UserSecrets holds what callers receive but must not log: tokens and
	// session keys of end users, jsapi tickets, pre-auth codes.
	UserSecrets *SecretList
}

// New returns the state of a WeChat with one component and no accounts.
func New(c Config) *State {
	platform, users := &SecretList{}, &SecretList{}
	return &State{
		Accounts:        newAccounts(c, platform, users),
		Tickets:         newTickets(c.TicketLife, platform),
		EndUsers:        newEndUsers(users),
		Profiles:        &Profiles{},
		Quotas:          &Quotas{},
		Media:           newMedia(),
		Templates:       &Templates{},
		Domains:         &Domains{},
		Pages:           newConsentPages(),
		PlatformSecrets: platform,
		UserSecrets:     users,
	}
}
