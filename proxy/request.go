package proxy

import (
	"strconv"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// appendHead writes the request as WeChat gets it: the caller's bytes, with our credential in
// front of his query.
func (c *call) appendHead(b []byte, token tokens.Token, body int) []byte {
	h := &c.cx.Request.Header
	b = append(b, h.Method()...)
	b = append(b, ' ')
	if c.plan.path != "" {
		b = append(b, c.plan.path...)
	} else {
		b = append(b, c.target.path...)
	}
	b = c.appendQuery(b, token)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.s.upstream.Host()...)
	b = append(b, "\r\n"...)
	b = append(b, c.headers...)
	// WeChat answers 412 to requests without a length, chunked ones above all.
	if body > 0 || c.caller.sized || !h.IsGet() && !h.IsHead() && !h.IsDelete() && !h.IsOptions() {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(body), 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

func (c *call) appendQuery(b []byte, token tokens.Token) []byte {
	start := len(b)
	b = append(b, '?')
	if c.plan.secret.IsEmpty() {
		if c.plan.withAppID {
			b = append(append(append(b, "appid="...), c.plan.appid...), '&')
		}
	} else {
		b = append(append(append(b, "appid="...), c.plan.appid...), "&secret="...)
		b = append(append(b, c.plan.secret.Reveal()...), '&')
	}
	if c.plan.component {
		b = append(append(append(b, "component_appid="...), c.s.component...), '&')
	}
	if c.plan.holder != nil {
		b = append(append(append(b, c.parameter()...), '='), token.Escaped...)
		b = append(b, '&')
	}
	ours := len(b)
	if c.plan.drop == 0 {
		b = append(b, c.target.query...)
	} else {
		b = appendWithout(b, c.target.query, c.plan.drop)
	}
	// Without a query of the caller's the separator, or the question mark, is one too many; a
	// question mark that he sent himself stays.
	if len(b) == ours && !(ours == start+1 && c.target.query != nil) {
		b = b[:ours-1]
	}
	return b
}

func (c *call) parameter() string {
	switch {
	case c.plan.path != "": // the twins are under /sns/
		return wechat.ComponentAccessToken
	case c.plan.endpoint.Parameter != "":
		return c.plan.endpoint.Parameter
	}
	return wechat.AccessToken
}
