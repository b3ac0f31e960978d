// Package scenario is what the SDKs for Go are put through: the same as scenario.js is for those for Node. The
// programs know nothing of wxproxy: an address, an appid, a secret. Everything comes from the environment, and every step that
// was made is printed.
package scenario

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// Account is a client of an official account.
type Account struct {
	User     func(openid string) (string, error) // gives the openid that was answered
	Users    func() (int, error)                 // how many there are
	Menu     func(name, url string) (gotName, gotURL string, err error)
	Template func(openid, link, text string) error
	Upload   func(path string) (mediaID string, err error)
	Media    func(mediaID string) ([]byte, error)
}

// Mini is a client of a mini program. What the SDK does not have is nil.
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

// SDK makes the clients. base is what the SDK is to call in place of https://api.weixin.qq.com. What it does not have
// is nil, but not both Account and Mini.
type SDK struct {
	Account  func(base, appid, secret string) Account
	Mini     func(base, appid, secret string) Mini
	Platform func(base, appid, secret string) (Platform, error)
}

const openid = "oSandboxUser0000000000000001"

func env(name string) string {
	v := os.Getenv(name)
	if v == "" {
		fail("the environment", fmt.Errorf("%s is not set", name))
	}
	return v
}

func fail(what string, err error) {
	fmt.Println("failed", what, err)
	os.Exit(1)
}

func step(name string, do func() error) {
	if err := do(); err != nil {
		fail(name, err)
	}
	fmt.Println("ok", name)
}

// control asks the sandbox for something to happen.
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

// refuses wants an error that says what.
func refuses(what string, err error) error {
	if err == nil || !strings.Contains(err.Error(), what) {
		return fmt.Errorf("it should have failed with %q: %v", what, err)
	}
	return nil
}

func (a Account) user() error {
	got, err := a.User(openid)
	if err == nil && got != openid {
		err = fmt.Errorf("openid %q", got)
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
		err = fmt.Errorf("the media came back changed: %d bytes of %d", len(got), len(want))
	}
	return err
}

func (a Account) run(appid string) {
	// What gets spoilt on the way when somebody writes JSON or a query anew.
	const name, link, text = "今日<歌曲>&\"x\"", "http://example.com/?a=1&b=2", "您好 <b>&"
	template := func() error { return a.Template(openid, link, text) }
	step("user/info", a.user)
	step("user/get", func() error {
		n, err := a.Users()
		if err == nil && n != 3 {
			err = fmt.Errorf("%d users", n)
		}
		return err
	})
	step("menu", func() error {
		gotName, gotLink, err := a.Menu(name, link)
		if err == nil && (gotName != name || gotLink != link) {
			err = fmt.Errorf("%q %q", gotName, gotLink)
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
			return fmt.Errorf("nobody noticed")
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
			err = fmt.Errorf("no picture: %.100q", b)
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
				err = fmt.Errorf("no openid")
			}
			return err
		})
		step("jscode2session, a bad code", func() error {
			// Its number is not looked for: WeChat writes it as a string here, and a Go type that wants a number fails on that.
			if _, err := m.Login("invalid-code"); err == nil {
				return fmt.Errorf("it was taken")
			}
			return nil
		})
	}
}

func (p Platform) run(appid, miniAppID string) {
	preAuth := func() error {
		c, err := p.PreAuthCode()
		if err == nil && !strings.HasPrefix(c, "preauthcode@@@") {
			err = fmt.Errorf("it is %.20q", c)
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

// Run is the program.
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
		// The slash at the end is how people write a base URL; most SDKs put another behind it.
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
		step("a wrong secret is 40125", func() error { return refuses("40125", call(appid, "not-the-key")) })
		step("a wrong appid is 40013", func() error { return refuses("40013", call("wxeeeeeeeeeeeeeeee", secret)) })
	default:
		fail("the environment", fmt.Errorf("no mode %q", mode))
	}
	fmt.Println("done")
}

// Rewriting is an HTTP client for SDKs that have WeChat's address built in: calls of it go to base.
func Rewriting(base string) *http.Client { return &http.Client{Transport: rewriting(base)} }

type rewriting string

func (base rewriting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != "api.weixin.qq.com" {
		return nil, fmt.Errorf("a call to %s", r.URL.Host)
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
