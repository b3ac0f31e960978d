package sandbox

import (
	"context"
	"errors"
	"time"
)

// authCode is what a merchant's consent yields, to be exchanged once for tokens.
type authCode struct {
	appid   string
	consent int
	expires time.Time
	used    bool
}

// Authorize is the merchant who agrees: it makes an authorization code and pushes `authorized` to the callback. The
// code is given back in any case; the error is that of the push. An unknown appid becomes an official account. Of
// an account that had authorized already, all tokens are dead from now on, as at WeChat.
func (s *WeChat) Authorize(ctx context.Context, appid string) (code string, err error) {
	return s.consent(ctx, appid, "authorized")
}

// UpdateAuthorized is the merchant who changes what they have agreed to: as [WeChat.Authorize], with
// `updateauthorized`. The account must have authorized.
func (s *WeChat) UpdateAuthorized(ctx context.Context, appid string) (code string, err error) {
	s.mu.Lock()
	a := s.accounts[appid]
	ok := a != nil && a.authorized
	s.mu.Unlock()
	if !ok {
		return "", errors.New("sandbox: the account has not authorized the component")
	}
	return s.consent(ctx, appid, "updateauthorized")
}

func (s *WeChat) consent(ctx context.Context, appid, infoType string) (string, error) {
	now := s.cfg.Now()
	s.mu.Lock()
	a, err := s.known(appid)
	if err != nil {
		s.mu.Unlock()
		return "", err
	}
	s.agree(a, now)
	code := s.newCode(a, now, pushedCodeLife)
	preAuth := s.newPreAuth(now)
	p, _ := s.preAuths.get(preAuth)
	p.spent = true
	s.mu.Unlock()

	doc := s.document(now, infoType).
		cdata("AuthorizerAppid", appid).
		cdata("AuthorizationCode", code).
		cdata("AuthorizationCodeExpiredTime", unix(now.Add(pushedCodeLife))).
		cdata("PreAuthCode", preAuth)
	return code, s.pushEvent(ctx, doc)
}

// known gives the account, which it adds if need be. The component is none. s.mu is held.
func (s *WeChat) known(appid string) (*account, error) {
	if appid == s.cfg.ComponentAppID {
		return nil, errors.New("sandbox: the component cannot authorize itself")
	}
	if a := s.accounts[appid]; a != nil {
		return a, nil
	}
	return s.add(appid, OfficialAccount)
}

// agree notes a consent. What an earlier one had given is void. s.mu is held.
func (s *WeChat) agree(a *account, now time.Time) {
	a.authorizer.kill(now)
	a.refresh, a.oldRefresh, a.refreshDead = "", "", false
	a.consent++
	a.authorized, a.authTime = true, now
}

func (s *WeChat) newCode(a *account, now time.Time, life time.Duration) string {
	code := s.remember(newAuthCode())
	s.codes.put(code, &authCode{appid: a.appid, consent: a.consent, expires: now.Add(life)})
	return code
}

// AuthorizationCode gives a code as the merchant's browser brings it back, good for ten minutes, and pushes
// nothing. An account that has not authorized does so by it; of one that has, it is one more code of the same
// consent, and its tokens live. It is "" for an appid that cannot be one.
func (s *WeChat) AuthorizationCode(appid string) string {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.known(appid)
	if err != nil {
		return ""
	}
	if !a.authorized {
		s.agree(a, now)
	}
	return s.newCode(a, now, redirectCodeLife)
}

// Unauthorize is the merchant who withdraws: the account's tokens and codes are dead, and `unauthorized` is
// pushed. The error is that of the push.
func (s *WeChat) Unauthorize(ctx context.Context, appid string) error {
	now := s.cfg.Now()
	s.mu.Lock()
	a := s.accounts[appid]
	if a == nil {
		s.mu.Unlock()
		return errUnknown
	}
	a.authorized = false
	a.consent++ // its codes are void; its access token gets 61003 by a.authorized
	a.refresh, a.oldRefresh = "", ""
	s.mu.Unlock()
	return s.pushEvent(ctx, s.document(now, "unauthorized").cdata("AuthorizerAppid", appid))
}

// FastRegistration describes the outcome of a mini program's fast registration (快速注册企业小程序).
type FastRegistration struct {
	AppID              string // of the new mini program; "": one is made up
	Status             int    // 0: registered; others say why not, and there is no account then
	Msg                string // "": "OK"
	Name               string // of the company
	Code               string // its registration number
	CodeType           int    // 0: 1, the unified social credit code
	LegalPersonaWechat string
	LegalPersonaName   string
	ComponentPhone     string
}

// FastRegister pushes notify_third_fasteregister (the lost "r" is WeChat's). With Status 0 the mini program comes
// into being, has authorized the component, and code is to be exchanged. The error is that of the push, or says
// that r.AppID cannot be used.
func (s *WeChat) FastRegister(ctx context.Context, r FastRegistration) (appid, code string, err error) {
	orElse(&r.AppID, "wx"+randomHex(8))
	orElse(&r.Msg, "OK")
	orElse(&r.CodeType, 1)
	now := s.cfg.Now()
	// The order of real pushes is another than that of the documentation: status and msg come first.
	doc := s.document(now, "notify_third_fasteregister").number("status", r.Status).cdata("msg", r.Msg)
	if r.Status == 0 {
		s.mu.Lock()
		if s.account(r.AppID) != nil {
			s.mu.Unlock()
			return "", "", errors.New("sandbox: there is an account of that appid already")
		}
		a, err := s.add(r.AppID, MiniProgram)
		if err != nil {
			s.mu.Unlock()
			return "", "", err
		}
		s.agree(a, now)
		appid, code = a.appid, s.newCode(a, now, pushedCodeLife)
		s.mu.Unlock()
		doc = doc.cdata("appid", appid).cdata("auth_code", code)
	}
	info := document("").cdata("name", r.Name).cdata("code", r.Code).number("code_type", r.CodeType).
		cdata("legal_persona_wechat", r.LegalPersonaWechat).cdata("legal_persona_name", r.LegalPersonaName).
		cdata("component_phone", r.ComponentPhone)
	return appid, code, s.pushEvent(ctx, doc.element("info", info))
}
