package callback

import (
	"bytes"
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

	"wxproxy/wechat"
)

// maxServiceAnswer is the longest answer of a service that is read, in bytes. WeChat takes some thousand.
const maxServiceAnswer = 1 << 20

// The answer of a service that took the push, and can still not be passed on.
var (
	errReplyTooLong = errors.New("the service's answer is over 1 MiB")
	errReplyNoXML   = errors.New("the service's answer is neither empty, nor success, nor a reply in XML")
)

// badReply reports whether the service took the push, though its answer is of no use.
func badReply(err error) bool {
	return errors.Is(err, errReplyTooLong) || errors.Is(err, errReplyNoXML)
}

// newServices makes the way to the services. They are ours: no proxy stands in between, and none of them sends us elsewhere.
func newServices() *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    2 * time.Second,
			IdleConnTimeout:        30 * time.Second,
			MaxIdleConnsPerHost:    64,
			MaxConnsPerHost:        512, // a service that hangs must not take all sockets
			MaxResponseHeaderBytes: 64 << 10,
			Protocols:              protocols,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// delivery is one push on its way to a service.
type delivery struct {
	url     string
	account string
	openid  string // "": the push names nobody
	id      string // what the service and our log call it
	doc     []byte
}

// newID makes a name for a delivery.
func newID() string { return strings.ToLower(rand.Text()) }

// send posts the document and gives the service's reply, nil where it wants none. The errors are those of [badReply], and
// others where the service has to be tried again; they quote neither its address nor what it said.
func send(ctx context.Context, client *http.Client, d delivery) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(d.doc))
	if err != nil {
		return nil, errors.New("the service's address is no URL") // err quotes it
	}
	req.Header.Set("Content-Type", "text/xml")
	req.Header.Set("User-Agent", "wxproxy")
	req.Header.Set("X-WX-APPID", d.account)
	req.Header.Set("X-Request-Id", d.id)
	if d.openid != "" {
		req.Header.Set("X-WX-OPENID", d.openid)
	}
	// Not sent, as it has no value: it tells net/http that a request may be repeated when the service has closed a
	// connection that rested. Services see repeats anyway, as WeChat makes some.
	req.Header["X-Idempotency-Key"] = nil
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the service could not be reached: %w", reason(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, fmt.Errorf("the service answered HTTP %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxServiceAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("the service's answer broke off: %w", reason(err))
	case len(body) > maxServiceAnswer:
		return nil, errReplyTooLong
	}
	return readReply(body)
}

// readReply tells a reply from the ways of saying that there is none.
func readReply(body []byte) ([]byte, error) {
	body = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(body), []byte("\xef\xbb\xbf")))
	// Some frameworks answer every string as JSON, in quotes.
	switch word := strings.ToLower(string(body[:min(len(body), len(success)+2)])); {
	case len(body) == 0, len(body) == len(word) && strings.Trim(word, `"`) == success:
		return nil, nil
	case wechat.ParseReply(body) != nil:
		return nil, errReplyNoXML
	}
	return body, nil
}

// reason is what net/http has to say without the address, in which there may be a key.
func reason(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("it took too long")
	case errors.Is(err, context.Canceled):
		return errors.New("wxproxy stops")
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it closed the connection")
	}
	return errors.New("its answer is not HTTP, or too large") // net/http quotes what it read
}
