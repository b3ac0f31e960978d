package protocol

import (
	"encoding/json"
	"regexp"
	"slices"
	"sync/atomic"

	"wxproxy/sandbox/internal/random"
	"wxproxy/sandbox/internal/state"
)

// openidPattern is the form of an openid: 28 characters, the first an o. Which
// user it stands for is not checked.
var openidPattern = regexp.MustCompile(`^o[0-9A-Za-z_-]{27}$`)

// messageHandler serves messages and what belongs to them. No message is
// delivered; the history of requests shows what was sent.
type messageHandler struct {
	secrets *state.SecretList
	sent    atomic.Int64 // template messages so far, of all accounts
}

func (h *messageHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/message/custom/send":       {post, accountToken, plainJSON, h.sendCustom},
		"/cgi-bin/message/template/send":     {post, accountToken, plainJSON, h.sendTemplate},
		"/cgi-bin/message/subscribe/send":    {post, accountToken, plainJSON, h.sendSubscribe},
		"/cgi-bin/template/api_add_template": {post, accountToken, jsonBody, h.addTemplate},
		"/cgi-bin/ticket/getticket":          {get, accountToken, noBody, h.ticket},
		"/cgi-bin/qrcode/create":             {post, accountToken, jsonBody, h.createQRCode},
	}
}

// message is what the three ways of sending have in common.
type message struct {
	ToUser     string                     `json:"touser"`
	Type       string                     `json:"msgtype"`
	TemplateID string                     `json:"template_id"`
	Data       json.RawMessage            `json:"data"`
	Fields     map[string]json.RawMessage `json:"-"` // the whole body
}

// readMessage parses the body; the errcode is 0 if it is a message to a user.
func readMessage(r *Request) (message, int) {
	m, good := decode[message](r)
	switch {
	case !good:
		return m, 47001
	case !openidPattern.MatchString(m.ToUser):
		return m, 40003
	}
	_ = json.Unmarshal(r.Body, &m.Fields) // an object, as decode has found
	return m, 0
}

// sendCustom (客服消息) requires the part of the body that msgtype names.
func (h *messageHandler) sendCustom(r *Request) Response {
	m, code := readMessage(r)
	switch {
	case code != 0:
		return fail(code)
	case m.Type == "" || m.Fields[m.Type] == nil:
		return fail(47001)
	}
	return ok()
}

// sendTemplate returns numbers that are too large for a float64, as WeChat's
// are: a client that decodes them as one loses digits.
func (h *messageHandler) sendTemplate(r *Request) Response {
	m, code := readMessage(r)
	if code == 0 {
		code = m.checkTemplate()
	}
	if code != 0 {
		return fail(code)
	}
	return okWith(fields{"msgid": 200_000_000_000_000_000 + h.sent.Add(1)})
}

// sendSubscribe (订阅消息) checks what sendTemplate checks and returns no
// number.
func (h *messageHandler) sendSubscribe(r *Request) Response {
	m, code := readMessage(r)
	if code == 0 {
		code = m.checkTemplate()
	}
	return result(code)
}

// checkTemplate returns the errcode of a message without a template or data.
func (m *message) checkTemplate() int {
	switch {
	case m.TemplateID == "":
		return 40037
	case m.Data == nil:
		return 47001
	}
	return 0
}

// addTemplate returns a template ID, which the sending of messages does not
// check.
func (h *messageHandler) addTemplate(r *Request) Response {
	if r.Field("template_id_short") == "" {
		return fail(40037)
	}
	return okWith(fields{"template_id": random.Base64(32)})
}

// ticket returns a jsapi ticket. It does no harm to the platform, and the
// caller needs it to sign pages.
func (h *messageHandler) ticket(r *Request) Response {
	if t := r.Arg("type"); t != "jsapi" && t != "wx_card" {
		return fail(40035)
	}
	ticket := h.secrets.Add("sM4AOVdWfPE4DxkXGEs8V" + random.Base64(48))
	return okWith(fields{"ticket": ticket, "expires_in": 7200})
}

// createQRCode returns a "ticket" that is no secret: it is part of the address
// of a picture.
func (h *messageHandler) createQRCode(r *Request) Response {
	in, good := decode[struct {
		Expire int             `json:"expire_seconds"`
		Action string          `json:"action_name"`
		Info   json.RawMessage `json:"action_info"`
	}](r)
	temporary := in.Action == "QR_SCENE" || in.Action == "QR_STR_SCENE"
	permanent := slices.Contains([]string{"QR_LIMIT_SCENE", "QR_LIMIT_STR_SCENE"}, in.Action)
	switch {
	case !good:
		return fail(47001)
	case !temporary && !permanent || in.Info == nil:
		return fail(40053)
	}
	f := fields{"ticket": "gQ" + random.Base64(60) + "==", "url": "http://weixin.qq.com/q/" + random.Base64(12)}
	if temporary {
		if in.Expire == 0 {
			in.Expire = 60 // seconds; WeChat's default
		}
		f["expire_seconds"] = in.Expire
	}
	return reply(f)
}
