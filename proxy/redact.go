package proxy

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"

	"github.com/valyala/fasthttp"
)

// Some answers of WeChat's hold credentials of the platform: refresh tokens in the lists of accounts, our own
// token in the record of a call (rid/get shows the URL as it was). They are masked before the
// answer goes to a caller; the rest of it stays as it is, byte for byte. What belongs to an end user
// (session_key, the tokens of /sns/) is the caller's.

// revealing are the paths, with all that is below them.
var revealing = [][]byte{
	[]byte("/cgi-bin/component/"),
	[]byte("/wxa/component/"),
	[]byte("/cgi-bin/openapi/rid/get"),
}

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
	[]byte("component_appsecret"),
	[]byte("component_secret"),
	[]byte("authorization_code"),
}

// redactLimit bounds what is held of an answer that has to be searched: the longest list of accounts,
// 500 a page, has some 100 KiB.
const redactLimit = 8 << 20

var mask = []byte("***")

// redact masks what no caller may see in the answer.
func (c *call) redact() *problem {
	resp := &c.cx.Response
	body, err := wholeBody(resp)
	if err != nil {
		return problemf(http.StatusBadGateway, "ask for less at a time", "WeChat's answer could not be searched for credentials, so it is held back: %s", err)
	}
	clean, n := scrub(body)
	if n > 0 {
		resp.SetBody(clean)
		c.p.observe.Redacted()
	}
	return nil
}

// What keeps an answer from being searched.
var (
	errTooMuch  = errors.New("it is too large")
	errEncoding = errors.New("its encoding is not known")
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
// backslashes), and in URLs. It counts them.
func scrub(b []byte) (clean []byte, n int) {
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
			clean = append(clean, mask...)
			n++
		}
		from = end
	}
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
