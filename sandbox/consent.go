package sandbox

import (
	"context"
	"errors"

	"wxproxy/sandbox/internal/push"
	"wxproxy/sandbox/internal/random"
	"wxproxy/sandbox/internal/state"
)

// Authorize makes the merchant of that account consent: there is an
// authorization code, and `authorized` is pushed to the callback. An unknown
// appid becomes an official account. If the account had authorized before, all
// its tokens are invalid from now on, as at WeChat.
//
// The code is returned even if the push fails; then the error is that of the
// push. Without a code, the error says why the account cannot consent.
func (s *WeChat) Authorize(ctx context.Context, appid string) (code string, err error) {
	return s.consent(ctx, appid, "authorized")
}

// UpdateAuthorized makes the merchant change an earlier consent: it does what
// [WeChat.Authorize] does but pushes `updateauthorized`. It fails if the
// account has not authorized.
func (s *WeChat) UpdateAuthorized(ctx context.Context, appid string) (code string, err error) {
	if a, known := s.state.Accounts.FindAuthorizer(appid); !known || !a.Authorized {
		return "", errors.New("sandbox: account has not authorized the component")
	}
	return s.consent(ctx, appid, "updateauthorized")
}

func (s *WeChat) consent(ctx context.Context, appid, infoType string) (string, error) {
	now := s.cfg.Now()
	code, preAuth, err := s.state.Accounts.Authorize(appid, now)
	if err != nil {
		return "", err
	}
	event := s.push.ConsentEvent(now, infoType, push.Consent{
		AppID: appid, Code: code, CodeExpires: now.Add(state.PushedCodeLife), PreAuthCode: preAuth,
	})
	return code, ignoreNoURL(s.push.SendEvent(ctx, event))
}

// AuthorizationCode returns a code as the merchant's browser brings it back. It
// works for ten minutes, and nothing is pushed. An account that has not
// authorized does so by it; otherwise it is one more code of the same consent,
// and the account's tokens stay valid. It returns "" for an appid that cannot
// authorize.
func (s *WeChat) AuthorizationCode(appid string) string {
	code, _ := s.state.Accounts.RedirectCode(appid, s.cfg.Now())
	return code
}

// Unauthorize makes the merchant revoke the authorization: the account's tokens
// and codes are invalid, and `unauthorized` is pushed. It fails for an unknown
// appid, or if the push fails.
func (s *WeChat) Unauthorize(ctx context.Context, appid string) error {
	now := s.cfg.Now()
	if !s.state.Accounts.Revoke(appid) {
		return state.ErrUnknown
	}
	event := s.push.Event(now, "unauthorized").CDATA("AuthorizerAppid", appid)
	return ignoreNoURL(s.push.SendEvent(ctx, event))
}

// FastRegistration describes the outcome of a fast registration of a mini
// program (快速注册企业小程序).
type FastRegistration struct {
	AppID              string // of the new mini program; default: a random one
	Status             int    // 0 for success; other values say why there is no account
	Msg                string // default: "OK"
	Name               string // of the company
	Code               string // its registration number
	CodeType           int    // default: 1, the unified social credit code
	LegalPersonaWechat string
	LegalPersonaName   string
	ComponentPhone     string
}

// FastRegister pushes notify_third_fasteregister, which is how WeChat spells
// it. With Status 0 there is a new mini program that has authorized the
// component, and code is to be exchanged. It fails if r.AppID cannot be used,
// or if the push fails.
func (s *WeChat) FastRegister(ctx context.Context, r FastRegistration) (appid, code string, err error) {
	setDefault(&r.AppID, "wx"+random.Hex(8))
	setDefault(&r.Msg, "OK")
	setDefault(&r.CodeType, 1)
	now := s.cfg.Now()
	// Real pushes have another order than the documentation: status and msg
	// come first.
	event := s.push.Event(now, "notify_third_fasteregister").Number("status", r.Status).CDATA("msg", r.Msg)
	if r.Status == 0 {
		if code, err = s.state.Accounts.Register(r.AppID, now); err != nil {
			return "", "", err
		}
		appid = r.AppID
		event = event.CDATA("appid", appid).CDATA("auth_code", code)
	}
	info := push.Document("").
		CDATA("name", r.Name).
		CDATA("code", r.Code).
		Number("code_type", r.CodeType).
		CDATA("legal_persona_wechat", r.LegalPersonaWechat).
		CDATA("legal_persona_name", r.LegalPersonaName).
		CDATA("component_phone", r.ComponentPhone)
	return appid, code, ignoreNoURL(s.push.SendEvent(ctx, event.Element("info", info)))
}
