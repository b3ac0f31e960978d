package sandbox_test

import (
	"bytes"
	"image/jpeg"
	"strings"
	"testing"
)

func TestMiniPrograms(t *testing.T) {
	a := newAccount(t, mini)
	g := a.send("/wxa/getwxacodeunlimit", `{"scene":"a=1"}`).want(0)
	if _, err := jpeg.Decode(bytes.NewReader(g.body)); err != nil || g.header.Get("Content-Type") != "image/jpeg" || g.header.Get("Content-Length") == "" {
		t.Errorf("%v %v", err, g.header)
	}
	if other := a.send("/wxa/getwxacodeunlimit", `{"scene":"a=2"}`); bytes.Equal(other.body, g.body) {
		t.Error("the same picture for another scene")
	}
	if bad := a.send("/wxa/getwxacodeunlimit", `{"scene":"`+strings.Repeat("x", 33)+`"}`).want(40169); bad.header.Get("Content-Type") != "application/json; encoding=utf-8" {
		t.Errorf("%v", bad.header)
	}
	a.send("/wxa/getwxacode", `{"path":"p"}`).want(0)
	a.send("/wxa/getwxacode", `{}`).want(40035)
	contains(t, a.send("/wxa/msg_sec_check", `{"content":"x"}`).want(0).body, `"suggest":"pass"`)
	contains(t, a.send("/wxa/msg_sec_check", `{"content":"sandbox-risky"}`).want(0).body, `"suggest":"risky"`)

	if g := a.read("/wxa/get_qrcode").want(85019); g.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%v", g.header)
	}
	a.read("/wxa/get_latest_auditstatus").want(85019)
	a.send("/wxa/submit_audit", `{}`).want(85019)
	a.send("/wxa/release", `{}`).want(85019)
	a.send("/wxa/commit", `{"template_id":"0","ext_json":"not json","user_version":"1"}`).want(47001)
	a.send("/wxa/commit", `{"template_id":0,"ext_json":"{}","user_version":"1","user_desc":"x"}`).want(0)
	if g := a.read("/wxa/get_qrcode").want(0); g.header.Get("Content-Type") != "image/jpeg" {
		t.Errorf("%v", g.header)
	}
	a.send("/wxa/submit_audit", `{}`).want(0)
	contains(t, a.read("/wxa/get_latest_auditstatus").want(0).body, `"status":0`, `"auditid":400000001`)
	a.send("/wxa/release", ``).want(44002)
	a.send("/wxa/release", `{"x":1}`).want(47001)
	a.send("/wxa/release", `{}`).want(0)
}

func TestTemplateLibraryRegistrationAndDomains(t *testing.T) {
	a := newAccount(t, shop)
	contains(t, a.get(with("/wxa/gettemplatedraftlist", a.component)).want(0).body, `"draft_id":0`)
	a.comp("/wxa/addtotemplate", "draft_id", 0, "template_type", 1).want(0)
	a.comp("/wxa/addtotemplate", "draft_id", 7).want(85064)
	contains(t, a.get(with("/wxa/gettemplatelist?template_type=1", a.component)).want(0).body, `"template_id":0`)
	contains(t, a.get(with("/wxa/gettemplatelist?template_type=0", a.component)).want(0).body, `"template_list":[]`)
	a.comp("/wxa/gettemplatelist").want(43001)
	a.comp("/wxa/deletetemplate", "template_id", 0).want(0)
	a.comp("/wxa/deletetemplate", "template_id", 0).want(85064)
	for range 200 {
		a.comp("/wxa/addtotemplate", "draft_id", 0).want(0)
	}
	a.comp("/wxa/addtotemplate", "draft_id", 0).want(85065)

	a.comp("/cgi-bin/component/fastregisterweapp?action=create", "name", "n", "legal_persona_wechat", "w", "legal_persona_name", "p").want(0)
	a.comp("/cgi-bin/component/fastregisterweapp", "name", "n").want(47001)
	a.comp("/wxa/component/fastregisterpersonalweapp?action=create").want(0)
	a.comp("/wxa/component/fastregisterbetaweapp", "name", "n", "openid", "o").want(0)
	a.send("/wxa/component/fastregisterbetaweapp", `{"name":"n","openid":"o"}`).want(61014)

	const d = "/cgi-bin/component/modify_wxa_server_domain"
	a.comp(d, "action", "set", "wxa_server_domain", "a.com;b.com").want(0)
	a.comp(d, "action", "add", "wxa_server_domain", "c.com;a.com").want(0)
	if v := a.comp(d, "action", "delete", "wxa_server_domain", "b.com").want(0).field("published_wxa_server_domain"); v != "c.com;a.com" {
		t.Error(v)
	}
	a.comp(d, "action", "x").want(47001)
	contains(t, a.comp("/cgi-bin/component/get_domain_confirmfile").want(0).body, "file_content")
	contains(t, a.comp("/cgi-bin/component/api_create_preauthcode").want(0).body, `"expires_in":600`, "preauthcode@@@")
}
