package state

import (
	"errors"
	"time"
)

// PreAuthCodeLife is how long a pre-auth code opens a consent page.
const PreAuthCodeLife = 10 * time.Minute

// Errors of CheckPreAuthCode and Consent.
var (
	ErrPreAuthUnknown = errors.New("sandbox: unknown pre-auth code")
	ErrPreAuthUsed    = errors.New("sandbox: pre-auth code already used")
	ErrPreAuthExpired = errors.New("sandbox: pre-auth code expired")
)

// preAuthCode opens a consent page. The consent spends it.
type preAuthCode struct {
	expires time.Time
	spent   bool
}

// preAuthCodes holds the pre-auth codes. It is not safe for concurrent use: it
// belongs to Accounts, because a consent spends its code and changes the
// account in one step.
type preAuthCodes struct {
	secrets *SecretList
	codes   boundedMap[*preAuthCode]
}

// issue returns a new code. A spent one stands for a consent without a page.
func (p *preAuthCodes) issue(now time.Time, spent bool) string {
	code := p.secrets.Add(newPreAuthCode())
	p.codes.put(code, &preAuthCode{expires: now.Add(PreAuthCodeLife), spent: spent})
	return code
}

// usable returns the code if it opens a page. Otherwise the error says why not.
func (p *preAuthCodes) usable(value string, now time.Time) (*preAuthCode, error) {
	code, known := p.codes.get(value)
	switch {
	case !known:
		return nil, ErrPreAuthUnknown
	case code.spent:
		return nil, ErrPreAuthUsed
	case !now.Before(code.expires):
		return nil, ErrPreAuthExpired
	}
	return code, nil
}

// NewPreAuthCode returns a new pre-auth code.
func (s *Accounts) NewPreAuthCode(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.preAuths.issue(now, false)
}

// CheckPreAuthCode returns ErrPreAuthUnknown, ErrPreAuthUsed,
// ErrPreAuthExpired, or nil if the code opens a consent page.
func (s *Accounts) CheckPreAuthCode(code string, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.preAuths.usable(code, now)
	return err
}
