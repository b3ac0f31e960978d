package callback

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/wechat"
)

// newServiceClient returns the HTTP client for the services. They belong to the
// operator, so it uses no proxy and follows no redirect.
func newServiceClient() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    2 * time.Second,
			IdleConnTimeout:        30 * time.Second,
			MaxIdleConnsPerHost:    64,
			MaxConnsPerHost:        512, // a service that hangs must not use up all sockets
			MaxResponseHeaderBytes: 64 << 10,
			Protocols:              protocols,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
}

// delivery is one push that is sent to a service.
type delivery struct {
	url     string
	account string
	openid  string // of the sender of a message; "" if it is no openid
	id      string // names the delivery in the X-Request-Id header and in the log
	doc     []byte
	// contentType of doc; "": text/xml. The reply to JSON may be JSON, too.
	contentType string
}

// newDeliveryID returns a random name for a delivery.
func newDeliveryID() string { return strings.ToLower(rand.Text()) }

// send posts a document to a service and returns its reply, nil if it wants
// none.
//
// If [isBadReply] reports true for the error, the service accepted the push;
// other errors mean that it must be sent again. Errors quote neither the
// address, which can hold a key, nor the response.
func send(ctx context.Context, client *http.Client, d delivery) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(d.doc))
	if err != nil {
		return nil, errors.New("invalid address of the service") // err quotes it
	}
	req.Header.Set("Content-Type", cmp.Or(d.contentType, wechat.TypeXML))
	req.Header.Set("User-Agent", "wxproxy")
	req.Header.Set("X-WX-APPID", d.account)
	req.Header.Set("X-Request-Id", d.id)
	if d.openid != "" {
		req.Header.Set("X-WX-OPENID", d.openid)
	}
	// This header has no value and is not sent. It tells net/http that it can
	// repeat the request if the service has closed an idle connection. Services
	// see repeats anyway, because WeChat makes some.
	req.Header["X-Idempotency-Key"] = nil
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reaching the service: %w", sanitizeError(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, fmt.Errorf("service responded with HTTP %d", resp.StatusCode)
	}
	body, err := readServiceResponse(resp)
	if err != nil {
		return nil, err
	}
	return parseServiceReply(body, d.contentType == wechat.TypeJSON)
}

// deliver sends an event from the queue to its service.
func (h *Handler) deliver(ctx context.Context, d queue.Delivery) error {
	f := h.settings.Load().service(d.Service)
	if f == nil {
		return errors.New("service is not configured")
	}
	_, err := send(ctx, h.services, delivery{
		url: f.URL, account: d.AppID, openid: d.OpenID, id: newDeliveryID(), doc: d.Document,
		contentType: d.ContentType,
	})
	if isBadReply(err) {
		err = nil // an event needs no reply
	}
	return err
}

// sanitizeError returns an error of net/http without the address, which can
// hold a key, and without what the service sent.
func sanitizeError(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("timeout")
	case errors.Is(err, context.Canceled):
		return errors.New("wxproxy is stopping")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("connection closed by the service")
	}
	return errors.New("response is not HTTP, or its header is too large") // err quotes it
}
