package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"wxproxy/sandbox/internal/random"
	"wxproxy/wechat"
)

// Mode is how the pushes of an own account are encrypted, as its page at WeChat
// calls it.
type Mode string

// Modes (doc/oplatform/developers/dev/push/encryption).
const (
	Plain      Mode = "plain"      // 明文模式
	Compatible Mode = "compatible" // 兼容模式
	Safe       Mode = "safe"       // 安全模式
)

// Own is a push to the path of an account that is not the component's. It is
// signed and encrypted with keys of the account's own.
type Own struct {
	AppID      string
	Token, Key string // Key, the EncodingAESKey, is not used in plain mode
	Mode       Mode
	Document   string // XML, or JSON if it begins with "{"
	Recipient  Recipient
}

// SendOwn pushes a document of an own account, and returns what Send returns.
// It also fails if a key or the mode is malformed, or if compatible mode has to
// put Encrypt into a document that is neither XML nor JSON.
func (s *Sender) SendOwn(ctx context.Context, o Own) ([]byte, error) {
	query, body, err := s.sealOwn(o)
	if err != nil {
		return nil, err
	}
	contentType := wechat.TypeXML
	if wechat.IsJSON([]byte(o.Document)) {
		contentType = wechat.TypeJSON
	}
	return s.do(ctx, http.MethodPost, o.target(query), contentType, body)
}

// CheckURL sends WeChat's check of the URL of an own account, and fails unless
// the response is the echostr and nothing else.
func (s *Sender) CheckURL(ctx context.Context, o Own) error {
	query, echo := s.signOwn(o), random.Digits()
	query.Set("echostr", echo)
	response, err := s.do(ctx, http.MethodGet, o.target(query), "", "")
	if err == nil && string(response) != echo {
		err = fmt.Errorf("sandbox: callback responded with %d bytes that are not the echostr",
			len(response))
	}
	return err
}

// target returns the path and the query of the account.
func (o Own) target(query url.Values) string { return "/" + o.AppID + "/events?" + query.Encode() }

// signOwn returns the query of a push in plain mode.
func (s *Sender) signOwn(o Own) url.Values {
	timestamp, nonce := unix(s.now()), random.Digits()
	return url.Values{
		"signature": {wechat.Signature(wechat.NewSecret(o.Token), timestamp, nonce)},
		"timestamp": {timestamp}, "nonce": {nonce},
	}
}

// sealOwn returns the query and the body of a push.
func (s *Sender) sealOwn(o Own) (query url.Values, body string, err error) {
	query = s.signOwn(o)
	if o.Recipient.OpenID != "" {
		query.Set("openid", o.Recipient.OpenID)
	}
	if o.Mode == Plain {
		return query, o.Document, nil
	}
	crypt, err := wechat.NewCrypt(wechat.NewSecret(o.Token), wechat.NewSecret(o.Key), o.AppID)
	if err != nil {
		return nil, "", fmt.Errorf("sandbox: %w", err)
	}
	encrypted := crypt.Encrypt([]byte(o.Document))
	query.Set("encrypt_type", "aes")
	timestamp, nonce := query.Get("timestamp"), query.Get("nonce")
	query.Set("msg_signature", crypt.Signature(timestamp, nonce, encrypted))
	switch o.Mode {
	case Safe:
		body = safeBody(o, encrypted)
	case Compatible:
		body, err = addEncrypt(o.Document, encrypted)
	default:
		err = errors.New("sandbox: unknown mode: want plain, compatible or safe")
	}
	return query, body, err
}

// safeBody returns the body of a push in safe mode.
func safeBody(o Own, encrypted string) string {
	if wechat.IsJSON([]byte(o.Document)) {
		to, _ := json.Marshal(o.Recipient.OriginalID) // strings can always be encoded
		return `{"ToUserName":` + string(to) + `,"Encrypt":"` + encrypted + `"}`
	}
	outer := Document("").CDATA("ToUserName", o.Recipient.OriginalID).CDATA("Encrypt", encrypted)
	return string(Document("").Element("xml", outer))
}

// addEncrypt returns a document with Encrypt at its end, as in compatible mode.
func addEncrypt(doc, encrypted string) (string, error) {
	doc = strings.TrimSpace(doc)
	if rest, ok := strings.CutSuffix(doc, "}"); ok {
		if strings.TrimSpace(rest) != "{" {
			rest += ","
		}
		return rest + `"Encrypt":"` + encrypted + `"}`, nil
	}
	rest, ok := strings.CutSuffix(doc, "</xml>")
	if !ok {
		return "", errors.New("sandbox: document is neither <xml> nor a JSON object")
	}
	return rest + string(Document("").CDATA("Encrypt", encrypted)) + "</xml>", nil
}
