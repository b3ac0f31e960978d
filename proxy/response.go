package proxy

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"sync"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/transport"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// sentCredentials are the credentials that WeChat received with a request: the
// token, its escaped form if that differs, and the app secret; "" where there
// is none. A response that contains one of them must not reach the caller as it
// is.
type sentCredentials [3]string

func newSentCredentials(token tokens.Token, secret wechat.Secret) sentCredentials {
	sent := sentCredentials{token.Value.Reveal(), "", secret.Reveal()}
	if token.Escaped != sent[0] {
		sent[1] = token.Escaped
	}
	return sent
}

// minSecretLength is the length from which on a credential is searched for. A
// shorter text can occur in a response by chance. WeChat's tokens have more
// than 100 characters, its secrets 32.
const minSecretLength = 16

// in reports whether text contains a credential.
func (s *sentCredentials) in(text []byte) bool {
	for _, secret := range s {
		if len(secret) >= minSecretLength && len(text) >= len(secret) &&
			strings.Contains(unsafeString(text), secret) {
			return true
		}
	}
	return false
}

// mask replaces the credentials in text and returns how many different ones it
// found.
func (s *sentCredentials) mask(text []byte) (masked []byte, n int) {
	for _, secret := range s {
		if len(secret) >= minSecretLength && bytes.Contains(text, []byte(secret)) {
			text = bytes.ReplaceAll(text, []byte(secret), mask)
			n++
		}
	}
	return text, n
}

// inspectResponse reads the errcode of the response, counts it and returns it.
// It also notes whether the response contains a credential.
func (c *call) inspectResponse() int {
	prefix := transport.BodyPrefix(&c.ctx.Response)
	if bytes.HasPrefix(prefix, gzipMagic) {
		buf := inspectBuffers.Get().(*[]byte)
		defer inspectBuffers.Put(buf)
		prefix = decompressPrefix((*buf)[:transport.InspectLimit], prefix)
	}
	c.errcode, c.leaked = wechat.FindErrCode(prefix), c.sent.in(prefix)
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

// decompressPrefix decompresses as much of b as buf has room for. It returns
// nil if b is not gzip.
func decompressPrefix(buf, b []byte) []byte {
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if z.Reset(bytes.NewReader(b)) != nil {
		return nil
	}
	// The prefix of a response ends anywhere. What could be read is what
	// counts.
	n, _ := io.ReadFull(z, buf)
	return buf[:n]
}

// responseHopHeaders concern the connection between WeChat and wxproxy only, or
// are wxproxy's to set.
var responseHopHeaders = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate",
	"Transfer-Encoding", "Te", "Trailer", "Upgrade", "X-Wxproxy-Token",
}

// cleanResponseHeaders removes hop-by-hop headers and those that contain a
// credential, such as a redirect to the URL of the request.
func cleanResponseHeaders(h *fasthttp.ResponseHeader, sent *sentCredentials) {
	suspect, connection := false, []byte(nil)
	for name, value := range h.All() {
		if sent.in(value) {
			suspect = true
		}
		switch roleOf(name) {
		case headerConnection:
			connection = value
		case headerDrop, headerAuthorization, headerProxyAuthorization, headerKey:
			suspect = true
		}
	}
	switch {
	case connection == nil && !suspect:
		return
	case !suspect && (equalFold(connection, "keep-alive") || equalFold(connection, "close")):
		// The usual case.
		h.ResetConnectionClose()
		h.Del("Connection")
		return
	}
	var remove []string // in WeChat's spelling, since Del compares bytes
	for name := range bytes.SplitSeq(connection, []byte(",")) {
		name = bytes.TrimSpace(name)
		if len(name) > 0 && roleOf(name) == headerPass && !describesBody(name) {
			remove = append(remove, string(name))
		}
	}
	for name, value := range h.All() {
		if sent.in(value) {
			remove = append(remove, string(name))
		}
		for _, hop := range responseHopHeaders {
			if equalFold(name, hop) {
				remove = append(remove, string(name))
			}
		}
	}
	for _, name := range remove {
		h.Del(name)
	}
	h.ResetConnectionClose()
}

// describesBody reports whether a header frames or describes the body, so that
// Connection cannot remove it.
func describesBody(name []byte) bool {
	return equalFold(name, "Content-Type") || equalFold(name, "Content-Encoding") ||
		equalFold(name, "Content-Length")
}
