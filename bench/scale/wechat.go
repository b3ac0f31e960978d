package main

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"github.com/valyala/fasthttp"
)

// filler makes tokens as long as WeChat's, some 150 characters.
var filler = strings.Repeat("0123456789abcdef", 9)

// wechat serves a fake WeChat that knows all accounts and has a token for each.
// It returns its base URL.
func (s *scale) wechat() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &fasthttp.Server{NoDefaultServerHeader: true, MaxRequestBodySize: 1 << 20,
		Handler: s.serve}
	go func() { _ = server.Serve(ln) }()
	return "http://" + ln.Addr().String(), nil
}

// serve implements the endpoints that wxproxy uses for itself. It computes
// every response from the request, so that a million accounts need no memory
// here. All other paths answer with success.
func (s *scale) serve(c *fasthttp.RequestCtx) {
	var in struct {
		AppID  string `json:"authorizer_appid"`
		Offset int    `json:"offset"`
		Count  int    `json:"count"`
	}
	c.SetContentType("application/json")
	if c.IsPost() {
		_ = json.Unmarshal(c.PostBody(), &in)
	}
	switch string(c.Path()) {
	case "/cgi-bin/component/api_component_token":
		fmt.Fprintf(c, `{"component_access_token":"%s","expires_in":7200}`, filler)
	case "/cgi-bin/component/api_query_auth":
		fmt.Fprintf(c, `{"authorization_info":{"authorizer_appid":"%s","authorizer_access_token":"%s",`+
			`"expires_in":7200,"authorizer_refresh_token":"refreshtoken@@@%s","func_info":[]}}`, name(0), filler, name(0))
	case "/cgi-bin/component/api_authorizer_token":
		s.renewals.Add(1)
		fmt.Fprintf(c, `{"authorizer_access_token":"%s%s","expires_in":7200,`+
			`"authorizer_refresh_token":"refreshtoken@@@%s"}`, in.AppID, filler[18:], in.AppID)
	case "/cgi-bin/component/api_get_authorizer_info":
		fmt.Fprintf(c, `{"authorizer_info":{"nick_name":"Account %s","service_type_info":{"id":2}},`+
			`"authorization_info":{"authorizer_appid":"%s","func_info":[]}}`, in.AppID, in.AppID)
	case "/cgi-bin/component/api_get_authorizer_list":
		fmt.Fprintf(c, `{"total_count":%d,"list":[`, s.accounts)
		for i := in.Offset; i < min(in.Offset+in.Count, s.accounts); i++ {
			if i > in.Offset {
				c.WriteString(",")
			}
			fmt.Fprintf(c, `{"authorizer_appid":"%s","refresh_token":"refreshtoken@@@%s","auth_time":1700000000}`,
				name(i), name(i))
		}
		c.WriteString("]}")
	default:
		c.WriteString(`{"errcode":0,"errmsg":"ok"}`)
	}
}
