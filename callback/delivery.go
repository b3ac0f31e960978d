package callback

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/wechat"
)

// delivery is a request that delivers a push to a service.
type delivery struct {
	rule       *Forward
	id         string // X-Request-Id, also in the log
	event      string // names the push, for all services and tries
	attempt    int    // from 1
	account    string
	openid     string // of the sender of a message, or ""
	reconciled bool   // no push announced the event

	body        []byte
	contentType string
	// query is that of a push that is passed on as WeChat sent it. It is added
	// to the rule's own.
	query string
}

// newDeliveryID returns a random name for a delivery.
func newDeliveryID() string { return strings.ToLower(rand.Text()) }

// request returns the delivery as a request. Its error does not quote the
// address, which can hold a key.
func (d delivery) request(ctx context.Context, now time.Time) (*http.Request, error) {
	body := bytes.NewReader(d.body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.rule.URL, body)
	if err != nil {
		return nil, errors.New("invalid address of the service")
	}
	header := req.Header
	header.Set("Content-Type", d.contentType)
	header.Set("User-Agent", "wxproxy")
	header.Set("X-WX-APPID", d.account)
	header.Set("X-Request-Id", d.id)
	header.Set("X-Wxproxy-Event", d.event)
	header.Set("X-Wxproxy-Attempt", strconv.Itoa(d.attempt))
	if d.openid != "" {
		header.Set("X-WX-OPENID", d.openid)
	}
	if d.reconciled {
		header.Set("X-Wxproxy-Source", "comparison")
	}
	if !d.rule.Secret.IsEmpty() {
		header.Set("X-Wxproxy-Signature", bodySignature(d.rule.Secret, d.body, now))
	}
	// This header has no value and is not sent. It tells net/http that it can
	// repeat the request if the service has closed an idle connection. Services
	// see repeats anyway, because WeChat makes some.
	header["X-Idempotency-Key"] = nil

	query := d.query
	if query == "" && !d.rule.Token.IsEmpty() {
		query = plainQuery(d.rule.Token, now)
	}
	req.URL.RawQuery = joinQueries(req.URL.RawQuery, query)
	return req, nil
}

// joinQueries returns a query that has all of two, byte for byte.
func joinQueries(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "&" + b
}

// bodySignature returns the value of X-Wxproxy-Signature. What is signed is the
// time, a dot, and the body.
func bodySignature(secret wechat.Secret, body []byte, at time.Time) string {
	t := strconv.FormatInt(at.Unix(), 10)
	h := hmac.New(sha256.New, []byte(secret.Reveal()))
	h.Write([]byte(t + "."))
	h.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(h.Sum(nil))
}

// plainQuery returns the query that WeChat adds in plain mode (明文模式):
// signature, timestamp and nonce, which do not cover the body.
func plainQuery(token wechat.Secret, at time.Time) string {
	timestamp, nonce := strconv.FormatInt(at.Unix(), 10), newNonce()
	return "signature=" + wechat.Signature(token, timestamp, nonce) +
		"&timestamp=" + timestamp + "&nonce=" + nonce
}

// newNonce returns up to ten random digits, like WeChat's.
func newNonce() string {
	var random [8]byte
	rand.Read(random[:]) // never fails
	return strconv.FormatUint(binary.BigEndian.Uint64(random[:])%1e10, 10)
}

// deliver sends an event from the queue to its service. Any 2xx is a success,
// because no reply is needed.
func (h *Handler) deliver(ctx context.Context, d queue.Delivery) error {
	rule := h.settings.Load().service(d.Service)
	if rule == nil {
		return errors.New("service is not configured")
	}
	resp, err := post(ctx, h.services, delivery{
		rule: rule, id: newDeliveryID(), event: d.ID, attempt: d.Attempt,
		account: d.AppID, openid: d.OpenID, reconciled: d.Reconciled,
		body: d.Document, contentType: cmp.Or(d.ContentType, wechat.TypeXML),
	})
	if err != nil {
		return err
	}
	discard(resp)
	return nil
}
