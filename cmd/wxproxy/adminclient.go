package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"wxproxy/cmd/wxproxy/internal/server"
	"wxproxy/wechat"
)

// adminKeyVariable holds the admin key. It is a better place than the command line, which
// other users of the machine can see.
const adminKeyVariable = "WXPROXY_ADMIN_KEY"

// adminClient asks the admin listener of a running wxproxy.
type adminClient struct {
	base   string // URL, without a slash at the end
	key    wechat.Secret
	json   bool // what comes is printed as it is
	client *http.Client
}

// flags defines --admin, --key and --json.
func (a *adminClient) flags(fs *flags) {
	fs.StringVar(&a.base, "admin", "http://127.0.0.1:8082", "`URL` of the admin listener")
	fs.Func("key", "the `KEY` of [admin]; better give it in "+adminKeyVariable+", other users of this machine can see command lines", func(s string) error {
		a.key = wechat.NewSecret(s)
		return nil
	})
	fs.BoolVar(&a.json, "json", false, "print the JSON of the admin listener, for scripts")
}

// ready checks what the flags gave. Its errors are wrong usage.
func (a *adminClient) ready(e *env) error {
	u, err := url.Parse(a.base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("--admin is no URL such as http://127.0.0.1:8082")
	}
	a.base = strings.TrimRight(a.base, "/")
	if a.key.IsEmpty() {
		key, _ := e.getenv(adminKeyVariable)
		a.key = wechat.NewSecret(key)
	}
	if strings.ContainsFunc(a.key.Reveal(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("the admin key holds control characters, a line end perhaps")
	}
	a.client = &http.Client{
		// No proxy of the environment's and no redirects: the key is for this address alone.
		Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// answerLimit bounds an answer; a page of 1000 accounts has some 500 KiB.
const answerLimit = 64 << 20

// errAdmin is an error as the admin listener tells it.
type errAdmin struct {
	status int
	msg    string
	hint   string
}

func (e *errAdmin) Error() string {
	if e.hint == "" {
		return e.msg
	}
	return e.msg + " (" + e.hint + ")"
}

// do makes a request and reads the answer into out, which may be nil. It returns the answer's bytes too, also those of
// an error that is JSON.
func (a *adminClient) do(ctx context.Context, method, path string, query url.Values, body io.Reader, out any) ([]byte, error) {
	target := a.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, errors.New("--admin is no URL such as http://127.0.0.1:8082")
	}
	if !a.key.IsEmpty() {
		req.Header.Set("Authorization", "Bearer "+a.key.Reveal())
	}
	resp, err := a.client.Do(req)
	if ctx.Err() != nil {
		return nil, errors.New("interrupted")
	}
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, fmt.Errorf("wxproxy does not answer at %s: %w; is it running? --admin takes another address", a.base, server.NetCause(err))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err != nil {
		return nil, fmt.Errorf("%s broke off in the middle of its answer: %w", a.base, server.NetCause(err))
	}
	if resp.StatusCode != http.StatusOK {
		return raw, a.refusal(resp, raw)
	}
	if out == nil {
		out = new(json.RawMessage)
	}
	if json.Unmarshal(raw, out) != nil {
		return nil, a.stranger(resp)
	}
	return raw, nil
}

// refusal puts an answer that is no success into words.
func (a *adminClient) refusal(resp *http.Response, raw []byte) error {
	var told struct{ Error, Hint string }
	if json.Unmarshal(raw, &told) != nil || told.Error == "" {
		return a.stranger(resp)
	}
	if resp.StatusCode == http.StatusUnauthorized {
		if a.key.IsEmpty() {
			return fmt.Errorf("%s wants the key of [admin]: give it in %s, or with --key", a.base, adminKeyVariable)
		}
		return fmt.Errorf("%s does not take this key: --key and %s have to be the key of [admin]", a.base, adminKeyVariable)
	}
	if again := resp.Header.Get("Retry-After"); again != "" && told.Hint != "" {
		told.Hint = strings.ReplaceAll(told.Hint, "the time in Retry-After", again+" s")
	}
	return &errAdmin{resp.StatusCode, told.Error, told.Hint}
}

func (a *adminClient) stranger(resp *http.Response) error {
	return fmt.Errorf("%s answered %s, but not in the way of wxproxy: is this its admin listener? --admin takes another address", a.base, wechat.Sanitize(resp.Status, maxQuoted))
}

// plainJSON is an answer as it may be printed: the same JSON on one line, with everything that a terminal would
// obey written as an escape.
func plainJSON(raw []byte) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(string(raw)) {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteByte(' ') // between the parts of the JSON: in a string it would be an escape already
		case !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
