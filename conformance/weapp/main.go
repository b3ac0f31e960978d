// Command weapp runs the scenario with github.com/medivhzhan/weapp/v3.
package main

import (
	"io"

	"github.com/medivhzhan/weapp/v3"
	"github.com/medivhzhan/weapp/v3/wxacode"

	"wxproxy/conformance/scenario"
)

func mini(base, appid, secret string) scenario.Mini {
	// WeChat's address is built in, so the HTTP client redirects the requests.
	c := weapp.NewClient(appid, secret, weapp.WithHttpClient(scenario.Rewriting(base)))
	return scenario.Mini{
		Code: func(scene, page string) ([]byte, error) {
			resp, common, err := c.NewWXACode().GetUnlimited(
				&wxacode.UnlimitedQRCode{Scene: scene, Page: page})
			if err == nil {
				err = common.GetResponseError()
			}
			if err != nil {
				return nil, err
			}
			defer resp.Body.Close()
			return io.ReadAll(resp.Body)
		},
		Login: func(code string) (string, error) {
			s, err := c.Login(code)
			if err != nil {
				return "", err
			}
			return s.OpenID, s.GetResponseError()
		},
	}
}

func main() { scenario.Run(scenario.SDK{Mini: mini}) }
