package sandbox

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
)

// Messages and menus. Nothing is sent to anybody: [WeChat.History] shows what would have been.

// openidPattern: 28 characters, of which the first is an o. Whose it is, is not checked.
var openidPattern = regexp.MustCompile(`^o[0-9A-Za-z_-]{27}$`)

// message is what the three ways of sending have in common.
type message struct {
	ToUser     string                     `json:"touser"`
	Type       string                     `json:"msgtype"`
	TemplateID string                     `json:"template_id"`
	Data       json.RawMessage            `json:"data"`
	Rest       map[string]json.RawMessage `json:"-"`
}

func readMessage(c *call) (message, int) {
	m, good := decode[message](c)
	switch {
	case !good:
		return m, 47001
	case m.ToUser == "" || !openidPattern.MatchString(m.ToUser):
		return m, 40003
	}
	_ = json.Unmarshal(c.body, &m.Rest) // it is an object: checked
	return m, 0
}

// sendCustom (客服消息) wants the part that msgtype names.
func (s *WeChat) sendCustom(c *call) answer {
	m, code := readMessage(c)
	switch {
	case code != 0:
		return fail(code)
	case m.Type == "" || m.Rest[m.Type] == nil:
		return fail(47001)
	}
	return ok()
}

func (s *WeChat) sendTemplate(c *call) answer {
	m, code := readMessage(c)
	switch {
	case code != 0:
		return fail(code)
	case m.TemplateID == "":
		return fail(40037)
	case m.Data == nil:
		return fail(47001)
	}
	s.lastMessage++
	return okWith(fields{"msgid": 200_000_000_000_000_000 + s.lastMessage}) // more than a float64 holds
}

func (s *WeChat) sendSubscribe(c *call) answer {
	m, code := readMessage(c)
	switch {
	case code != 0:
		return fail(code)
	case m.TemplateID == "":
		return fail(40037)
	case m.Data == nil:
		return fail(47001)
	}
	return ok()
}

func (s *WeChat) addMessageTemplate(c *call) answer {
	if c.field("template_id_short") == "" {
		return fail(40037)
	}
	return okWith(fields{"template_id": random(32)})
}

// createMenu keeps the menu as it came, of 64 KiB at most.
func (s *WeChat) createMenu(c *call) answer {
	in, good := decode[struct {
		Button []json.RawMessage `json:"button"`
	}](c)
	switch {
	case !good || len(c.body) > maxKept:
		return fail(47001)
	case len(in.Button) < 1 || len(in.Button) > 3:
		return fail(40016)
	}
	c.account.menu = slices.Clone(bytes.TrimSpace(c.body))
	return ok()
}

func (s *WeChat) getMenu(c *call) answer {
	if c.account.menu == nil {
		return fail(46003)
	}
	return reply(fields{"menu": c.account.menu})
}

func (s *WeChat) deleteMenu(c *call) answer {
	c.account.menu = nil
	return ok()
}

// getTicket is harmless to the platform, and the caller needs it.
func (s *WeChat) getTicket(c *call) answer {
	if t := c.arg("type"); t != "jsapi" && t != "wx_card" {
		return fail(40035)
	}
	return okWith(fields{"ticket": s.rememberUser("sM4AOVdWfPE4DxkXGEs8V" + random(48)), "expires_in": 7200})
}

// createQRCode answers a `ticket` that is no secret at all: it is part of a picture's address.
func (s *WeChat) createQRCode(c *call) answer {
	in, good := decode[struct {
		Expire int             `json:"expire_seconds"`
		Action string          `json:"action_name"`
		Info   json.RawMessage `json:"action_info"`
	}](c)
	switch {
	case !good:
		return fail(47001)
	case !slices.Contains([]string{"QR_SCENE", "QR_STR_SCENE", "QR_LIMIT_SCENE", "QR_LIMIT_STR_SCENE"}, in.Action) || in.Info == nil:
		return fail(40053)
	}
	f := fields{"ticket": "gQ" + random(60) + "==", "url": "http://weixin.qq.com/q/" + random(12)}
	if in.Action == "QR_SCENE" || in.Action == "QR_STR_SCENE" {
		orElse(&in.Expire, 60)
		f["expire_seconds"] = in.Expire
	}
	return reply(f)
}
