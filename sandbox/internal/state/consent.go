package state

import "time"

const (
	// PushedCodeLife is how long an authorization code works that was pushed,
	// RedirectCodeLife one that the merchant's browser brings.
	PushedCodeLife   = time.Hour
	RedirectCodeLife = 10 * time.Minute
)

// authCode is the result of a merchant's consent. It is exchanged once for
// tokens.
type authCode struct {
	appid   string
	consent int // the account's consent count when it was issued
	expires time.Time
	used    bool
}

// Authorize records a consent that was given without a page. An unknown appid
// becomes an official account. It returns a code to be pushed and a pre-auth
// code that is already spent, because every consent at WeChat began with one.
func (s *Accounts) Authorize(appid string, now time.Time) (code, preAuth string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.findOrAdd(appid)
	if err != nil {
		return "", "", err
	}
	s.recordConsent(a, now)
	return s.newCode(a, now, PushedCodeLife), s.preAuths.issue(now, true), nil
}

// findOrAdd returns the account, which it adds as an official account if it is
// unknown. It returns ErrComponent for the component. The caller holds s.mu.
func (s *Accounts) findOrAdd(appid string) (*account, error) {
	if appid == s.cfg.ComponentAppID {
		return nil, ErrComponent
	}
	if a := s.byAppID[appid]; a != nil {
		return a, nil
	}
	return s.add(Account{AppID: appid})
}

// recordConsent records a consent and voids what earlier ones gave. The caller
// holds s.mu.
func (s *Accounts) recordConsent(a *account, now time.Time) {
	a.authorizer.invalidate(now)
	a.RefreshToken, a.oldRefreshToken, a.refreshTokenInvalid = "", "", false
	a.consent++
	a.Authorized, a.AuthTime = true, now
}

// newCode returns an authorization code of the account's last consent. The
// caller holds s.mu.
func (s *Accounts) newCode(a *account, now time.Time, life time.Duration) string {
	code := s.secrets.Add(newAuthCode())
	s.codes.put(code, &authCode{appid: a.AppID, consent: a.consent, expires: now.Add(life)})
	return code
}

// PageConsent is a consent that a merchant gives on a page.
type PageConsent struct {
	PreAuthCode string
	AppID       string
	NewKind     Kind // of the account if it is unknown
	// Eligible reports whether an account may be chosen on the page. It is
	// called with the lock held and must be a pure function.
	Eligible func(appid string, kind Kind) bool
}

// Consent records a consent that was given on a page. It returns a code, and
// whether the account had not authorized before. It fails with an error of
// CheckPreAuthCode, ErrNotEligible, or ErrAppID; the pre-auth code is spent
// only if it succeeds. Two clicks at once cannot both spend it.
func (s *Accounts) Consent(c PageConsent, now time.Time) (code string, first bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	preAuth, err := s.preAuths.usable(c.PreAuthCode, now)
	if err != nil {
		return "", false, err
	}
	a := s.byAppID[c.AppID]
	if a == nil {
		if c.AppID == s.cfg.ComponentAppID || !c.Eligible(c.AppID, c.NewKind) {
			return "", false, ErrNotEligible
		}
		if a, err = s.add(Account{AppID: c.AppID, Kind: c.NewKind}); err != nil {
			return "", false, err
		}
	}
	if !c.Eligible(c.AppID, a.Kind) {
		return "", false, ErrNotEligible
	}
	first = !a.Authorized
	s.recordConsent(a, now)
	preAuth.spent = true
	return s.newCode(a, now, PushedCodeLife), first, nil
}

// RedirectCode returns an authorization code as the merchant's browser brings
// it back. It is a consent only if the account has not authorized; otherwise it
// is one more code of the same consent, and the account's tokens stay valid.
func (s *Accounts) RedirectCode(appid string, now time.Time) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.findOrAdd(appid)
	if err != nil {
		return "", err
	}
	if !a.Authorized {
		s.recordConsent(a, now)
	}
	return s.newCode(a, now, RedirectCodeLife), nil
}

// Register adds a mini program that has authorized the component (fast
// registration) and returns its authorization code. It fails as Add does.
func (s *Accounts) Register(appid string, now time.Time) (code string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.find(appid) != nil {
		return "", ErrExists
	}
	a, err := s.add(Account{AppID: appid, Kind: MiniProgram})
	if err != nil {
		return "", err
	}
	s.recordConsent(a, now)
	return s.newCode(a, now, PushedCodeLife), nil
}

// Revoke records that the merchant revoked the authorization, and reports
// whether the account is known. Its refresh token is void, and so are its codes,
// even after the next consent. Requests with its access token get 61003.
func (s *Accounts) Revoke(appid string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.byAppID[appid]
	if a == nil {
		return false
	}
	a.Authorized = false
	a.RefreshToken, a.oldRefreshToken = "", ""
	return true
}
