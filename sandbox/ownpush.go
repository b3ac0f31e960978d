package sandbox

import (
	"context"
	"errors"
	"slices"

	"wxproxy/sandbox/internal/push"
	"wxproxy/wechat"
)

// PushMode is how the pushes of an own account are encrypted.
type PushMode = push.Mode

// Modes that an own account chooses at WeChat.
const (
	PlainMode      = push.Plain      // 明文模式
	CompatibleMode = push.Compatible // 兼容模式
	SafeMode       = push.Safe       // 安全模式
)

// OwnPush is what WeChat pushes to an own account, one that is not authorized
// to the component: with a token and a key of the account's own.
type OwnPush struct {
	AppID string
	Token string // 令牌 (Token)
	Key   string // EncodingAESKey; not used in plain mode
	Mode  PushMode
	// Document is the message as the service is to get it: XML, or JSON if it
	// begins with "{", which mini programs can choose.
	Document string
}

// Send pushes the document to /{appid}/events below the push URL, and returns
// and fails as [WeChat.PushXML] does. It also fails if a field is malformed.
func (p OwnPush) Send(ctx context.Context, s *WeChat) (response []byte, err error) {
	own, err := p.own(s)
	if err != nil {
		return nil, err
	}
	return s.push.SendOwn(ctx, own)
}

// CheckURL makes WeChat's check of the account's URL, a GET with an echostr. It
// fails with [ErrNoPushURL], or unless the response is the echostr.
func (p OwnPush) CheckURL(ctx context.Context, s *WeChat) error {
	own, err := p.own(s)
	if err != nil {
		return err
	}
	return s.push.CheckURL(ctx, own)
}

// own returns what the sender needs.
func (p OwnPush) own(s *WeChat) (push.Own, error) {
	switch {
	case !wechat.IsAppID(p.AppID):
		return push.Own{}, errors.New("sandbox: malformed appid")
	case p.Token == "":
		return push.Own{}, errors.New("sandbox: token is missing")
	}
	own := push.Own{
		AppID: p.AppID, Token: p.Token, Key: p.Key, Mode: p.Mode, Document: p.Document,
	}
	if a, known := s.state.Accounts.Find(p.AppID); known {
		own.Recipient = push.Recipient{OriginalID: a.OriginalID(), OpenID: a.OpenID("1")}
	}
	return own, nil
}

// pushOwn pushes to an own account, or checks its URL.
func (c *controlServer) pushOwn(r controlRequest) (any, error) {
	var in struct {
		AppID    string `json:"appid"`
		Token    string `json:"token"`
		Key      string `json:"key"`
		Mode     string `json:"mode"`
		Document string `json:"document"`
	}
	if err := readJSON(r.body, &in); err != nil {
		return nil, err
	}
	p := OwnPush{
		AppID: in.AppID, Token: in.Token, Key: in.Key,
		Mode: PushMode(in.Mode), Document: in.Document,
	}
	switch _, err := p.own(c.wx); {
	case err != nil:
		return nil, badRequest("%s", err)
	case p.Mode == "check":
		return done, pushError(p.CheckURL(r.Context(), c.wx))
	case !slices.Contains([]PushMode{PlainMode, CompatibleMode, SafeMode}, p.Mode):
		return nil, badRequest(`unknown mode: want "safe", "compatible", "plain" or "check"`)
	}
	response, err := p.Send(r.Context(), c.wx)
	if err != nil {
		return nil, pushError(err)
	}
	return fields{"response": string(response)}, nil
}
