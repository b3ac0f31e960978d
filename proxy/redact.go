package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/standin"
	"wxproxy/wechat"
)

// Some of WeChat's responses contain credentials of the platform: refresh
// tokens in the lists of accounts, the authorization code of an account that
// was just registered, the injected token in the record of a request (rid/get
// shows its URL). They are masked before the response reaches a caller, and
// tokens become stand-ins. The rest of it stays as it is, byte for byte. What
// belongs to an end user (session_key, the tokens of /sns/) passes.
//
// Whatever the path, a response that contains the very token that was injected
// into the request is masked, too.

// credentialPaths are prefixes of paths whose responses can contain credentials
// (doc/oplatform/openApi: ticket-token, authorization-management,
// register-management; openapi/getRidInfo).
var credentialPaths = [][]byte{
	[]byte("/cgi-bin/component/"),
	[]byte("/wxa/component/"),
	[]byte("/cgi-bin/openapi/rid/get"),
	[]byte(pathFastRegister),
}

// pathFastRegister turns an official account into a mini program, too, and
// returns its authorization code
// (doc/oplatform/…/register-management/fast-registration-ent/registerMiniprogram).
const pathFastRegister = "/cgi-bin/account/fastregister"

// mayContainCredentials reports whether the response to a path has to be
// searched.
func mayContainCredentials(path []byte) bool {
	for _, prefix := range credentialPaths {
		if bytes.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// credentialNames are the endings of the names of credentials.
var credentialNames = [...][]byte{
	[]byte("access_token"), // component_…, authorizer_… and the parameter itself
	[]byte("refresh_token"),
	[]byte("component_verify_ticket"),
	[]byte("secret"), // appsecret, component_appsecret, component_secret
	[]byte("authorization_code"),
}

var (
	nameAuthorizerToken = []byte("authorizer_access_token")
	nameComponentToken  = []byte("component_access_token")
	nameAuthorizerAppID = []byte("authorizer_appid")
	nameCode            = []byte("authorization_code")
)

// redactLimit bounds the size of a response that is searched, in bytes. The
// longest list of accounts, 500 per page, has about 100 KiB.
const redactLimit = 8 << 20

// mask takes the place of a credential.
var mask = []byte("***")

// redact masks the credentials in the response. A response that cannot be
// searched is withheld.
func (c *call) redact() *apiError {
	resp := &c.ctx.Response
	if c.ctx.Request.Header.IsHead() {
		return nil
	}
	body, err := readWhole(resp)
	if err == nil && resp.StatusCode() == http.StatusPartialContent {
		err = errPartial // a credential may be cut in two
	}
	if err != nil {
		return responseWithheld(err)
	}
	masked, n := body, 0
	if mayContainCredentials(c.head.target.decodedPath) {
		c.exchangeRegisteredCode(body)
		masked, n = maskCredentials(body, c.standInFor)
	}
	masked, found := c.sent.mask(masked)
	if n+found > 0 {
		resp.SetBody(masked)
		c.proxy.observer.Redacted()
	}
	return nil
}

// standInFor returns the stand-in that replaces a token in a response: of the
// component, or of an account. It returns nil if the caller has no permission
// for the account, or if appid is none.
func (c *call) standInFor(component bool, appid []byte) []byte {
	kind := standin.Account
	if component {
		kind, appid = standin.Component, c.settings.component
	}
	if !wechat.IsAppID(appid) || !c.decision.caller.allowsAccount(appid) {
		return nil
	}
	return []byte(c.signStandIn(kind, string(appid)))
}

// exchangeRegisteredCode exchanges the authorization code of an account that
// the request has registered. The caller receives it masked, so nothing else
// would exchange it. It does not wait for the exchange.
func (c *call) exchangeRegisteredCode(body []byte) {
	at := bytes.Index(body, nameCode)
	if c.settings.exchange == nil || at < 0 || string(c.head.target.decodedPath) != pathFastRegister {
		return
	}
	start, end := valueAt(body, at+len(nameCode))
	if start == end {
		return
	}
	code, exchange, log := wechat.NewSecret(string(body[start:end])), c.settings.exchange, c.proxy.log
	go func() {
		if _, err := exchange(context.Background(), code); err != nil {
			log.Error("exchanging the code of a registered account failed", "error", err)
		}
	}()
}

// Reasons why a response cannot be searched. The caller receives them.
var (
	errTooLong   = errors.New("too large")
	errEncoding  = errors.New("unknown encoding")
	errPartial   = errors.New("partial content")
	errTruncated = errors.New("truncated")
)

// readWhole reads the body of a response to its end, also if it is streamed,
// and decompresses it.
func readWhole(resp *fasthttp.Response) ([]byte, error) {
	if resp.IsBodyStream() {
		body, err := readBounded(resp.BodyStream())
		resp.CloseBodyStream()
		if err != nil {
			return nil, err
		}
		resp.SetBody(body)
	}
	body := resp.Body()
	if !bytes.HasPrefix(body, gzipMagic) {
		if e := resp.Header.ContentEncoding(); len(e) > 0 && !equalFold(e, "identity") {
			return nil, errEncoding
		}
		return body, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, errEncoding
	}
	decompressed, err := readBounded(z)
	if err != nil {
		return nil, err
	}
	resp.Header.SetContentEncoding("")
	resp.SetBody(decompressed)
	return decompressed, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, redactLimit+1))
	switch {
	case err != nil:
		return nil, errTruncated
	case len(b) > redactLimit:
		return nil, errTooLong
	}
	return b, nil
}

// maskCredentials masks the values behind credential names: in JSON, in JSON
// inside a JSON string (where quotes have backslashes), and in URLs. It returns
// how many it masked. Tokens whose owner is named become what standIn returns
// for the component or the account, unless that is nil.
func maskCredentials(b []byte, standIn func(component bool, appid []byte) []byte) (masked []byte, n int) {
	// ends holds where the next occurrence of each name ends. 0 means that it
	// must be searched for, -1 that there is none. With it each name is
	// searched for only once in each part of b.
	var ends [len(credentialNames)]int
	for from := 0; ; {
		at := -1
		for i, name := range credentialNames {
			if ends[i] >= 0 && ends[i] <= from {
				if ends[i] = bytes.Index(b[from:], name); ends[i] >= 0 {
					ends[i] += from + len(name)
				}
			}
			if ends[i] >= 0 && (at < 0 || ends[i] < at) {
				at = ends[i]
			}
		}
		if at < 0 {
			if n == 0 {
				return b, 0
			}
			return append(masked, b[from:]...), n
		}
		start, end := valueAt(b, at)
		masked = append(masked, b[from:start]...)
		if end > start {
			masked = append(masked, replacement(b, at, standIn)...)
			n++
		}
		from = end
	}
}

// replacement returns what replaces the value of the name that ends at end.
func replacement(b []byte, end int, standIn func(component bool, appid []byte) []byte) []byte {
	name, token := b[:end], []byte(nil)
	switch {
	case standIn == nil:
	case bytes.HasSuffix(name, nameComponentToken):
		token = standIn(true, nil)
	case bytes.HasSuffix(name, nameAuthorizerToken):
		token = standIn(false, ownerOf(b, end))
	}
	if token == nil {
		return mask
	}
	return token
}

// ownerOf returns the appid that belongs to an authorizer's token whose name
// ends at end. It is next to the token, usually before it. Without one the
// result is empty.
func ownerOf(b []byte, end int) []byte {
	i := bytes.LastIndex(b[:end], nameAuthorizerAppID)
	if i < 0 {
		if i = bytes.Index(b[end:], nameAuthorizerAppID); i < 0 {
			return nil
		}
		i += end
	}
	from, to := valueAt(b, i+len(nameAuthorizerAppID))
	return b[from:to]
}

// valueAt returns where the value is that belongs to a name which ends at i. It
// is empty if the name is only a word in a text.
func valueAt(b []byte, i int) (start, end int) {
	separated := false
	for ; i < len(b); i++ {
		if ch := b[i]; !separated && (ch == ':' || ch == '=') {
			separated = true
		} else if bytes.IndexByte([]byte("\"\\ \t\r\n"), ch) < 0 {
			break
		}
	}
	if !separated {
		return i, i
	}
	for start = i; i < len(b); i++ {
		switch ch := b[i]; {
		case ch == '\\' && i+1 < len(b) && b[i+1] != '"' && b[i+1] != '\\':
			i++ // an escape inside the value
		case bytes.IndexByte([]byte("\"\\&, \t\r\n{}[]"), ch) >= 0:
			return start, i
		}
	}
	return start, i
}
