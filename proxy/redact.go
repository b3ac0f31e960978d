package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/standin"
	"wxproxy/wechat"
)

// Some answers of WeChat's hold credentials of the platform: refresh tokens in the lists of accounts, the code of
// an account that was just registered, our own token in the record of a call (rid/get shows the URL as it was). They are
// masked before the answer goes to a caller, tokens by a stand-in; the rest of it stays as it is, byte for byte.
// What belongs to an end user (session_key, the tokens of /sns/) is the caller's. And whatever the path: an
// answer that shows the very token that we put into the request is not passed on as it is.

// revealing are the paths, with all that is below them (doc/oplatform/openApi: ticket-token,
// authorization-management, register-management; openapi/getRidInfo).
var revealing = [][]byte{
	[]byte("/cgi-bin/component/"),
	[]byte("/wxa/component/"),
	[]byte("/cgi-bin/openapi/rid/get"),
	[]byte(pathFastRegister),
}

// pathFastRegister makes a mini program of an official account, and answers its authorization code
// (doc/oplatform/…/register-management/fast-registration-ent/registerMiniprogram).
const pathFastRegister = "/cgi-bin/account/fastregister"

func reveals(path []byte) bool {
	for _, p := range revealing {
		if bytes.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// credentialNames: the names of credentials, or what the longer ones end in.
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

// redactLimit bounds what is held of an answer that has to be searched: the longest list of accounts,
// 500 a page, has some 100 KiB.
const redactLimit = 8 << 20

var mask = []byte("***")

// redact masks what no caller may see in the answer.
func (c *call) redact() *problem {
	resp := &c.cx.Response
	if c.cx.Request.Header.IsHead() {
		return nil
	}
	body, err := wholeBody(resp)
	if err == nil && resp.StatusCode() == http.StatusPartialContent {
		err = errPart // a credential may be cut in two
	}
	if err != nil {
		return problemf(http.StatusBadGateway, "ask for less at a time, or without Range", "WeChat's answer could not be searched for credentials, so it is held back: %s", err)
	}
	clean, n := body, 0
	if reveals(c.target.plain) {
		c.claim(body)
		clean, n = scrub(body, c.standIn)
	}
	for _, secret := range c.sent {
		if len(secret) >= shortestSecret && bytes.Contains(clean, []byte(secret)) {
			clean = bytes.ReplaceAll(clean, []byte(secret), mask)
			n++
		}
	}
	if n > 0 {
		resp.SetBody(clean)
		c.p.observe.Redacted()
	}
	return nil
}

// shortestSecret: anything shorter may stand in an answer by chance. WeChat's tokens have more than 100 characters, its
// secrets 32.
const shortestSecret = 16

// echoes says whether head shows what went out as a credential of ours.
func (c *call) echoes(head []byte) bool {
	for _, secret := range c.sent {
		if len(secret) >= shortestSecret && len(head) >= len(secret) && strings.Contains(text(head), secret) {
			return true
		}
	}
	return false
}

// standIn is what takes the place of a token in an answer: a stand-in where it is plain whose token it is and the caller may
// have it, nil elsewhere.
func (c *call) standIn(component bool, appid []byte) []byte {
	kind := standin.Account
	if component {
		kind, appid = standin.Component, c.s.component
	}
	if !isAppID(appid) || c.who.mayActFor(appid) != nil {
		return nil
	}
	return []byte(c.s.signer.Issue(kind, string(appid), c.name(), c.now))
}

// claim exchanges the code of an account that the call has registered: the caller gets it masked, and
// nobody else would. It does not wait.
func (c *call) claim(body []byte) {
	at := bytes.Index(body, nameCode)
	if c.s.exchange == nil || at < 0 || text(c.target.plain) != pathFastRegister {
		return
	}
	start, end := valueAt(body, at+len(nameCode))
	if start == end {
		return
	}
	code, exchange, log := wechat.NewSecret(string(body[start:end])), c.s.exchange, c.p.log
	go func() {
		if _, err := exchange(context.Background(), code); err != nil {
			log.Error("the code of an account that was registered could not be exchanged", "error", err)
		}
	}()
}

// What keeps an answer from being searched.
var (
	errTooMuch  = errors.New("it is too large")
	errEncoding = errors.New("its encoding is not known")
	errPart     = errors.New("it is a part only")
)

// wholeBody reads the body to its end, a streamed one too, and undoes its compression.
func wholeBody(resp *fasthttp.Response) ([]byte, error) {
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
	plain, err := readBounded(z)
	if err != nil {
		return nil, err
	}
	resp.Header.SetContentEncoding("")
	resp.SetBody(plain)
	return plain, nil
}

func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, redactLimit+1))
	switch {
	case err != nil:
		return nil, errors.New("it broke off")
	case len(b) > redactLimit:
		return nil, errTooMuch
	}
	return b, nil
}

// scrub masks the values behind credential names: in JSON, in JSON inside a JSON string (quotes with
// backslashes), and in URLs. It counts them. Tokens whose owner is named become what standIn gives for the component
// or for the account; nil: the mask.
func scrub(b []byte, standIn func(component bool, appid []byte) []byte) (clean []byte, n int) {
	var next [len(credentialNames)]int // where each name ends next; 0: to be looked for, -1: nowhere
	for from := 0; ; {
		at := -1
		for i, name := range credentialNames {
			if next[i] >= 0 && next[i] <= from {
				if next[i] = bytes.Index(b[from:], name); next[i] >= 0 {
					next[i] += from + len(name)
				}
			}
			if next[i] >= 0 && (at < 0 || next[i] < at) {
				at = next[i]
			}
		}
		if at < 0 {
			if n == 0 {
				return b, 0
			}
			return append(clean, b[from:]...), n
		}
		start, end := valueAt(b, at)
		clean = append(clean, b[from:start]...)
		if end > start {
			clean = append(clean, replacement(b, at, standIn)...)
			n++
		}
		from = end
	}
}

// replacement is what stands for the value of the name that ends at `at`.
func replacement(b []byte, at int, standIn func(component bool, appid []byte) []byte) []byte {
	name, out := b[:at], []byte(nil)
	switch {
	case standIn == nil:
	case bytes.HasSuffix(name, nameComponentToken):
		out = standIn(true, nil)
	case bytes.HasSuffix(name, nameAuthorizerToken):
		// Its owner stands beside it: before it as a rule.
		i := bytes.LastIndex(name, nameAuthorizerAppID)
		if i < 0 {
			if i = bytes.Index(b[at:], nameAuthorizerAppID); i < 0 {
				break
			}
			i += at
		}
		start, end := valueAt(b, i+len(nameAuthorizerAppID))
		out = standIn(false, b[start:end])
	}
	if out == nil {
		return mask
	}
	return out
}

// valueAt gives the value that belongs to a name that ends at i; an empty one where the name is only a word.
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
