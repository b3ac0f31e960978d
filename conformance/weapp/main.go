// Command weapp puts github.com/medivhzhan/weapp/v3 through the scenario.
package main

import (
	"io"

	"github.com/medivhzhan/weapp/v3"
	"github.com/medivhzhan/weapp/v3/wxacode"

	"wxproxy/conformance/scenario"
)

func mini(base, appid, secret string) scenario.Mini {
	// WeChat's address is built in: the client of the program takes the calls elsewhere.
	c := weapp.NewClient(appid, secret, weapp.WithHttpClient(scenario.Rewriting(base)))
	return scenario.Mini{
		Code: func(scene, page string) ([]byte, error) {
			resp, said, err := c.NewWXACode().GetUnlimited(&wxacode.UnlimitedQRCode{Scene: scene, Page: page})
			if err == nil {
				err = said.GetResponseError()
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
