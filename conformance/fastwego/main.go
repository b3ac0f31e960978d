// Command fastwego runs the scenario with github.com/fastwego/offiaccount,
// miniprogram and wxopen.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/fastwego/miniprogram"
	miniuser "github.com/fastwego/miniprogram/apis/user"
	"github.com/fastwego/miniprogram/apis/wxacode"
	"github.com/fastwego/offiaccount"
	"github.com/fastwego/offiaccount/apis/material"
	"github.com/fastwego/offiaccount/apis/menu"
	"github.com/fastwego/offiaccount/apis/message/template"
	"github.com/fastwego/offiaccount/apis/user"
	"github.com/fastwego/wxopen"
	"github.com/fastwego/wxopen/apis/auth"

	"wxproxy/conformance/scenario"
)

// object is a JSON object. The SDK has no types for requests.
type object map[string]any

// body returns o as JSON, without escaping HTML.
func (o object) body() []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(o); err != nil {
		panic(err)
	}
	return []byte(b.String())
}

// read decodes a response into v.
func read(v any, answer []byte, err error) error {
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, v)
}

// file returns a response that is not JSON. The SDK reports it as an error.
func file(answer []byte, err error) ([]byte, error) {
	if errors.As(err, new(*json.SyntaxError)) {
		err = nil
	}
	return answer, err
}

func account(base, appid, secret string) scenario.Account {
	offiaccount.WXServerUrl = base
	return clientOf(offiaccount.New(offiaccount.Config{Appid: appid, Secret: secret}))
}

func clientOf(a *offiaccount.OffiAccount) scenario.Account {
	return scenario.Account{
		User: func(openid string) (string, error) {
			var u struct{ OpenID string }
			answer, err := user.GetUserInfo(a, url.Values{"openid": {openid}, "lang": {"zh_CN"}})
			err = read(&u, answer, err)
			return u.OpenID, err
		},
		Users: func() (int, error) {
			var l struct{ Count int }
			answer, err := user.Get(a, url.Values{})
			err = read(&l, answer, err)
			return l.Count, err
		},
		Menu: func(name, link string) (string, string, error) {
			if _, err := menu.Create(a,
				object{"button": []object{
					{"type": "view", "name": name, "url": link}}}.body()); err != nil {
				return "", "", err
			}
			var got struct {
				Menu struct{ Button []struct{ Name, URL string } }
			}
			answer, err := menu.Get(a)
			if err := read(&got, answer, err); err != nil || len(got.Menu.Button) == 0 {
				return "", "", fmt.Errorf("no menu: %v", err)
			}
			return got.Menu.Button[0].Name, got.Menu.Button[0].URL, nil
		},
		Template: func(openid, link, text string) error {
			_, err := template.Send(a,
				object{"touser": openid, "template_id": "TEMPLATE-1", "url": link,
					"data": object{"first": object{"value": text}}}.body())
			return err
		},
		Upload: func(path string) (string, error) {
			var m struct {
				ID string `json:"media_id"`
			}
			answer, err := material.MediaUpload(a, path, url.Values{"type": {"image"}})
			err = read(&m, answer, err)
			return m.ID, err
		},
		// The SDK's own function has no parameter for the media_id.
		Media: func(id string) ([]byte,
			error) {
			return file(a.Client.HTTPGet("/cgi-bin/media/get?media_id=" + id))
		},
	}
}

func mini(base, appid, secret string) scenario.Mini {
	miniprogram.WXServerUrl = base
	m := miniprogram.New(miniprogram.Config{Appid: appid, Secret: secret})
	got := miniOf(m)
	got.Login = func(code string) (string, error) {
		var s struct{ OpenID string }
		answer, err := miniuser.Code2Session(m,
			url.Values{"appid": {appid}, "secret": {secret}, "js_code": {code},
				"grant_type": {"authorization_code"}})
		err = read(&s, answer, err)
		return s.OpenID, err
	}
	return got
}

func miniOf(m *miniprogram.Miniprogram) scenario.Mini {
	return scenario.Mini{Code: func(scene, page string) ([]byte, error) {
		return file(wxacode.GetUnlimited(m, object{"scene": scene, "page": page}.body()))
	}}
}

func platform(base, appid, secret string) (scenario.Platform, error) {
	wxopen.WXServerUrl, offiaccount.WXServerUrl, miniprogram.WXServerUrl = base, base, base
	p := wxopen.NewPlatform(wxopen.PlatformConfig{AppId: appid, AppSecret: secret})
	// Without a ticket it waits for a push.
	if err := p.ReceiveComponentVerifyTicketHandler(p, "any ticket"); err != nil {
		return scenario.Platform{}, err
	}
	return scenario.Platform{
		PreAuthCode: func() (string, error) {
			var c struct {
				Code string `json:"pre_auth_code"`
			}
			answer, err := auth.CreatePreauthCode(p, object{"component_appid": appid}.body())
			err = read(&c, answer, err)
			return c.Code, err
		},
		AccountBy: func(code string) (scenario.Account, error) {
			var got struct {
				Info struct {
					AppID   string `json:"authorizer_appid"`
					Token   string `json:"authorizer_access_token"`
					Refresh string `json:"authorizer_refresh_token"`
				} `json:"authorization_info"`
			}
			answer, err := auth.ApiQueryAuth(p,
				object{"component_appid": appid, "authorization_code": code}.body())
			if err := read(&got, answer, err); err != nil {
				return scenario.Account{}, err
			}
			// The program has to store the tokens itself.
			err = errors.Join(p.Cache.Save("authorizer_access_token:"+got.Info.AppID,
				got.Info.Token, 0), p.Cache.Save("authorizer_refresh_token:"+got.Info.AppID,
				got.Info.Refresh, 0))
			if err != nil {
				return scenario.Account{}, err
			}
			a, err := p.NewOffiAccount(got.Info.AppID)
			return clientOf(a), err
		},
		Mini: func(appid, refresh string) (scenario.Mini, error) {
			if err := p.Cache.Save("authorizer_refresh_token:"+appid, refresh, 0); err != nil {
				return scenario.Mini{}, err
			}
			if err := p.NoticeAuthorizerAccessTokenExpireHandler(p, appid); err != nil {
				return scenario.Mini{}, err
			}
			m, err := p.NewMiniprogram(appid)
			return miniOf(m), err
		},
	}, nil
}

func main() { scenario.Run(scenario.SDK{Account: account, Mini: mini, Platform: platform}) }
