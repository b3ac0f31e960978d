package callback

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"

	"wxproxy/wechat"
)

// App is an own account whose pushes are accepted, beside those of the
// component's accounts.
type App struct {
	AppID string
	// Token signs its pushes; it is required.
	Token wechat.Secret
	// Crypt decrypts its pushes. nil: they are in plain mode (明文模式).
	//
	// The signature of a plain push covers its timestamp and nonce, and nothing
	// of its body. So plain pushes are accepted only without Crypt.
	Crypt *wechat.Crypt
}

var (
	errPlainPush = errors.New("plain push, although the account has a message_key: " +
		"choose safe mode (安全模式) at WeChat, or remove message_key")
	errNoMessageKey = errors.New("encrypted push, and the account has no message_key")
	errPlainSigned  = errors.New("wrong signature: another message token, or not sent by WeChat")
	errOtherBody    = errors.New("signature of another push")
)

// cloneApps returns apps by appid. Apps without a token are left out.
func cloneApps(apps []App) map[string]App {
	out := make(map[string]App, len(apps))
	for _, a := range apps {
		if !a.Token.IsEmpty() {
			out[a.AppID] = a
		}
	}
	return out
}

// signed reports whether signature is that of the parts with the account's
// token: timestamp, nonce and, in msg_signature, Encrypt.
func (a App) signed(signature string, parts ...string) bool {
	want := wechat.Signature(a.Token, parts...)
	return subtle.ConstantTimeCompare([]byte(want), []byte(signature)) == 1
}

// cryptsFor returns what may decrypt a push on the path of an account: its own
// key first, then those of the component. An account that has both may get
// both kinds of pushes.
func (s *settings) cryptsFor(account string) []*wechat.Crypt {
	if own := s.apps[account].Crypt; own != nil {
		return append([]*wechat.Crypt{own}, s.crypts...)
	}
	return s.crypts
}

// verifyPlain verifies a push in plain mode: its signature, which covers
// nothing but timestamp and nonce.
func (s *settings) verifyPlain(p rawPush, account string) (verifiedPush, *outcome) {
	app, known := s.apps[account]
	switch {
	case !known:
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultBadMessage, errQuery)
	case !app.signed(p.plainSignature, p.timestamp, p.nonce):
		return verifiedPush{}, failure(http.StatusForbidden, "", resultBadSignature, errPlainSigned)
	case app.Crypt != nil:
		return verifiedPush{}, failure(http.StatusForbidden, "", resultBadSignature, errPlainPush)
	}
	doc, err := parseOwnDocument(p.body)
	if err != nil {
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultBadMessage, err)
	}
	digest := sha256.Sum256(p.body)
	return verifiedPush{
		settings: s, signature: p.plainSignature, signedAt: p.signedAt, doc: doc, raw: p,
		body: hex.EncodeToString(digest[:]), isOwn: true,
		isSpliced: spliced(p.timestamp, p.nonce, doc.CreateTime(), s.maxAge),
	}, nil
}

// parseOwnDocument parses the document of an own account's push.
func parseOwnDocument(doc []byte) (*wechat.Document, error) {
	if wechat.IsJSON(doc) {
		return wechat.ParseJSONDocument(doc)
	}
	return wechat.ParseDocument(doc)
}

// isOwnCrypt reports whether c is the key of an own account.
func (s *settings) isOwnCrypt(c *wechat.Crypt) bool { return !slices.Contains(s.crypts, c) }

// belongsToAnother reports whether a message to userName on the path of an own
// account is known to be for another account. The key or the token of the
// account proves the path, so nothing is concluded from such a message: a third
// party that has seen the signature of one in plain mode could name any account
// in another.
func (h *messageHandler) belongsToAnother(ctx context.Context, account, userName string) bool {
	if userName == "" || h.isAnothers == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, h.claims.storeTime())
	defer cancel()
	is, err := h.isAnothers(ctx, account, userName)
	if err != nil {
		h.log.Debug("account of a message not checked", "account", account, "error", err)
	}
	return err == nil && is
}
