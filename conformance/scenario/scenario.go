// Package scenario is the scenario for all SDKs for Go, the same as scenario.js
// for Node. The programs do not know wxproxy: they receive an address, an appid
// and a secret in their environment. They print every step.
package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Account is a client of an official account.
type Account struct {
	User     func(openid string) (string, error) // returns the openid of the response
	Users    func() (int, error)                 // returns the number of users
	Menu     func(name, url string) (gotName, gotURL string, err error)
	Template func(openid, link, text string) error
	Upload   func(path string) (mediaID string, err error)
	Media    func(mediaID string) ([]byte, error)
}

// Mini is a client of a mini program. Functions that the SDK does not have are
// nil.
type Mini struct {
	Code  func(scene, page string) ([]byte, error)
	Login func(code string) (openid string, err error)
}

// Platform is a client of a third-party platform.
type Platform struct {
	PreAuthCode func() (string, error)
	AccountBy   func(code string) (Account, error) // api_query_auth
	Mini        func(appid, refreshToken string) (Mini, error)
}

// SDK creates the clients. base replaces https://api.weixin.qq.com. Functions
// that the SDK does not have are nil, but not both Account and Mini.
type SDK struct {
	Account  func(base, appid, secret string) Account
	Mini     func(base, appid, secret string) Mini
	Platform func(base, appid, secret string) (Platform, error)
}

const openid = "oSandboxUser0000000000000001"

// env returns an environment variable, or ends the program without it.
func env(name string) string {
	v := os.Getenv(name)
	if v == "" {
		fail("the environment", fmt.Errorf("%s is not set", name))
	}
	return v
}

// fail ends the program with an error.
func fail(what string, err error) {
	fmt.Println("failed", what, err)
	os.Exit(1)
}

// step runs one step and prints its name.
func step(name string, do func() error) {
	if err := do(); err != nil {
		fail(name, err)
	}
	fmt.Println("ok", name)
}

// control calls the control API of the sandbox.
func control(method, path, body string) []byte {
	req, err := http.NewRequest(method, env("CONTROL_URL")+"/sandbox/"+path, strings.NewReader(body))
	if err != nil {
		fail("control", err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		fail("control", err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode >= 300 {
		fail("control", fmt.Errorf("%s %s", resp.Status, b))
	}
	return b
}

// wantError returns an error unless err contains what.
func wantError(what string, err error) error {
	if err == nil || !strings.Contains(err.Error(), what) {
		return fmt.Errorf("got error %v, want one with %q", err, what)
	}
	return nil
}

func (a Account) user() error {
	got, err := a.User(openid)
	if err == nil && got != openid {
		err = fmt.Errorf("got openid %q, want %q", got, openid)
	}
	return err
}

func (a Account) media() error {
	path := env("FILE")
	want, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	id, err := a.Upload(path)
	if err != nil {
		return err
	}
	got, err := a.Media(id)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("got %d bytes of media, want the %d that were uploaded", len(got), len(want))
	}
	return err
}

func (a Account) run(appid string) {
	// These change if a proxy decodes and encodes JSON or a query.
	const name, link, text = "今日<歌曲>&\"x\"", "http://example.com/?a=1&b=2", "您好 <b>&"
	template := func() error { return a.Template(openid, link, text) }
	step("user/info", a.user)
	step("user/get", func() error {
		n, err := a.Users()
		if err == nil && n != 3 {
			err = fmt.Errorf("got %d users, want 3", n)
		}
		return err
	})
	step("menu", func() error {
		gotName, gotLink, err := a.Menu(name, link)
		if err == nil && (gotName != name || gotLink != link) {
			err = fmt.Errorf("got menu %q %q, want %q %q", gotName, gotLink, name, link)
		}
		return err
	})
	step("template/send", template)
	step("media", a.media)
	control("POST", "expire?appid="+appid, "")
	step("media, its token expired", a.media)
	control("POST", "supersede?appid="+appid, "")
	step("template/send, its token superseded", template)
	control("POST", "faults", `{"path":"/cgi-bin/user/info","break":"before"}`)
	step("an outage is an error", func() error {
		if a.user() == nil {
			return errors.New("got no error, want one")
		}
		return nil
	})
	control("DELETE", "faults", "")
	step("user/info after it", a.user)
}

func (m Mini) run(appid string) {
	picture := func() error {
		b, err := m.Code("scene=1", "pages/index")
		if err == nil && (len(b) < 100 || b[0] != 0xff || b[1] != 0xd8) {
			err = fmt.Errorf("got %.100q, want a picture", b)
		}
		return err
	}
	if m.Code != nil {
		step("getwxacodeunlimit", picture)
		control("POST", "expire?appid="+appid, "")
		step("getwxacodeunlimit, its token expired", picture)
	}
	if m.Login != nil {
		step("jscode2session", func() error {
			id, err := m.Login(fmt.Sprint("code-", os.Getpid()))
			if err == nil && id == "" {
				err = errors.New("got no openid")
			}
			return err
		})
		step("jscode2session, a bad code", func() error {
			// Do not check the errcode: WeChat sends it as a string here, which
			// Go types with a number reject.
			if _, err := m.Login("invalid-code"); err == nil {
				return errors.New("got no error, want one")
			}
			return nil
		})
	}
}

func (p Platform) run(appid, miniAppID string) {
	preAuth := func() error {
		c, err := p.PreAuthCode()
		if err == nil && !strings.HasPrefix(c, "preauthcode@@@") {
			err = fmt.Errorf("got pre-auth code %.20q", c)
		}
		return err
	}
	step("api_create_preauthcode", preAuth)
	control("POST", "expire?appid=component", "")
	step("api_create_preauthcode, its token expired", preAuth)
	var answer struct{ Code string }
	if err := json.Unmarshal(control("POST", "code?appid="+appid, ""), &answer); err != nil {
		fail("control", err)
	}
	step("api_query_auth", func() error {
		a, err := p.AccountBy(answer.Code)
		if err == nil {
			a.run(appid)
		}
		return err
	})
	step("api_authorizer_token, the mini program", func() error {
		m, err := p.Mini(miniAppID, "any refresh token")
		if err == nil {
			m.run(miniAppID)
		}
		return err
	})
}

// Run is the main function of a program.
func Run(sdk SDK) {
	base, appid, mini, secret := env("BASE_URL"), env("APPID"), env("MINI_APPID"), env("SECRET")
	both := func(accountBase, miniBase string) {
		if sdk.Account != nil {
			sdk.Account(accountBase, appid, secret).run(appid)
		}
		if sdk.Mini != nil {
			sdk.Mini(miniBase, mini, secret).run(mini)
		}
	}
	switch mode := env("MODE"); mode {
	case "plain":
		both(base, base)
	case "prefix":
		// Users often write a base URL with a trailing slash, and most SDKs add
		// another.
		both(base+"/"+appid+"/", base+"/"+mini+"/")
	case "platform":
		component := env("COMPONENT_APPID")
		p, err := sdk.Platform(base+"/"+component, component, secret)
		if err != nil {
			fail("the platform", err)
		}
		p.run(appid, mini)
	case "refused":
		call := func(appid, secret string) (err error) {
			if sdk.Account != nil {
				_, err = sdk.Account(base, appid, secret).User(openid)
			} else {
				_, err = sdk.Mini(base, appid, secret).Code("scene=1", "pages/index")
			}
			return err
		}
		step("a wrong secret is 40125",
			func() error { return wantError("40125", call(appid, "not-the-key")) })
		step("a wrong appid is 40013",
			func() error { return wantError("40013", call("wxeeeeeeeeeeeeeeee", secret)) })
	default:
		fail("the environment", fmt.Errorf("unknown MODE %q", mode))
	}
	fmt.Println("done")
}

// Rewriting returns an HTTP client for SDKs with a built-in address of WeChat.
// It sends their requests to base.
func Rewriting(base string) *http.Client { return &http.Client{Transport: rewriting(base)} }

// rewriting is a transport that replaces WeChat's base URL.
type rewriting string

// RoundTrip implements [http.RoundTripper]. Requests to other hosts fail.
func (base rewriting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "api.weixin.qq.com" {
		return nil, fmt.Errorf("unexpected request to %s", r.URL.Host)
	}
	u, err := url.Parse(strings.TrimSuffix(string(base), "/") + r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	u.RawQuery = r.URL.RawQuery
	r = r.Clone(r.Context())
	r.URL, r.Host = u, ""
	return http.DefaultTransport.RoundTrip(r)
}
