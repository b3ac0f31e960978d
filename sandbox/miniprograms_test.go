package sandbox_test

import (
	"bytes"
	"image/jpeg"
	"strings"
	"testing"
)

func TestMiniPrograms(t *testing.T) {
	a := newAccountEnv(t, mini)
	g := a.postJSON("/wxa/getwxacodeunlimit", `{"scene":"a=1"}`).wantCode(0)
	if _, err := jpeg.Decode(bytes.NewReader(g.body)); err != nil ||
		g.header.Get("Content-Type") != "image/jpeg" || g.header.Get("Content-Length") == "" {
		t.Errorf("got %v %v, want a JPEG with a length", err, g.header)
	}
	if other := a.postJSON("/wxa/getwxacodeunlimit", `{"scene":"a=2"}`); bytes.Equal(other.body, g.body) {
		t.Error("got the same picture for another scene")
	}
	long := a.postJSON("/wxa/getwxacodeunlimit", `{"scene":"`+strings.Repeat("x", 33)+`"}`).wantCode(40169)
	if ct := long.header.Get("Content-Type"); ct != "application/json; encoding=utf-8" {
		t.Errorf("error: got Content-Type %q, want WeChat's JSON type", ct)
	}
	a.postJSON("/wxa/getwxacode", `{"path":"p"}`).wantCode(0)
	a.postJSON("/wxa/getwxacode", `{}`).wantCode(40035)
	contains(t, a.postJSON("/wxa/msg_sec_check", `{"content":"x"}`).wantCode(0).body, `"suggest":"pass"`)
	contains(t, a.postJSON("/wxa/msg_sec_check", `{"content":"sandbox-risky"}`).wantCode(0).body,
		`"suggest":"risky"`)

	if g := a.getAs("/wxa/get_qrcode").wantCode(85019); g.header.Get("Content-Type") != "text/plain" {
		t.Errorf("get_qrcode error: got %v, want text/plain", g.header)
	}
	a.getAs("/wxa/get_latest_auditstatus").wantCode(85019)
	a.postJSON("/wxa/submit_audit", `{}`).wantCode(85019)
	a.postJSON("/wxa/release", `{}`).wantCode(85019)
	a.postJSON("/wxa/commit", `{"template_id":"0","ext_json":"not json","user_version":"1"}`).wantCode(47001)
	a.postJSON("/wxa/commit", `{"template_id":0,"ext_json":"{}","user_version":"1","user_desc":"x"}`).wantCode(0)
	if g := a.getAs("/wxa/get_qrcode").wantCode(0); g.header.Get("Content-Type") != "image/jpeg" {
		t.Errorf("get_qrcode: got %v, want image/jpeg", g.header)
	}
	a.postJSON("/wxa/submit_audit", `{}`).wantCode(0)
	contains(t, a.getAs("/wxa/get_latest_auditstatus").wantCode(0).body, `"status":0`, `"auditid":400000001`)
	a.postJSON("/wxa/release", ``).wantCode(44002)
	a.postJSON("/wxa/release", `{"x":1}`).wantCode(47001)
	a.postJSON("/wxa/release", `{}`).wantCode(0)
}

func TestTemplatesRegistrationAndDomains(t *testing.T) {
	a := newAccountEnv(t, shop)
	contains(t, a.get(with("/wxa/gettemplatedraftlist", a.component)).wantCode(0).body, `"draft_id":0`)
	a.postAsComponent("/wxa/addtotemplate", "draft_id", 0, "template_type", 1).wantCode(0)
	a.postAsComponent("/wxa/addtotemplate", "draft_id", 7).wantCode(85064)
	contains(t, a.get(with("/wxa/gettemplatelist?template_type=1", a.component)).wantCode(0).body,
		`"template_id":0`)
	contains(t, a.get(with("/wxa/gettemplatelist?template_type=0", a.component)).wantCode(0).body,
		`"template_list":[]`)
	a.postAsComponent("/wxa/gettemplatelist").wantCode(43001)
	a.postAsComponent("/wxa/deletetemplate", "template_id", 0).wantCode(0)
	a.postAsComponent("/wxa/deletetemplate", "template_id", 0).wantCode(85064)
	for range 200 {
		a.postAsComponent("/wxa/addtotemplate", "draft_id", 0).wantCode(0)
	}
	a.postAsComponent("/wxa/addtotemplate", "draft_id", 0).wantCode(85065)

	a.postAsComponent("/cgi-bin/component/fastregisterweapp?action=create", "name", "n",
		"legal_persona_wechat", "w", "legal_persona_name", "p").wantCode(0)
	a.postAsComponent("/cgi-bin/component/fastregisterweapp", "name", "n").wantCode(47001)
	a.postAsComponent("/wxa/component/fastregisterpersonalweapp?action=create").wantCode(0)
	a.postAsComponent("/wxa/component/fastregisterbetaweapp", "name", "n", "openid", "o").wantCode(0)
	a.postJSON("/wxa/component/fastregisterbetaweapp", `{"name":"n","openid":"o"}`).wantCode(61014)

	const d = "/cgi-bin/component/modify_wxa_server_domain"
	a.postAsComponent(d, "action", "set", "wxa_server_domain", "a.com;b.com").wantCode(0)
	a.postAsComponent(d, "action", "add", "wxa_server_domain", "c.com;a.com").wantCode(0)
	if v := a.postAsComponent(d, "action", "delete", "wxa_server_domain",
		"b.com").wantCode(0).field("published_wxa_server_domain"); v != "c.com;a.com" {
		t.Errorf("got domains %q, want c.com;a.com", v)
	}
	a.postAsComponent(d, "action", "x").wantCode(47001)
	contains(t, a.postAsComponent("/cgi-bin/component/get_domain_confirmfile").wantCode(0).body, "file_content")
	contains(t, a.postAsComponent("/cgi-bin/component/api_create_preauthcode").wantCode(0).body,
		`"expires_in":600`, "preauthcode@@@")
}
