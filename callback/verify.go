package callback

import (
	"errors"
	"net/http"

	"wxproxy/wechat"
)

var (
	errOuterAppID = errors.New("outer document names another component")
	errInnerAppID = errors.New("decrypted document names another component")
)

// verifiedPush is a push whose signature and trailing appid have been verified:
// WeChat made it, for this component. Its document is parsed once, for routing,
// handling and forwarding alike.
type verifiedPush struct {
	settings  *settings // those it was verified with
	signature string    // msg_signature, which identifies the push
	openid    string    // "" if the query names none; not covered by the signature
	doc       *wechat.Document
}

// verify decides whether a push is from WeChat and for this component. It
// changes nothing.
func (s *settings) verify(p rawPush) (verifiedPush, *outcome) {
	envelope, err := wechat.ParseEnvelope(p.body)
	if err != nil {
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultBadMessage, err)
	}
	// Two components that push to one address are a known mistake, and this is
	// its clearest sign.
	if envelope.AppID != "" && envelope.AppID != s.component {
		return verifiedPush{}, failure(http.StatusForbidden, "", resultWrongAppID, errOuterAppID)
	}
	decrypted, err := s.decrypt(p, envelope.Encrypt)
	switch {
	case errors.Is(err, wechat.ErrWrongAppID):
		return verifiedPush{}, failure(http.StatusForbidden, "", resultWrongAppID, err)
	case errors.Is(err, wechat.ErrDecrypt):
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultUndecryptable, err)
	case err != nil:
		return verifiedPush{}, failure(http.StatusForbidden, "", resultBadSignature, err)
	}
	doc, err := wechat.ParseDocument(decrypted)
	if err != nil {
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultBadMessage, err)
	}
	return verifiedPush{settings: s, signature: p.signature, openid: p.openid, doc: doc}, nil
}

// decrypt tries the keys in turn. If none fits, it returns the error of the key
// that came furthest: with the key that a push was not made with, a push for
// another appid fails earlier, on its padding.
func (s *settings) decrypt(p rawPush, encrypted string) ([]byte, error) {
	furthest := wechat.ErrSignature
	for _, c := range s.crypts {
		doc, err := c.Open(p.signature, p.timestamp, p.nonce, encrypted)
		switch {
		case err == nil:
			return doc, nil
		case errors.Is(err, wechat.ErrWrongAppID), furthest == wechat.ErrSignature:
			furthest = err
		}
	}
	return nil, furthest
}
