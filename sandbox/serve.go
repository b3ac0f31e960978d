package sandbox

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// ServeHTTP answers as api.weixin.qq.com does, at the paths of WeChat's consent pages as those do, and under
// /sandbox/ as the sandbox itself. It works behind
// HTTP/1.1 and HTTP/2, plain and TLS; it must not stand behind a http.ServeMux, which cleans paths.
func (s *WeChat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := r.URL.EscapedPath(); p == "/sandbox" || strings.HasPrefix(p, "/sandbox/") {
		s.serveControl(w, r)
		return
	}
	if phone, is := loginPages[r.URL.EscapedPath()]; is {
		s.serveLogin(w, r, phone)
		return
	}
	c, whole := newCall(r, s.cfg.Now())
	a, kind, appid := s.answer(c, whole)
	a.finish(c)

	note := Call{
		Time: c.now, Method: c.method, Path: c.path, RawQuery: r.URL.RawQuery, Host: r.Host, Header: r.Header.Clone(),
		// Copied, or all of a large upload would be kept.
		Body:       bytes.Clone(c.body[:min(len(c.body), bodyKept)]),
		BodySHA256: c.sum, Length: int64(len(c.body)), TransferEncoding: r.TransferEncoding,
		Status: a.status, ErrCode: a.code, Appid: appid, TokenKind: kind, RID: a.rid,
	}
	if a.isJSON() {
		note.Answer = bytes.Clone(a.body[:min(len(a.body), answerKept)])
	}
	if c.fault != nil {
		note.Fault = c.fault.ID
		if c.fault.Break == BreakBefore {
			note.Status = 0
		}
	}
	s.history.add(note)
	if s.cfg.Observe != nil {
		s.cfg.Observe(note)
	}
	a.write(w, c, s.cfg.Gzip && a.isJSON() && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"))
}

// answer is the order in which a call is looked at: the edge, the faults, the path, the form of the request, the
// token, and only then what is asked.
func (s *WeChat) answer(c *call, whole bool) (a answer, kind TokenKind, appid string) {
	s.inspect(c)
	// WeChat's edge wants a Content-Length, and says so in its own way.
	if c.lengthMissing() {
		s.violate(c, "the body is chunked or has no Content-Length")
		return answer{status: http.StatusPreconditionFailed, contentType: "text/html", body: []byte("<html><head><title>412 Precondition Failed</title></head></html>\r\n")}, "", ""
	}
	if !whole {
		return answer{status: http.StatusRequestEntityTooLarge, contentType: "text/html", body: []byte("<html><head><title>413 Request Entity Too Large</title></head></html>\r\n")}, "", ""
	}
	e, known := s.endpoints[c.path]

	s.mu.Lock()
	if values := c.credentials(); len(values) > 0 {
		c.token, _ = s.tokens.get(values[0])
	}
	s.mu.Unlock()
	if c.token != nil {
		kind, appid = c.token.kind, c.token.appid
	}

	if c.fault = s.faults.take(c.path, func(of string) bool {
		return of == appid || of == c.arg("appid") || of == c.field("authorizer_appid")
	}); c.fault != nil {
		if a, instead := c.fault.answer(); instead {
			return a, kind, appid
		}
	}
	switch {
	case !known:
		return fail(40066), kind, appid
	case c.Header.Get("Content-Encoding") != "" && c.Header.Get("Content-Encoding") != "identity":
		return fail(40221), kind, appid
	}
	if code := e.form(c); code != 0 {
		// An expired token is told before a bad body is, as at WeChat: what a proxy renews for must come first.
		s.mu.Lock()
		defer s.mu.Unlock()
		if refused := s.admit(c, e); refused != 0 && code != 43001 && code != 43002 {
			code = refused
		}
		return fail(code), kind, appid
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if code := s.admit(c, e); code != 0 {
		return fail(code), kind, appid
	}
	if c.account != nil {
		c.account.count(c)
	}
	return e.serve(s, c), kind, appid
}

// lengthMissing tells a request of which nobody knows where it ends before it has ended.
func (c *call) lengthMissing() bool {
	if len(c.TransferEncoding) > 0 || c.ContentLength < 0 {
		return true
	}
	return c.method == http.MethodPost && c.ContentLength == 0 && c.ProtoMajor == 1 && c.Request.Header.Get("Content-Length") == ""
}

// form checks the request against its row: method, body. It gives an errcode, 0 for good.
func (e *endpoint) form(c *call) int {
	switch {
	case e.method == http.MethodGet && c.method != http.MethodGet:
		return 43001
	case e.method == http.MethodPost && c.method != http.MethodPost:
		return 43002
	}
	// Paths that take either method want a body only of a POST.
	if e.body == noBody || c.method == http.MethodGet {
		return 0
	}
	if len(c.body) == 0 {
		return 44002
	}
	if e.body == multipartBody {
		return c.readUpload()
	}
	if e.body == plainJSON && escaped(c.body) {
		return 40033
	}
	if !json.Valid(c.body) || !bytes.HasPrefix(bytes.TrimLeft(c.body, " \t\r\n"), []byte("{")) {
		return 47001
	}
	return 0
}
