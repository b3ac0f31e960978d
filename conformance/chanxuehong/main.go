// Command chanxuehong runs the scenario with github.com/chanxuehong/wechat.
package main

import (
	"bytes"
	"fmt"

	"github.com/chanxuehong/wechat/mp/core"
	"github.com/chanxuehong/wechat/mp/media"
	"github.com/chanxuehong/wechat/mp/menu"
	"github.com/chanxuehong/wechat/mp/message/template"
	"github.com/chanxuehong/wechat/mp/user"

	"wxproxy/conformance/scenario"
)

func account(base, appid, secret string) scenario.Account {
	// WeChat's address is built in, so the HTTP client redirects the requests.
	client := scenario.Rewriting(base)
	c := core.NewClient(core.NewDefaultAccessTokenServer(appid, secret, client), client)
	return scenario.Account{
		User: func(openid string) (string, error) {
			u, err := user.Get(c, openid, "zh_CN")
			if err != nil {
				return "", err
			}
			return u.OpenId, nil
		},
		Users: func() (int, error) {
			l, err := user.List(c, "")
			if err != nil {
				return 0, err
			}
			return len(l.Data.OpenIdList), nil
		},
		Menu: func(name, link string) (string, string, error) {
			m := menu.Menu{Buttons: make([]menu.Button, 1)}
			m.Buttons[0].SetAsViewButton(name, link)
			if err := menu.Create(c, &m); err != nil {
				return "", "", err
			}
			got, _, err := menu.Get(c)
			if err != nil || len(got.Buttons) == 0 {
				return "", "", fmt.Errorf("no menu: %v", err)
			}
			return got.Buttons[0].Name, got.Buttons[0].URL, nil
		},
		Template: func(openid, link, text string) error {
			_, err := template.Send(c,
				template.TemplateMessage2{ToUser: openid, TemplateId: "TEMPLATE-1", URL: link,
					Data: map[string]template.DataItem{"first": {Value: text}}})
			return err
		},
		Upload: func(path string) (string, error) {
			m, err := media.UploadImage(c, path)
			if err != nil {
				return "", err
			}
			return m.MediaId, nil
		},
		Media: func(id string) ([]byte, error) {
			var b bytes.Buffer
			_, err := media.DownloadToWriter(c, id, &b)
			return b.Bytes(), err
		},
	}
}

func main() { scenario.Run(scenario.SDK{Account: account}) }
