// Package push sends what WeChat pushes to a component's callback listener:
// encrypted, signed XML over HTTP. It does not decide what is pushed.
package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"wxproxy/sandbox/internal/random"
	"wxproxy/wechat"
)

// eventsPath is where the callback listener receives authorization events
// (授权事件接收URL).
const eventsPath = "/component/events"

// maxResponse is how many bytes of a response are read.
const maxResponse = 1 << 20

// ErrNoURL is returned where there is no push URL.
var ErrNoURL = errors.New("sandbox: no push URL is set")

// Sender pushes documents to one callback listener. It is safe for concurrent
// use. Its lock guards the URL and the start of background pushes; it is not
// held while a push is sent.
type Sender struct {
	component string // appid
	crypt     *wechat.Crypt
	client    *http.Client
	timeout   time.Duration // of each push
	now       func() time.Time

	mu         sync.Mutex
	url        string // base URL without a trailing slash, "" for none
	closed     bool
	background sync.WaitGroup
}

// NewSender returns a sender without a URL. crypt is that of the component;
// timeout is how long a callback can take to respond.
func NewSender(component string, crypt *wechat.Crypt, timeout time.Duration, now func() time.Time) *Sender {
	return &Sender{component: component, crypt: crypt, timeout: timeout, now: now, client: &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// SetURL sets the base URL of the callback listener; "" ends pushing. It
// returns an error if that is no http or https URL.
func (s *Sender) SetURL(base string) error {
	if base != "" {
		u, err := url.Parse(base)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" {
			return errors.New("sandbox: malformed push URL: want a URL like http://127.0.0.1:8081")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.url = strings.TrimSuffix(base, "/")
	return nil
}

// URL returns the base URL, "" if there is none. It can contain a password.
func (s *Sender) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

// Background runs push in its own goroutine with a context that ends after the
// timeout. It does nothing if there is no URL or after Close.
func (s *Sender) Background(push func(context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.url == "" || s.closed {
		return
	}
	// Under the lock, so that Close cannot miss a push that has just begun.
	s.background.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
		defer cancel()
		push(ctx)
	})
}

// Close waits for background pushes and starts no more.
func (s *Sender) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.background.Wait()
	s.client.CloseIdleConnections()
}

// Recipient is the account that a message was sent to. The zero value stands
// for the component itself.
type Recipient struct {
	OriginalID string // of the account
	OpenID     string // of the user that sent the message
}

// Send pushes the document xml to a path below the URL and returns the response
// body, at most 1 MiB of it. It fails with ErrNoURL, or if the listener cannot
// be reached within the timeout or responds with another status than 200.
func (s *Sender) Send(ctx context.Context, path, xml string, to Recipient) ([]byte, error) {
	query, body := s.seal(xml, to)
	return s.do(ctx, http.MethodPost, path+"?"+query.Encode(), wechat.TypeXML, body)
}

// do sends a request to a path below the URL. It returns what Send returns.
func (s *Sender) do(ctx context.Context, method, target, contentType, body string) ([]byte, error) {
	base := s.URL()
	if base == "" {
		return nil, ErrNoURL
	}
	req, err := http.NewRequestWithContext(ctx, method, base+target, strings.NewReader(body))
	if err != nil {
		return nil, errors.New("sandbox: malformed push path")
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("User-Agent", "Mozilla/4.0") // as seen in logs of users
	resp, err := s.client.Do(req)
	if err != nil {
		// The error quotes the URL, whose signature is good for this document.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("sandbox: reaching the callback: %w", err)
	}
	defer resp.Body.Close()
	response, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	switch {
	case err != nil:
		return nil, fmt.Errorf("sandbox: reading the callback's response: %w", err)
	case resp.StatusCode != http.StatusOK:
		return response, fmt.Errorf("sandbox: callback responded with HTTP %d", resp.StatusCode)
	}
	return response, nil
}

// seal encrypts and signs a document, and returns the query and the body of the
// push that carries it.
func (s *Sender) seal(xml string, to Recipient) (query url.Values, body string) {
	encrypted := s.crypt.Encrypt([]byte(xml))
	timestamp, nonce := unix(s.now()), random.Digits()
	query = url.Values{
		"signature":     {s.crypt.Signature(timestamp, nonce, "")},
		"timestamp":     {timestamp},
		"nonce":         {nonce},
		"encrypt_type":  {"aes"},
		"msg_signature": {s.crypt.Signature(timestamp, nonce, encrypted)},
	}
	outer := Document("").CDATA("AppId", s.component)
	if to.OriginalID != "" {
		outer = Document("").CDATA("ToUserName", to.OriginalID)
		query.Set("openid", to.OpenID)
	}
	return query, string(Document("").Element("xml", outer.CDATA("Encrypt", encrypted)))
}

// SendEvent pushes an authorization event, and requires the seven bytes
// "success" back (doc/oplatform/…/Before_Develop/component_verify_ticket). It
// fails as Send does, and if the response is another.
func (s *Sender) SendEvent(ctx context.Context, event Document) error {
	body, err := s.Send(ctx, eventsPath, string(Document("").Element("xml", event)), Recipient{})
	switch {
	case err != nil:
		return err
	case string(body) != "success":
		return fmt.Errorf("sandbox: callback responded with %d bytes that are not \"success\"", len(body))
	}
	return nil
}
