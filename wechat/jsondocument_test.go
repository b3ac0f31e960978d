package wechat

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestJSONDocument reads what events and messages are routed by from documents
// in JSON: WeChat's own example, numbers as texts, nested and unknown members,
// byte order mark, raw control characters and invalid UTF-8 in a text.
func TestJSONDocument(t *testing.T) {
	const example = `{"ToUserName":"gh_97417a04a28d",` +
		`"FromUserName":"o9AgO5Kd5ggOC-bXrbNODIiE3bGY","CreateTime":1714112445,` +
		`"MsgType":"event","Event":"debug_demo","debug_str":"hello world"}`
	for name, tc := range map[string]struct{ doc, want, bytes string }{
		"WeChat's example": {example, `event debug_demo "" 1714112445`, example},
		"text": {
			`{"MsgType":"text","Content":"你好 \"<\u0041"}`, `text  "你好 \"<A" 0`, "",
		},
		"number as text": {
			`{"MsgType":"text","CreateTime":"1714112445"}`, `text  "" 1714112445`, "",
		},
		"large id": {
			`{"MsgType":"text","MsgId":12345678901234567890123}`, `text  "" 0`, "",
		},
		"nested": {
			`{"MsgType":"event","List":[{"Event":"a","MsgType":"b"}],"Event":"c"}`,
			`event c "" 0`, "",
		},
		"null": {`{"MsgType":"event","Event":null}`, `event  "" 0`, ""},
		"byte order mark": {
			"\uFEFF {\"MsgType\":\"text\"}\n", `text  "" 0`, " {\"MsgType\":\"text\"}\n",
		},
		"control characters": {
			"{\"MsgType\":\"text\",\n\"Content\":\"a\x02\n\tb\"}", `text  "a\x02\n\tb" 0`,
			"{\"MsgType\":\"text\",\n\"Content\":\"a\\u0002\\u000a\\u0009b\"}"},
		"invalid UTF-8": {
			"{\"MsgType\":\"text\",\"Content\":\"a\xe4\xbd\"}", "text  \"a\uFFFD\uFFFD\" 0",
			"{\"MsgType\":\"text\",\"Content\":\"a\uFFFD\uFFFD\"}"},
	} {
		d, err := ParseJSONDocument([]byte(tc.doc))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := d.Message()
		created := d.CreateTime().Unix()
		if d.CreateTime().IsZero() {
			created = 0
		}
		got := fmt.Sprintf("%s %s %q %d", m.MsgType, m.Event, m.Content, created)
		if err != nil || got != tc.want {
			t.Errorf("%s: got %s %v, want %s", name, got, err, tc.want)
		}
		if want := cmp.Or(tc.bytes, tc.doc); string(d.WellFormed()) != want {
			t.Errorf("%s: got document %q", name, d.WellFormed())
		}
		if !d.IsJSON() || d.ContentType() != "application/json" {
			t.Errorf("%s: got type %q", name, d.ContentType())
		}
	}
}

// TestMalformedJSON rejects documents that two readers could understand
// differently, or that cost more than their bytes: names that are there twice
// (in another case, too), fields that are no text, depth over 16, more than
// 1,000 values, over 1 MiB, and everything that is no single JSON object.
func TestMalformedJSON(t *testing.T) {
	for name, doc := range map[string]string{
		"empty":             ``,
		"list":              `[{"MsgType":"text"}]`,
		"text":              `"MsgType"`,
		"two objects":       `{"MsgType":"text"}{"MsgType":"text"}`,
		"cut off":           `{"MsgType":"text"`,
		"trailing comma":    `{"MsgType":"text",}`,
		"XML":               `<xml><MsgType>text</MsgType></xml>`,
		"twice":             `{"MsgType":"text","MsgType":"event"}`,
		"twice and escaped": `{"MsgType":"text","MsgTyp\u0065":"event"}`,
		"twice, lower case": `{"MsgType":"text","msgtype":"event"}`,
		"lower case first":  `{"msgtype":"event","MsgType":"text"}`,
		"unknown twice":     `{"MsgType":"text","a":1,"a":2}`,
		"an object":         `{"MsgType":{"a":"text"}}`,
		"a list":            `{"MsgType":["text"]}`,
		"InfoType":          `{"MsgType":"text","InfoType":"authorized"}`,
		"deep":              `{"a":` + strings.Repeat("[", 17) + strings.Repeat("]", 17) + `}`,
		"very deep":         `{"a":` + strings.Repeat("[", 1<<20-5),
		"many values":       `{"a":[` + strings.Repeat("1,", 1000) + `1]}`,
		"large":             `{"a":"` + strings.Repeat("a", PushLimit) + `"}`,
		"grows":             `{"a":"` + strings.Repeat("\x01", PushLimit/2) + `"}`,
		"open string":       "{\"a\":\"b\x01}",
	} {
		d, err := ParseJSONDocument([]byte(doc))
		if err == nil {
			_, err = d.Message()
		}
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

// TestOwnEnvelope finds Encrypt in the forms of an own account's push: safe and
// compatible mode, XML and JSON. Beside it, in compatible mode, a user's text
// may hold tags, "]]>", an Encrypt of its own, and hundreds of marks.
func TestOwnEnvelope(t *testing.T) {
	compatible := func(content string) string {
		return "<xml><ToUserName><![CDATA[gh_1]]></ToUserName>\n" +
			"<MsgType><![CDATA[text]]></MsgType>\n" +
			"<Content><![CDATA[" + content + "]]></Content>\n<MsgId>1</MsgId>\n" +
			"<Encrypt><![CDATA[QUJD/+==]]></Encrypt>\n</xml>\n"
	}
	const end, begin = "]]></Content>", "<Content><![CDATA["
	const plain = "<xml><MsgType>text</MsgType>"
	for name, body := range map[string]string{
		"safe": "<xml><ToUserName>1</ToUserName>" +
			"<Encrypt><![CDATA[QUJD/+==]]></Encrypt></xml>",
		"compatible":              compatible("hello"),
		"compatible, marks":       compatible(strings.Repeat("<=", 1000)),
		"compatible, Encrypt":     compatible("<Encrypt>AAAA</Encrypt>"),
		"compatible, closed":      compatible(end + "<Encrypt>AAAA</Encrypt>" + begin),
		"compatible, no CDATA":    plain + "<Encrypt> QUJD/+== </Encrypt></xml>",
		"compatible, other order": "<xml><Encrypt>QUJD/+==</Encrypt><MsgType>text</MsgType></xml>",
		"JSON":                    `{"ToUserName":"gh_1","Encrypt":"QUJD\/+=="}`,
		"JSON, compatible": `{"MsgType":"text","Content":"{\"Encrypt\":1}",` +
			`"Encrypt":"QUJD/+=="}`,
	} {
		e, err := ParseOwnEnvelope([]byte(body))
		if err != nil || e.Encrypt != "QUJD/+==" {
			t.Errorf("%s: got %q %v, want QUJD/+==", name, e.Encrypt, err)
		}
	}
	for name, body := range map[string]string{
		"safe, twice":       "<xml><Encrypt>QUJD</Encrypt><Encrypt>QUJD</Encrypt></xml>",
		"safe, attributes":  "<xml" + strings.Repeat(" a='1'", 99) + "><Encrypt>a</Encrypt></xml>",
		"compatible, open":  "<xml><MsgType>text</MsgType><Encrypt><![CDATA[QUJD</Encrypt></xml>",
		"compatible, no":    "<xml><MsgType>text</MsgType></xml>",
		"compatible, other": plain + strings.Repeat("<a/>", 100) + "<Encrypt>QU<JD</Encrypt></xml>",
		"JSON, twice":       `{"Encrypt":"QUJD","Encrypt":"QUJD"}`,
		"JSON, other case":  `{"Encrypt":"QUJD","encrypt":"QUJD"}`,
		"JSON, no Encrypt":  `{"ToUserName":"gh_1"}`,
		"JSON, object":      `{"Encrypt":{"a":"QUJD"}}`,
		"JSON, then XML":    `{"Encrypt":"QUJD"}<xml><Encrypt>QUJD</Encrypt></xml>`,
		"XML, then JSON":    `<xml><Encrypt>QUJD</Encrypt></xml>{"Encrypt":"QUJD"}`,
	} {
		if e, err := ParseOwnEnvelope([]byte(body)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %q %v, want ErrMalformed", name, e.Encrypt, err)
		}
	}
}

// FuzzJSONDocument checks for any document that is read: what services get is
// valid JSON within the limit, is the same when it is read again, and has the
// texts that encoding/json finds in it.
func FuzzJSONDocument(f *testing.F) {
	for _, doc := range []string{
		`{"MsgType":"text","Content":"a"}`, "{\"Content\":\"\x01\xff\\\"\"}",
		`{"a":[{"b":1}],"MsgType":null}`,
		`{"msgtype":"a"}`, `{"Content":"\ud800"}`, "\uFEFF{}",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		_, _ = ParseOwnEnvelope(doc)
		d, err := ParseJSONDocument(doc)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want ErrMalformed", err)
			}
			return
		}
		var other map[string]any
		if err := json.Unmarshal(d.WellFormed(), &other); err != nil || len(d.WellFormed()) > PushLimit {
			t.Fatalf("got %d bytes that are no JSON (%v)", len(d.WellFormed()), err)
		}
		again, err := ParseJSONDocument(d.WellFormed())
		if err != nil {
			t.Fatalf("got %v for a document that was read", err)
		}
		m, err := d.Message()
		if m2, err2 := again.Message(); m != m2 || (err == nil) != (err2 == nil) {
			t.Fatalf("got %+v %v, then %+v %v", m, err, m2, err2)
		}
		text, ok := other["MsgType"].(string)
		if err == nil && ok && strings.TrimSpace(text) != m.MsgType {
			t.Fatalf("got MsgType %q, want %q", m.MsgType, text)
		}
	})
}

// FuzzOwnEnvelope checks that no text of a user changes which Encrypt of a push
// in compatible mode is found, in XML and in JSON.
func FuzzOwnEnvelope(f *testing.F) {
	for _, text := range []string{
		"hello", "]]></Content><Encrypt>QQ==</Encrypt>", "<Encrypt>", "</xml>", "\xff\x00<MsgType>",
		`","Encrypt":"`, "<Encrypt><![CDATA[", "<!DOCTYPE xml>",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const want = "QUJD/+=="
		if len(text) > PushLimit/8 {
			return // may become longer than a push when it is escaped
		}
		inXML := "<xml><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[" + text +
			"]]></Content><Encrypt><![CDATA[" + want + "]]></Encrypt></xml>"
		content, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		inJSON := `{"MsgType":"text","Content":` + string(content) + `,"Encrypt":"` + want + `"}`
		for _, body := range []string{inXML, inJSON} {
			if e, err := ParseOwnEnvelope([]byte(body)); err != nil || e.Encrypt != want {
				t.Fatalf("got %q %v for %q, want %s", e.Encrypt, err, body, want)
			}
		}
	})
}
