package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// eventsPath is where the callback listener takes authorization events (授权事件接收URL).
const eventsPath = "/component/events"

// ErrNoPushURL: there is nowhere to push to.
var ErrNoPushURL = errors.New("sandbox: no push URL is set")

// SetPushURL changes where pushes go; "" ends them. The error says that it is no http or https URL.
func (s *WeChat) SetPushURL(base string) error {
	if base != "" {
		u, err := url.Parse(base)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" {
			return errors.New("sandbox: the push URL must be like http://127.0.0.1:8081")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pushURL = strings.TrimSuffix(base, "/")
	return nil
}

// PushTicket makes a new ticket and pushes it. The ticket is good even if the push fails. The errors:
// [ErrNoPushURL]; the callback could not be reached within five seconds, or answered something else than the seven
// bytes "success".
func (s *WeChat) PushTicket(ctx context.Context) error {
	now := s.cfg.Now()
	s.mu.Lock()
	ticket, base := s.newTicket(now), s.pushURL
	s.mu.Unlock()
	if base == "" {
		return ErrNoPushURL
	}
	err := s.pushEvent(ctx, s.document(now, "component_verify_ticket").cdata("ComponentVerifyTicket", ticket))
	if err == nil {
		s.mu.Lock()
		s.pushedAt = now
		s.mu.Unlock()
	}
	return err
}

// Run pushes a ticket at once and every ten minutes, until ctx ends. onError, which may be nil, is told of those that
// failed; the next one comes all the same.
func (s *WeChat) Run(ctx context.Context, onError func(error)) {
	every := time.NewTicker(ticketInterval)
	defer every.Stop()
	for ctx.Err() == nil {
		if err := s.PushTicket(ctx); err != nil && onError != nil && ctx.Err() == nil {
			onError(err)
		}
		select {
		case <-ctx.Done():
		case <-every.C:
		}
	}
}

// PushXML pushes an arbitrary document, well encrypted and signed, to a path below the push URL, and gives what
// was answered, up to 1 MiB. To "/component/events" it comes as an authorization event, to "/{appid}/events" as
// that account's message. The errors: [ErrNoPushURL]; not reached within five seconds; an HTTP status other than
// 200.
func (s *WeChat) PushXML(ctx context.Context, path, xml string) (answer []byte, err error) {
	now := s.cfg.Now()
	s.mu.Lock()
	base, outer, openid := s.pushURL, document("").cdata("AppId", s.cfg.ComponentAppID), ""
	appid, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if a := s.accounts[appid]; a != nil {
		outer, openid = document("").cdata("ToUserName", a.originalID()), a.openid("1")
	}
	s.mu.Unlock()
	if base == "" {
		return nil, ErrNoPushURL
	}

	encrypted := s.crypt.Encrypt([]byte(xml))
	timestamp, nonce := unix(now), randomDigits()
	q := url.Values{
		"signature": {s.crypt.Signature(timestamp, nonce, "")}, "timestamp": {timestamp}, "nonce": {nonce},
		"encrypt_type": {"aes"}, "msg_signature": {s.crypt.Signature(timestamp, nonce, encrypted)},
	}
	if openid != "" {
		q.Set("openid", openid)
	}
	body := document("").element("xml", outer.cdata("Encrypt", encrypted))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path+"?"+q.Encode(), strings.NewReader(string(body)))
	if err != nil {
		return nil, errors.New("sandbox: that path cannot be pushed to")
	}
	req.Header.Set("Content-Type", "text/xml")
	req.Header.Set("User-Agent", "Mozilla/4.0") // as seen in logs of users
	resp, err := s.pusher.Do(req)
	if err != nil {
		// net/http quotes the URL, whose signature is good for this document.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("sandbox: the callback could not be reached: %w", err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return nil, fmt.Errorf("sandbox: the callback's answer broke off: %w", err)
	case resp.StatusCode != http.StatusOK:
		return answer, fmt.Errorf("sandbox: the callback answered HTTP %d", resp.StatusCode)
	}
	return answer, nil
}

// pushEvent pushes an authorization event, and wants the seven bytes
// (doc/oplatform/…/Before_Develop/component_verify_ticket). Without a push URL there is nothing to do.
func (s *WeChat) pushEvent(ctx context.Context, doc document) error {
	answer, err := s.PushXML(ctx, eventsPath, string(document("").element("xml", doc)))
	switch {
	case errors.Is(err, ErrNoPushURL):
		return nil
	case err != nil:
		return err
	case string(answer) != "success":
		return fmt.Errorf("sandbox: the callback's answer is %d bytes that are not \"success\"", len(answer))
	}
	return nil
}

// document is XML under way.
type document string

// document begins an authorization event.
func (s *WeChat) document(now time.Time, infoType string) document {
	return document("").cdata("AppId", s.cfg.ComponentAppID).number("CreateTime", int(now.Unix())).cdata("InfoType", infoType)
}

func (d document) cdata(name, value string) document {
	// A CDATA section cannot hold its own end; two sections can.
	value = strings.ReplaceAll(value, "]]>", "]]]]><![CDATA[>")
	return d.element(name, document("<![CDATA["+value+"]]>"))
}

func (d document) number(name string, n int) document {
	return d.element(name, document(strconv.Itoa(n)))
}

func (d document) element(name string, inner document) document {
	return d + document("<"+name+">") + inner + document("</"+name+">\n")
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
