// Command silenceper runs the scenario with github.com/silenceper/wechat/v2.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	mini "github.com/silenceper/wechat/v2/miniprogram"
	miniconfig "github.com/silenceper/wechat/v2/miniprogram/config"
	"github.com/silenceper/wechat/v2/miniprogram/qrcode"
	"github.com/silenceper/wechat/v2/officialaccount"
	"github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/officialaccount/material"
	"github.com/silenceper/wechat/v2/officialaccount/menu"
	"github.com/silenceper/wechat/v2/officialaccount/message"
	openconfig "github.com/silenceper/wechat/v2/openplatform/config"
	"github.com/silenceper/wechat/v2/util"

	"wxproxy/conformance/scenario"
)

// The SDK has two ways to change WeChat's address, both for the whole process.
// The official accounts use the first, all others the second.

// byAddress changes addresses before requests. Mini program codes do not use
// it.
func byAddress(base string) *wechat.Wechat {
	util.SetURIModifier(func(uri string) string {
		return strings.Replace(uri, "https://api.weixin.qq.com", base, 1)
	})
	return sdk(http.DefaultClient)
}

// byClient changes addresses in the HTTP client, for all requests.
func byClient(base string) *wechat.Wechat {
	util.SetURIModifier(nil)
	return sdk(scenario.Rewriting(base))
}

func sdk(client *http.Client) *wechat.Wechat {
	w := wechat.NewWechat()
	w.SetHTTPClient(client)
	w.SetCache(cache.NewMemory())
	return w
}

func account(base, appid, secret string) scenario.Account {
	return clientOf(base,
		byAddress(base).GetOfficialAccount(&config.Config{AppID: appid, AppSecret: secret}))
}

func clientOf(base string, a *officialaccount.OfficialAccount) scenario.Account {
	return scenario.Account{
		User: func(openid string) (string, error) {
			u, err := a.GetUser().GetUserInfo(openid)
			if err != nil {
				return "", err
			}
			return u.OpenID, nil
		},
		Users: func() (int, error) { l, err := a.GetUser().ListAllUserOpenIDs(); return len(l), err },
		Menu: func(name, link string) (string, string, error) {
			if err := a.GetMenu().SetMenu([]*menu.Button{menu.NewViewButton(name, link)}); err != nil {
				return "", "", err
			}
			got, err := a.GetMenu().GetMenu()
			if err != nil || len(got.Menu.Button) == 0 {
				return "", "", fmt.Errorf("no menu: %v", err)
			}
			return got.Menu.Button[0].Name, got.Menu.Button[0].URL, nil
		},
		Template: func(openid, link, text string) error {
			_, err := a.GetTemplate().Send(
				&message.TemplateMessage{ToUser: openid, TemplateID: "TEMPLATE-1", URL: link,
					Data: map[string]*message.TemplateDataItem{"first": {Value: text}}})
			return err
		},
		Upload: func(path string) (string, error) {
			m, err := a.GetMaterial().MediaUpload(material.MediaTypeImage, path)
			return m.MediaID, err
		},
		Media: func(id string) ([]byte, error) {
			// The SDK returns only an address, for a browser.
			u, err := a.GetMaterial().GetMediaURL(id)
			if err != nil {
				return nil, err
			}
			req, err := http.NewRequest("GET", u, nil)
			if err != nil {
				return nil, err
			}
			resp, err := scenario.Rewriting(base).Do(req)
			if err != nil {
				return nil, err
			}
			defer resp.Body.Close()
			return io.ReadAll(resp.Body)
		},
	}
}

func miniOf(m *mini.MiniProgram) scenario.Mini {
	return scenario.Mini{
		Code: func(scene, page string) ([]byte, error) {
			return m.GetQRCode().GetWXACodeUnlimit(qrcode.QRCoder{Scene: scene, Page: page})
		},
		Login: func(code string) (string, error) {
			r,
				err := m.GetAuth().Code2Session(code)
			return r.OpenID, err
		},
	}
}

func platform(base, appid, secret string) (scenario.Platform, error) {
	p := byClient(base).GetOpenPlatform(&openconfig.Config{AppID: appid, AppSecret: secret,
		Token: "any", EncodingAESKey: "any"})
	// The receiver of tickets has to call this. Here that is wxproxy, so any
	// ticket works.
	if _, err := p.SetComponentAccessToken(context.Background(), "any ticket"); err != nil {
		return scenario.Platform{}, err
	}
	return scenario.Platform{
		PreAuthCode: p.GetPreCode,
		AccountBy: func(code string) (scenario.Account, error) {
			info, err := p.QueryAuthCode(code)
			if err != nil {
				return scenario.Account{}, err
			}
			// The SDK stores the response of api_authorizer_token only.
			if _, err := p.RefreshAuthrToken(info.Appid, info.RefreshToken); err != nil {
				return scenario.Account{}, err
			}
			return clientOf(base, p.GetOfficialAccount(info.Appid).OfficialAccount), nil
		},
		Mini: func(appid, refresh string) (scenario.Mini, error) {
			m := p.GetMiniProgram(appid).SetAuthorizerRefreshToken(refresh)
			_, err := m.GetAccessToken()
			// The SDK has no login with the component's token.
			return scenario.Mini{Code: miniOf(m.MiniProgram).Code}, err
		},
	}, nil
}

func main() {
	scenario.Run(scenario.SDK{
		Account: account,
		Mini: func(base, appid, secret string) scenario.Mini {
			return miniOf(byClient(base).GetMiniProgram(
				&miniconfig.Config{AppID: appid, AppSecret: secret, UseStableAK: true}))
		},
		Platform: platform,
	})
}
