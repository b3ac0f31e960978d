package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/internal/redact"
	"wxproxy/proxy/standin"
	"wxproxy/proxy/transport"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// What responses may show. Some of WeChat's contain credentials of the platform:
// refresh tokens in the lists of accounts, the authorization code of an account
// that was just registered, the injected token in the record of a request
// (rid/get shows its URL). There are three promises:
//
//   - The response to a request that carried the component's token is read
//     whole and searched for credentials by name, by form and by value. What
//     cannot be searched is withheld. The same holds for responses that are
//     documented to contain credentials, see credentialPaths.
//   - Any other response is searched for the credentials that the request
//     carried. If it is large, that is done while it is streamed.
//   - Headers that contain a credential are removed.
//
// What belongs to an end user (session_key, the tokens of /sns/) passes.

// searchLimit bounds the size of a response that is read whole, bytes. The
// longest list of accounts, 500 per page, has about 100 KiB.
const searchLimit = 8 << 20

// credentialPaths are prefixes of paths whose responses can contain credentials
// even if the request carried an account's token, or none
// (doc/oplatform/openApi: ticket-token, authorization-management,
// register-management; openapi/getRidInfo).
var credentialPaths = []string{
	"/cgi-bin/component/",
	"/wxa/component/",
	"/cgi-bin/openapi/rid/get",
	pathFastRegister,
}

// pathFastRegister turns an official account into a mini program, too, and
// returns its authorization code
// (doc/oplatform/…/register-management/fast-registration-ent/registerMiniprogram).
const pathFastRegister = "/cgi-bin/account/fastregister"

// pathUsers begins the paths whose responses contain tokens of end users.
const pathUsers = "/sns/"

// mayRevealCredentials reports whether the response to a request by r for path
// has to be searched whole.
func (r *route) mayRevealCredentials(path []byte) bool {
	if r.tokenOwner != nil && r.kind == tokens.Component {
		return true
	}
	for _, prefix := range credentialPaths {
		if hasPrefixFold(path, prefix) {
			return true
		}
	}
	return false
}

// hasPrefixFold reports whether path begins with prefix in any case: WeChat may
// treat them alike, as [wechat.Table.Find] does.
func hasPrefixFold(path []byte, prefix string) bool {
	return len(path) >= len(prefix) && equalFold(path[:len(prefix)], prefix)
}

// maskResponse masks credentials in the body of the response, and withholds a
// body that has to be searched and cannot be. Large bodies are masked while
// they are sent, unless they have to be searched whole.
func (c *call) maskResponse() *apiError {
	resp := &c.ctx.Response
	if resp.SkipBody || c.ctx.Request.Header.IsHead() {
		return nil
	}
	if path := c.head.target.decodedPath; c.decision.mayRevealCredentials(path) {
		return c.maskWhole(&redact.Options{
			Values: c.sent, Names: true, StandIn: c.standInFor, Code: c.registeredCode(),
			UserTokens: isLogin(c.decision.endpoint) || hasPrefixFold(path, pathUsers),
		})
	}
	if c.sent.Empty() {
		return nil
	}
	stream, streamed := resp.BodyStream().(*transport.Stream)
	compressed := bytes.HasPrefix(transport.BodyPrefix(resp), gzipMagic)
	if compressed && !streamed && !c.leaked && !c.inspected {
		c.leaked = search(resp.Body(), c.sent)
	}
	switch {
	case c.leaked && compressed:
		return c.maskWhole(&redact.Options{Values: c.sent})
	case streamed:
		c.maskStream(stream, compressed)
	case c.leaked:
		masked, _ := redact.Mask(resp.Body(), &redact.Options{Values: c.sent})
		resp.SetBody(masked)
		c.proxy.observer.Redacted()
	}
	return nil
}

// search reports whether gzip data, or what follows it, contains one of sent.
func search(compressed []byte, sent redact.Values) (found bool) {
	r := redact.NewGzipReader(bytes.NewReader(compressed), sent, func() { found = true })
	io.Copy(io.Discard, r)
	return found
}

// readAll reads until buf is full or r ends, with io.EOF only at the end of r.
func readAll(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// maskWhole reads the body of the response to its end and masks it.
func (c *call) maskWhole(o *redact.Options) *apiError {
	resp := &c.ctx.Response
	memory := c.memory().whole.Reserve()
	body, err := transport.ReadWhole(resp, searchLimit, c.deadline, &memory)
	c.now = time.Now()
	if err != nil {
		memory.Release()
		return responseWithheld(err)
	}
	masked, n := redact.Mask(body, o)
	if n > 0 {
		c.proxy.observer.Redacted()
	}
	transport.HoldBody(resp, masked, memory, c.ctx.Conn(), c.settings.timeout)
	return nil
}

// maskStream masks the credentials that the request carried while the response
// is sent. Its length stays the same. Compressed data cannot be changed, so it
// ends before the credential.
func (c *call) maskStream(stream *transport.Stream, compressed bool) {
	sent, redacted := c.sent, c.proxy.observer.Redacted
	stream.Filter(func(body io.Reader) io.Reader {
		if compressed {
			return redact.NewGzipReader(body, sent, redacted)
		}
		return redact.NewReader(body, sent, redacted)
	})
}

// standInFor returns the stand-in that replaces a token in a response: of the
// component, or of an account. It returns nil if the caller has no permission
// for the account, if its stand-ins grant none, or if appid is none.
func (c *call) standInFor(component bool, appid []byte) []byte {
	kind, granted := standin.Account, c.settings.allowIssue(&c.decision.grants, appid)
	if component {
		kind, appid = standin.Component, c.settings.component
		granted = c.decision.grants.allow(tokens.Component, nil, false)
	}
	if !wechat.IsAppID(appid) || !granted || !c.decision.caller.allowsAccount(appid) {
		return nil
	}
	return []byte(c.signStandIn(kind, string(appid)))
}

// registeredCode returns a function that exchanges the authorization code of an
// account that the request has registered, and nil if it has registered none.
// The caller receives the code masked, so nothing else would exchange it. The
// function does not wait for the exchange. It exchanges the first code only.
func (c *call) registeredCode() func(code []byte) {
	exchange, log, done := c.settings.exchange, c.proxy.log, false
	if exchange == nil || !hasPrefixFold(c.head.target.decodedPath, pathFastRegister) {
		return nil
	}
	return func(code []byte) {
		if done {
			return
		}
		done = true
		secret := wechat.NewSecret(string(code))
		go func() {
			if _, err := exchange(context.Background(), secret); err != nil {
				log.Error("exchanging the code of a registered account failed", "error", err)
			}
		}()
	}
}

// inspectResponse reads the errcode of the response, counts it and returns it.
// It also notes whether the response contains a credential.
func (c *call) inspectResponse() int {
	prefix := transport.BodyPrefix(&c.ctx.Response)
	c.inspected = true
	if bytes.HasPrefix(prefix, gzipMagic) {
		buf := inspectBuffers.Get().(*[]byte)
		defer inspectBuffers.Put(buf)
		prefix, c.inspected = decompressPrefix((*buf)[:transport.InspectLimit], prefix)
	}
	c.errcode, c.leaked = wechat.FindErrCode(prefix), c.sent.In(prefix)
	if c.errcode != 0 {
		c.proxy.observer.WeChatError(c.errcode)
		c.reportRevocationHint()
	}
	return c.errcode
}

// reportRevocationHint reports that WeChat's errcode may mean that the account
// has revoked its authorization. A changed password matters for the account's
// own token only: end users have passwords, too.
func (c *call) reportRevocationHint() {
	d := &c.decision
	hint := c.errcode == wechat.CodeNotAuthorized ||
		c.errcode == wechat.CodePasswordChanged && d.tokenOwner != nil && d.kind == tokens.Authorizer
	if hint && d.account != nil && c.settings.revalidate != nil {
		c.settings.revalidate(string(d.account), c.errcode)
	}
}

var (
	gzipMagic      = []byte{0x1f, 0x8b}
	gzipReaders    = sync.Pool{New: func() any { return new(gzip.Reader) }}
	inspectBuffers = sync.Pool{New: func() any { b := make([]byte, 0, transport.InspectLimit); return &b }}
)

// decompressPrefix decompresses as much of b as buf has room for, and reports
// whether that is all of b. It returns nil if b is not gzip.
func decompressPrefix(buf, b []byte) (plain []byte, whole bool) {
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if z.Reset(bytes.NewReader(b)) != nil {
		return nil, false
	}
	// The prefix of a response ends anywhere. What could be read is what
	// counts.
	n, err := readAll(z, buf)
	return buf[:n], err == io.EOF
}

// cleanResponseHeaders removes hop-by-hop headers, those that are wxproxy's to
// set, and those that contain a credential, such as a redirect to the URL of
// the request: one of sent, or with byName any. The same holds for the text
// behind the status.
func cleanResponseHeaders(h *fasthttp.ResponseHeader, sent *redact.Values, byName bool) {
	if showsCredential(nil, h.StatusMessage(), sent, byName) {
		h.SetStatusMessage(nil)
	}
	var connection []byte
	usual, closing := true, h.ConnectionClose()
	for name, value := range h.All() {
		switch {
		case string(name) == "Connection" && connection == nil &&
			(equalFold(value, "keep-alive") || equalFold(value, "close")):
			connection = value
		case isResponseHop(name), showsCredential(name, value, sent, byName):
			usual = false
		case closing && !isToken(name): // fasthttp allows spaces, and closes the connection then
			usual = false
		}
	}
	if usual {
		if connection != nil {
			h.ResetConnectionClose()
			h.Del("Connection")
		}
		return
	}
	var listed [][]byte
	for name, value := range h.All() {
		if equalFold(name, "Connection") {
			listed = appendListed(listed, value)
		}
	}
	var remove []string // in WeChat's spelling, since Del compares bytes
	for name, value := range h.All() {
		if isResponseHop(name) || showsCredential(name, value, sent, byName) || !isToken(name) ||
			removes(listed, name) {
			remove = append(remove, string(name))
		}
	}
	for _, name := range remove {
		h.Del(name)
	}
	h.ResetConnectionClose()
}

// showsCredential reports whether a header contains a credential, in its name
// or its value.
func showsCredential(name, value []byte, sent *redact.Values, byName bool) bool {
	if byName {
		line := slices.Concat(name, []byte(": "), value)
		return redact.Contains(line, &redact.Options{Values: *sent, Names: true})
	}
	return sent.In(value) || sent.In(name)
}

// removes reports whether a header is among those listed in Connection, which
// cannot remove what frames or describes the body.
func removes(listed [][]byte, name []byte) bool {
	for _, l := range listed {
		if bytes.EqualFold(l, name) {
			return !describesBody(name)
		}
	}
	return false
}

// describesBody reports whether a header frames or describes the body, so that
// Connection cannot remove it.
func describesBody(name []byte) bool {
	return equalFold(name, "Content-Type") || equalFold(name, "Content-Encoding") ||
		equalFold(name, "Content-Length")
}
