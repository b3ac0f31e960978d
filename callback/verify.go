package callback

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"wxproxy/wechat"
)

var (
	errOuterAppID = errors.New("outer document names another component")
	errInnerAppID = errors.New("decrypted document names another component")
)

// verifiedPush is a push whose signature and trailing appid have been verified:
// WeChat made it, for this component or for an own account. Its document is
// parsed once, for routing, handling and forwarding alike.
type verifiedPush struct {
	settings *settings // those it was verified with
	// signature identifies the push: msg_signature, in plain mode signature.
	signature string
	signedAt  time.Time
	isSpliced bool          // see spliced
	crypt     *wechat.Crypt // with the key that decrypted it; nil in plain mode
	body      string        // in plain mode: the SHA-256 of the body, which is not signed
	isOwn     bool          // made for an own account, not for the component
	raw       rawPush
	doc       *wechat.Document
}

// isPlain reports whether the push came in plain mode, in which the signature
// does not cover the body.
func (p verifiedPush) isPlain() bool { return p.body != "" }

// verify decides whether a push is from WeChat and for this component, or for
// the account in the path. account is "" on the path of events. It changes
// nothing.
func (s *settings) verify(p rawPush, account string) (verifiedPush, *outcome) {
	app, hasKeys := s.apps[account]
	if p.signature == "" {
		return s.verifyPlain(p, account)
	}
	parseEnvelope, parseDocument := wechat.ParseEnvelope, wechat.ParseDocument
	if hasKeys {
		parseEnvelope, parseDocument = wechat.ParseOwnEnvelope, parseOwnDocument
	}
	envelope, err := parseEnvelope(p.body)
	if err != nil {
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultBadMessage, err)
	}
	// Two components that push to one address are a known mistake, and this is
	// its clearest sign.
	if !hasKeys && envelope.AppID != "" && envelope.AppID != s.component {
		return verifiedPush{}, failure(http.StatusForbidden, "", resultWrongAppID, errOuterAppID)
	}
	decrypted, crypt, err := s.decrypt(p, envelope.Encrypt, s.cryptsFor(account))
	switch {
	case err != nil && hasKeys && app.Crypt == nil &&
		app.signed(p.signature, p.timestamp, p.nonce, envelope.Encrypt):
		err = errNoMessageKey
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultUndecryptable, err)
	case errors.Is(err, wechat.ErrWrongAppID):
		return verifiedPush{}, failure(http.StatusForbidden, "", resultWrongAppID, err)
	case errors.Is(err, wechat.ErrDecrypt):
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultUndecryptable, err)
	case err != nil:
		return verifiedPush{}, failure(http.StatusForbidden, "", resultBadSignature, err)
	}
	doc, err := parseDocument(decrypted)
	if err != nil {
		return verifiedPush{}, failure(http.StatusBadRequest, "", resultBadMessage, err)
	}
	return verifiedPush{
		settings: s, signature: p.signature, signedAt: p.signedAt, doc: doc,
		crypt: crypt, raw: p, isOwn: s.isOwnCrypt(crypt),
		isSpliced: spliced(p.timestamp, p.nonce, doc.CreateTime(), s.maxAge),
	}, nil
}

// maxAhead is how far the clock of WeChat may be ahead of this machine's.
const maxAhead = 5 * time.Minute

// errSpliced: see spliced.
var errSpliced = errors.New("timestamp made from the nonce of an older push")

// checkTime rejects a push that was signed too long ago, or too far ahead.
// event is the event label.
func (p verifiedPush) checkTime(now time.Time, event string) *outcome {
	reject := func(err error) *outcome {
		return failure(http.StatusForbidden, event, resultWrongTime, err)
	}
	const hint = "check that the clock of this machine is synchronized (NTP)"
	age := now.Sub(p.signedAt).Round(time.Second)
	switch {
	case p.isSpliced:
		return reject(errSpliced)
	case age > p.settings.maxAge:
		return reject(fmt.Errorf("signed %v ago, limit %v; %s", age, p.settings.maxAge, hint))
	case -age > maxAhead:
		return reject(fmt.Errorf("signed %v ahead, limit %v; %s", -age, maxAhead, hint))
	}
	return nil
}

// createTime returns when WeChat made the push, by its clock: the CreateTime of
// its document, or the time at which it was signed, if there is no CreateTime or
// it is later than that. A CreateTime far ahead would be newer than all that
// follows. A ticket is taken whatever time it was signed, and package tokens
// bounds its CreateTime.
func (p verifiedPush) createTime(e wechat.Event) time.Time {
	if e.CreateTime.IsZero() || e.InfoType != infoTicket && e.CreateTime.After(p.signedAt) {
		return p.signedAt
	}
	return e.CreateTime
}

// acceptableUntil is the time from which on no process accepts the push. The
// clocks of replicas may differ by maxAhead.
func (p verifiedPush) acceptableUntil() time.Time {
	return p.signedAt.Add(p.settings.maxAge + maxAhead)
}

// spliced reports whether digits of the nonce have been made into the timestamp
// of an old push. The signature covers both, sorted and joined without a
// separator, so a timestamp can be cut from either end of the joined digits.
//
// The document's CreateTime, which cannot be changed, says which end is right:
// WeChat makes and signs a push within seconds. A nonce is random, so that it
// is nearer to CreateTime by chance about once in a billion pushes.
func spliced(timestamp, nonce string, created time.Time, maxAge time.Duration) bool {
	first, second := timestamp, nonce
	if nonce < timestamp {
		first, second = nonce, timestamp
	}
	digits := first + second
	other := digits[:len(timestamp)]
	if strings.HasPrefix(digits, timestamp) {
		other = digits[len(digits)-len(timestamp):]
	}
	is, ok := parseTimestamp(timestamp)
	if !ok || created.IsZero() {
		return false
	}
	was, ok := parseTimestamp(other)
	distance := was.Sub(created).Abs()
	return ok && distance <= maxAge && distance < is.Sub(created).Abs()
}

// decrypt tries the keys in turn, and returns the one that fits. If none does,
// it returns the error of the key that came furthest: with the key that a push
// was not made with, a push for another appid fails earlier, on its padding.
func (s *settings) decrypt(
	p rawPush, encrypted string, crypts []*wechat.Crypt,
) ([]byte, *wechat.Crypt, error) {
	furthest := wechat.ErrSignature
	for _, c := range crypts {
		doc, err := c.Open(p.signature, p.timestamp, p.nonce, encrypted)
		switch {
		case err == nil:
			return doc, c, nil
		case errors.Is(err, wechat.ErrWrongAppID), furthest == wechat.ErrSignature:
			furthest = err
		}
	}
	return nil, nil, furthest
}
