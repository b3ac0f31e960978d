package wechat_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"wxproxy/wechat"
)

func TestParseEnvelope(t *testing.T) {
	f := func(in string, want wechat.Envelope) {
		t.Helper()
		got, err := wechat.ParseEnvelope([]byte(in))
		if err != nil || got != want {
			t.Errorf("ParseEnvelope(%s)\n got %+v, %v\nwant %+v", in, got, err, want)
		}
	}
	ticket := wechat.Envelope{AppID: "wx6001eeeefe06e0af", Encrypt: "D7yz+/UN=="}
	message := wechat.Envelope{ToUserName: "gh_97417a04a28d", Encrypt: "D7yz+/UN=="}

	f(`<xml><AppId><![CDATA[wx6001eeeefe06e0af]]></AppId><Encrypt><![CDATA[D7yz+/UN==]]></Encrypt></xml>`,
		ticket)
	f(`<xml><Encrypt>D7yz+/UN==</Encrypt><AppId>wx6001eeeefe06e0af</AppId></xml>`, ticket)
	f("<xml>\n    <AppId><![CDATA[wx6001eeeefe06e0af]]></AppId>\n    <Encrypt>\n<![CDATA[D7yz+/UN==]]>\n</Encrypt>\n</xml>\n",
		ticket)
	f("\xef\xbb\xbf"+`<?xml version="1.0" encoding="UTF-8"?>`+"\r\n<!-- -->"+`<xml><Encrypt>D7yz+/UN==</Encrypt><AppId>wx6001eeeefe06e0af</AppId><AgentID/></xml>`,
		ticket)
	f(`<?xml version="1.0" encoding="GBK"?><xml><Encrypt>D7yz+/UN==</Encrypt><AppId>wx6001eeeefe06e0af</AppId></xml>`,
		ticket)
	f(`<xml><ToUserName><![CDATA[gh_97417a04a28d]]></ToUserName><Encrypt><![CDATA[D7yz+/UN==]]></Encrypt></xml>`,
		message)
	f(`<xml><Encrypt><![CDATA[D7yz]]>+/UN==</Encrypt></xml>`, wechat.Envelope{Encrypt: "D7yz+/UN=="})
	f(`<xml><other><AppId>wx0000000000000000</AppId><Encrypt>no</Encrypt></other><Encrypt>D7yz</Encrypt></xml>`,
		wechat.Envelope{Encrypt: "D7yz"})
}

func TestDocumentAsEvent(t *testing.T) {
	type event struct {
		appid, infoType string
		created         int64
		ticket          string
		account, code   string
		codeExpires     int64
		newAppID        string
		status          int
		authCode, msg   string
	}
	unix := func(at time.Time) int64 {
		if at.IsZero() {
			return 0
		}
		return at.Unix()
	}
	f := func(in string, want event) {
		t.Helper()
		e, err := parseEvent([]byte(in))
		if err != nil {
			t.Errorf("event of %s: got error %v", in, err)
			return
		}
		got := event{e.AppID, e.InfoType, unix(e.CreateTime), e.Ticket.Reveal(), e.AuthorizerAppID,
			e.AuthorizationCode.Reveal(),
			unix(e.AuthorizationCodeExpires), e.NewAppID, e.Status, e.AuthCode.Reveal(), e.Msg}
		if got != want {
			t.Errorf("event of %s\n got %+v\nwant %+v", in, got, want)
		}
		if !e.CreateTime.IsZero() && e.CreateTime.Nanosecond() != 0 {
			t.Errorf("CreateTime: got %v, want whole seconds", e.CreateTime)
		}
	}

	// The four types of the documentation, as WeChat really pushed them.
	f(`<xml>
<AppId><![CDATA[wx6001eeeefe06e0af]]></AppId>
<CreateTime>1512627534</CreateTime>
<InfoType><![CDATA[component_verify_ticket]]></InfoType>
<ComponentVerifyTicket><![CDATA[ticket@@@5HCM8qgX]]></ComponentVerifyTicket>
</xml>`, event{appid: "wx6001eeeefe06e0af", infoType: "component_verify_ticket", created: 1512627534, ticket: "ticket@@@5HCM8qgX"})
	const authorized = `<xml>
<AppId><![CDATA[wx6001eeeefe06e0af]]></AppId>
<CreateTime>1512552185</CreateTime>
<InfoType><![CDATA[%s]]></InfoType>
<AuthorizerAppid><![CDATA[wxf7d2ddffc117e8de]]></AuthorizerAppid>
<AuthorizationCode><![CDATA[queryauthcode@@@y-s2Y--e_]]></AuthorizationCode>
<AuthorizationCodeExpiredTime><![CDATA[%s]]></AuthorizationCodeExpiredTime>
<PreAuthCode><![CDATA[preauthcode@@@cy2CSaTT]]></PreAuthCode>
</xml>`
	for _, infoType := range []string{"authorized", "updateauthorized"} {
		for expires, want := range map[string]int64{"1512555785": 1512555785, "": 0, "0": 0,
			"-1": 0, "soon": 0, "99999999999999999999": 0, "999999999999999": 0} {
			f(fmt.Sprintf(authorized, infoType, expires),
				event{appid: "wx6001eeeefe06e0af", infoType: infoType, created: 1512552185,
					account: "wxf7d2ddffc117e8de", code: "queryauthcode@@@y-s2Y--e_", codeExpires: want})
		}
	}
	f(`<xml>
<AppId><![CDATA[wx6001eeeefe06e0af]]></AppId>
<CreateTime>1512552130</CreateTime>
<InfoType><![CDATA[unauthorized]]></InfoType><AuthorizerAppid><![CDATA[wxf7d2ddffc117e8de]]></AuthorizerAppid>
</xml>`, event{appid: "wx6001eeeefe06e0af", infoType: "unauthorized", created: 1512552130, account: "wxf7d2ddffc117e8de"})

	// Fast registration: AppId and appid, elements in their real order, and
	// both forms of info.
	for _, info := range []string{
		`<info><name><![CDATA[公司]]></name><code>1</code><code_type>1</code_type><appid>wx0</appid><status>7</status></info>`,
		`<info><wxuser>u</wxuser><idname>n</idname><component_phone/></info>`, ``,
	} {
		f(`<xml><AppId><![CDATA[wx6001eeeefe06e0af]]></AppId><CreateTime>1535442403</CreateTime>
<InfoType><![CDATA[notify_third_fasteregister]]></InfoType><status>0</status><msg>OK</msg>`+info+`
<appid>wxf7d2ddffc117e8de</appid><auth_code>xxxxx</auth_code></xml>`,
			event{appid: "wx6001eeeefe06e0af", infoType: "notify_third_fasteregister",
				created: 1535442403, newAppID: "wxf7d2ddffc117e8de", authCode: "xxxxx", msg: "OK"})
	}
	f(`<xml><InfoType>notify_third_fasteregister</InfoType><status>-1</status><msg>企业与法人姓名不一致</msg></xml>`,
		event{infoType: "notify_third_fasteregister", status: -1, msg: "企业与法人姓名不一致"})

	// Types with undocumented fields: fields that look like those of another
	// type are ignored.
	f(`<xml><InfoType>notify_apply_icpfiling_result</InfoType><status>passed</status><appid>a</appid><msg>m</msg></xml>`,
		event{infoType: "notify_apply_icpfiling_result"})

	// Other elements do not make a ticket unreadable.
	f("<xml><a>\x00\x01\x1f\x7f</a><b><![CDATA[\x08 \xff\xfe\xe5\xad \uFFFE]]></b><InfoType>component_verify_ticket</InfoType><ComponentVerifyTicket>ticket@@@a</ComponentVerifyTicket></xml>",
		event{infoType: "component_verify_ticket", ticket: "ticket@@@a"})
	f(`<xml><InfoType>component_verify_ticket</InfoType><ComponentVerifyTicket>a&amp;b&lt;&#99;</ComponentVerifyTicket><x y="z"/></xml>`,
		event{infoType: "component_verify_ticket", ticket: "a&b<c"})
	f(`<xml><CreateTime>0</CreateTime><InfoType>x</InfoType></xml>`, event{infoType: "x"})
	f(`<xml><CreateTime/><InfoType>x</InfoType></xml>`, event{infoType: "x"})
	f(`<xml><CreateTime>253402300799</CreateTime><InfoType>x</InfoType></xml>`,
		event{infoType: "x", created: 253402300799})
	// Names are case-sensitive.
	f(`<xml><InfoType>unauthorized</InfoType><AuthorizerAppId>wxf7d2ddffc117e8de</AuthorizerAppId><appID>a</appID></xml>`, event{infoType: "unauthorized"})
}

// bad are documents that both parsers reject, whatever else they contain.
func bad() map[string]string {
	const rest = `<Encrypt>SECRET</Encrypt><InfoType>SECRET</InfoType></xml>`
	return map[string]string{
		"nothing":               "",
		"white space":           " \n",
		"text":                  "SECRET",
		"binary":                "\x00\x01\x02\xff",
		"no fields":             "<xml></xml>",
		"empty fields":          "<xml><Encrypt/><InfoType> </InfoType></xml>",
		"another root":          "<html>" + strings.TrimSuffix(rest, "</xml>") + "</html>",
		"root of another case":  "<XML>" + strings.TrimSuffix(rest, "</xml>") + "</XML>",
		"two roots":             "<xml>" + rest + "<xml></xml>",
		"text before":           "SECRET<xml>" + rest,
		"text behind":           "<xml>" + rest + "SECRET",
		"cut off":               "<xml>" + strings.TrimSuffix(rest, "</xml>"),
		"cut in a tag":          "<xml><Encrypt>SECRET</Enc",
		"cut in CDATA":          "<xml><Encrypt><![CDATA[SECRET",
		"ends first":            "</xml><xml>" + rest,
		"tags crossed":          "<xml><SECRET></xml></SECRET>" + rest,
		"tag closed as another": "<xml><InfoType>SECRET</SECRET><Encrypt>SECRET</SECRET></xml>",
		"document type":         `<!DOCTYPE xml [<!ENTITY e SYSTEM "file:///etc/passwd">]><xml>` + rest,
		"document type, short":  `<!DOCTYPE xml><xml>` + rest,
		"entity":                "<xml><a>&SECRET;</a>" + rest,
		"external entity":       `<xml><a>&e;</a><!ENTITY e SYSTEM "http://127.0.0.1/">` + rest,
		"twice":                 "<xml><Encrypt>a</Encrypt><InfoType>b</InfoType>" + rest,
		"element in a field":    "<xml><Encrypt>a<b/></Encrypt><InfoType>a<b/></InfoType></xml>",
		"too deep":              "<xml>" + strings.Repeat("<a>", 16) + strings.Repeat("</a>", 16) + rest,
		"too many":              "<xml>" + strings.Repeat("<a/>", 1000) + rest,
		"too long":              "<xml>" + strings.Repeat(" ", wechat.PushLimit) + rest,
		"other namespace":       `<xml xmlns="urn:a">` + rest,
	}
}

// parseEvent parses a document and returns it as an event.
func parseEvent(doc []byte) (wechat.Event, error) {
	d, err := wechat.ParseDocument(doc)
	if err != nil {
		return wechat.Event{}, err
	}
	return d.Event()
}

func TestBadDocumentsAreRejected(t *testing.T) {
	for name, in := range bad() {
		envelope, err := wechat.ParseEnvelope([]byte(in))
		if !errors.Is(err, wechat.ErrMalformed) || envelope != (wechat.Envelope{}) ||
			strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: ParseEnvelope got %+v, %v, want ErrMalformed that quotes nothing", name, envelope, err)
		}
		if name == "tags crossed" || name == "entity" {
			continue // inside a field, which is text; see TestHostileTexts
		}
		event, err := parseEvent([]byte(in))
		if !errors.Is(err, wechat.ErrMalformed) || event.InfoType != "" || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: event got %+v, %v, want ErrMalformed that quotes nothing", name, event, err)
		}
	}
	for _, in := range []string{
		`{"ToUserName":"gh_a","Encrypt":"SECRET"}`, ` {"AppId":"wx","Encrypt":"SECRET"}`,
		`<xml ` + strings.Repeat(`a="b" `, 100) + `><Encrypt>SECRET</Encrypt></xml>`,
	} {
		if _, err := wechat.ParseEnvelope([]byte(in)); !errors.Is(err, wechat.ErrMalformed) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("ParseEnvelope(%s): got %v, want ErrMalformed that quotes nothing", in, err)
		}
	}
	for _, in := range []string{"SECRET", "-1", "1.5", "0x10", "1e9", "99999999999999999999", "253402300800"} {
		if _, err := parseEvent([]byte(`<xml><InfoType>authorized</InfoType><CreateTime>` +
			in + `</CreateTime></xml>`)); !errors.Is(err, wechat.ErrMalformed) ||
			strings.Contains(err.Error(), "SECRET") {
			t.Errorf("CreateTime %s: got %v, want ErrMalformed that quotes nothing", in, err)
		}
	}
	for _, in := range []string{"SECRET", "1.5", "99999999999999999999"} {
		if _, err := parseEvent(
			[]byte(`<xml><InfoType>notify_third_fasteregister</InfoType><status>` + in +
				`</status></xml>`)); !errors.Is(err, wechat.ErrMalformed) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("status %s: got %v, want ErrMalformed that quotes nothing", in, err)
		}
	}
}

func TestDocumentLimits(t *testing.T) {
	deep := strings.Repeat("<a>", 15) + strings.Repeat("</a>", 15) // and the root: 16
	wide := strings.Repeat("<a/>", 998)                            // and root and InfoType: 1,000
	for _, in := range []string{deep, wide} {
		if _, err := parseEvent([]byte("<xml>" + in + "<InfoType>x</InfoType></xml>")); err != nil {
			t.Errorf("event of %.20s…: got %v", in, err)
		}
	}
	in := []byte("<xml><Encrypt>x</Encrypt><InfoType>x</InfoType></xml>")
	in = append(in, bytes.Repeat([]byte(" "), wechat.PushLimit-len(in))...)
	if _, err := wechat.ParseEnvelope(in); err != nil {
		t.Errorf("1 MiB: got error %v, want none", err)
	}
	if _, err := parseEvent(in); err != nil {
		t.Errorf("1 MiB: got error %v, want none", err)
	}
}

// An envelope is parsed before its sender is verified, so hostile ones must be
// cheap.
func TestEnvelopeWithManyAttributesIsCheap(t *testing.T) {
	in := []byte("<xml" + strings.Repeat(` a=""`, wechat.PushLimit/5-4) + "></xml>")
	if n := testing.AllocsPerRun(10, func() { _, _ = wechat.ParseEnvelope(in) }); n > 10 {
		t.Errorf("ParseEnvelope: got %.0f allocations, want 10 at most", n)
	}
}

// FuzzParsePush checks that the parsers do not panic, and that they find what
// encoding/xml reads into a struct, which is how SDKs read pushes.
func FuzzParsePush(f *testing.F) {
	for _, in := range bad() {
		if len(in) < 1<<12 {
			f.Add([]byte(in))
		}
	}
	f.Add([]byte(`<xml><AppId><![CDATA[wx6001eeeefe06e0af]]></AppId><Encrypt><![CDATA[D7yz+/UN==]]></Encrypt></xml>`))
	f.Add([]byte(docMessage))
	f.Add([]byte(docReply))
	f.Add([]byte(`<xml><AppId>wx6001eeeefe06e0af</AppId><CreateTime>1512627534</CreateTime><InfoType>component_verify_ticket</InfoType><ComponentVerifyTicket>a&lt;<!-- -->b<?c d?></ComponentVerifyTicket></xml>`))
	f.Add([]byte("<xml><InfoType>notify_third_fasteregister</InfoType><a>\x01\xff</a><appid>wx0</appid><status>0</status><auth_code>x</auth_code></xml>"))
	f.Fuzz(func(t *testing.T, in []byte) {
		before := bytes.Clone(in)
		envelope, err := wechat.ParseEnvelope(in)
		if err == nil && envelope.Encrypt == "" || err != nil && !errors.Is(err, wechat.ErrMalformed) {
			t.Errorf("ParseEnvelope: got both %+v and error %v", envelope, err)
		}
		event, eventErr := parseEvent(in)
		isNoEvent := event.InfoType == "" && event.AppID != ""
		if eventErr == nil && isNoEvent ||
			eventErr != nil && !errors.Is(eventErr, wechat.ErrMalformed) {
			t.Errorf("event: got both %+v and error %v", event, eventErr)
		}
		if !bytes.Equal(in, before) {
			t.Error("the parsers changed the body")
		}

		var std struct {
			AppID    string `xml:"AppId"`
			Encrypt  string `xml:"Encrypt"`
			InfoType string `xml:"InfoType"`
			Ticket   string `xml:"ComponentVerifyTicket"`
			Account  string `xml:"AuthorizerAppid"`
		}
		// The only difference is in prefixes, which Unmarshal ignores.
		if bytes.ContainsAny(in, ":") || xml.Unmarshal(in, &std) != nil {
			return
		}
		if err == nil && (envelope.AppID != strings.TrimSpace(std.AppID) ||
			envelope.Encrypt != strings.TrimSpace(std.Encrypt)) {
			t.Errorf("envelope: got %+v, want %+v as encoding/xml", envelope, std)
		}
		if eventErr == nil &&
			(event.AppID != strings.TrimSpace(std.AppID) || event.InfoType != strings.TrimSpace(std.InfoType) ||
				event.Ticket.Reveal() != strings.TrimSpace(std.Ticket) ||
				event.AuthorizerAppID != strings.TrimSpace(std.Account)) {
			t.Errorf("event: got %+v, want %+v as encoding/xml", event, std)
		}
	})
}
