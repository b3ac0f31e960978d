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

	"github.com/spf13/cobra"

	"wxproxy/cmd/wxproxy/internal/server"
	"wxproxy/wechat"
)

const (
	// defaultAdmin is where the admin listener is without configuration.
	defaultAdmin = "http://127.0.0.1:8082"

	// adminKeyVariable is the environment variable with the admin key. It is
	// safer than --key: other users of a machine can see its command lines.
	adminKeyVariable = "WXPROXY_ADMIN_KEY"

	// maxResponse is how many bytes of a response are read. A page of 1000
	// accounts has about 500 KiB.
	maxResponse = 64 << 20
)

// adminClient sends requests to the admin listener of a running wxproxy. Its
// zero value is not usable: call addFlags, then prepare.
type adminClient struct {
	base   string // URL, without a slash at the end
	key    wechat.Secret
	json   bool // print responses as they are
	client *http.Client
}

// secretFlag is the value of a flag that is never printed, not even as the
// default on a help page.
type secretFlag struct{ secret *wechat.Secret }

func (secretFlag) String() string { return "" }
func (secretFlag) Type() string   { return "key" }

// Set stores s. It accepts every value.
func (f secretFlag) Set(s string) error {
	*f.secret = wechat.NewSecret(s)
	return nil
}

// addFlags adds --admin, --key and --json to cmd.
func (a *adminClient) addFlags(cmd *cobra.Command) {
	a.addConnectionFlags(cmd)
	cmd.Flags().BoolVar(&a.json, "json", false,
		"print the response of the admin listener as JSON, for scripts")
}

// addConnectionFlags adds --admin and --key to cmd.
func (a *adminClient) addConnectionFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.base, "admin", defaultAdmin, "`URL` of the admin listener")
	f.Var(secretFlag{&a.key}, "key", "the `KEY` of [admin]; better set it in "+adminKeyVariable+
		", because other users of this machine can see command lines")
}

// parseAdminURL returns the value of --admin without slashes at its end. URLs
// with a user name are rejected, so that no error message can contain a
// password. Its errors are usage errors.
func parseAdminURL(cmd *cobra.Command, s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", usagef(cmd, "--admin is not a URL such as "+defaultAdmin)
	}
	return strings.TrimRight(s, "/"), nil
}

// prepare checks the flags of cmd and takes the key from the environment if
// there is no --key. Its errors are usage errors.
func (a *adminClient) prepare(cmd *cobra.Command, e *env) error {
	base, err := parseAdminURL(cmd, a.base)
	if err != nil {
		return err
	}
	a.base = base
	if a.key.IsEmpty() {
		key, _ := e.getenv(adminKeyVariable)
		a.key = wechat.NewSecret(key)
	}
	isControl := func(r rune) bool { return r < ' ' || r == 0x7f }
	if strings.ContainsFunc(a.key.Reveal(), isControl) {
		return usagef(cmd, "the admin key contains control characters, perhaps a line break at its end")
	}
	a.client = &http.Client{
		// The key is meant for this address only, so proxies from the
		// environment are ignored and redirects are not followed.
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// adminError is an error response of the admin listener.
type adminError struct {
	status  int
	message string
	hint    string // what to do about it, or ""
}

// Error returns the message and the hint.
func (e *adminError) Error() string {
	if e.hint == "" {
		return e.message
	}
	return e.message + " (" + e.hint + ")"
}

// send sends a request and returns the response, whose body the caller closes.
func (a *adminClient) send(
	ctx context.Context, method, path string, query url.Values, body io.Reader,
) (*http.Response, error) {
	target := a.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, errors.New("--admin is not a URL such as " + defaultAdmin)
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
			err = u.Err // without the URL
		}
		return nil, fmt.Errorf("no response from %s: %w (is wxproxy running? --admin sets another address)",
			a.base, server.NetCause(err))
	}
	return resp, nil
}

// readAll returns the body of a response.
func (a *adminClient) readAll(resp *http.Response) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return nil, fmt.Errorf("incomplete response from %s: %w", a.base, server.NetCause(err))
	}
	return raw, nil
}

// do sends a request and decodes the response into out, which may be nil. It
// returns the bytes of the response too, including those of a JSON error.
func (a *adminClient) do(
	ctx context.Context, method, path string, query url.Values, body io.Reader, out any,
) ([]byte, error) {
	resp, err := a.send(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := a.readAll(resp)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return raw, a.responseError(resp, raw)
	}
	if out == nil {
		out = new(json.RawMessage)
	}
	if json.Unmarshal(raw, out) != nil {
		return nil, a.unexpected(resp)
	}
	return raw, nil
}

// responseError turns a response that is not 200 into an error.
func (a *adminClient) responseError(resp *http.Response, raw []byte) error {
	var failure struct{ Error, Hint string }
	if json.Unmarshal(raw, &failure) != nil || failure.Error == "" {
		return a.unexpected(resp)
	}
	if resp.StatusCode == http.StatusUnauthorized {
		if a.key.IsEmpty() {
			return fmt.Errorf("%s needs the key of [admin]: set %s, or use --key", a.base, adminKeyVariable)
		}
		return fmt.Errorf("%s does not accept this key: %s or --key must be the key of [admin]",
			a.base, adminKeyVariable)
	}
	if seconds := resp.Header.Get("Retry-After"); seconds != "" {
		failure.Hint = strings.ReplaceAll(failure.Hint, "the time in Retry-After", seconds+" s")
	}
	return &adminError{resp.StatusCode, failure.Error, failure.Hint}
}

// unexpected returns the error for a response that is not wxproxy's.
func (a *adminClient) unexpected(resp *http.Response) error {
	return fmt.Errorf("unexpected response %s from %s: is this the admin listener of wxproxy? "+
		"--admin sets another address", wechat.Sanitize(resp.Status, maxQuoted), a.base)
}

// without returns the error for a response that lacks what a command needs, such
// as "accounts". It may come from another server.
func (a *adminClient) without(what string) error {
	return fmt.Errorf("response without %s from %s: is this the admin listener of wxproxy? "+
		"--admin sets another address", what, a.base)
}

// maxQuoted is how many characters of foreign text an error quotes.
const maxQuoted = 100

// plainJSON returns the JSON text raw on one line, safe to print to a terminal:
// control characters and those that change the direction of text become JSON
// escapes, so the value stays the same.
func plainJSON(raw []byte) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(string(raw)) {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteByte(' ') // between tokens: strings contain no raw ones
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

// printJSON prints the JSON text raw on one line.
func printJSON(e *env, raw []byte) error {
	_, err := fmt.Fprintln(e.stdout, plainJSON(raw))
	return err
}
