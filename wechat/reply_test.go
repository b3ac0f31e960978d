package wechat_test

import (
	"errors"
	"strings"
	"testing"

	"wxproxy/wechat"
)

// A reply is passed on to WeChat as it is, so it has to be well-formed: form ×
// what services get wrong.
func TestParseReply(t *testing.T) {
	malformed, sealed := wechat.ErrMalformed, wechat.ErrSealedReply
	deep := strings.Repeat("<a>", 20) + strings.Repeat("</a>", 20)
	for doc, want := range map[string]error{
		"<xml/>":                 nil,
		"<xml><a>你好</a></xml>\n": nil,
		`<?xml version="1.0" encoding="UTF-8"?><xml><a b="c" d="c">e</a></xml>`: nil,
		`<?xml version="1.0" encoding="GBK"?><xml><a>b</a></xml>`:               nil,
		"<xml><Content><![CDATA[<Encrypt>]]></Content></xml>":                   nil,
		"<xml><a><Encrypt>b</Encrypt></a></xml>":                                nil,
		"<!-- a --><xml/><!-- b -->":                                            nil,

		"":                            malformed,
		"<xml>":                       malformed,
		"<xml></xml":                  malformed,
		"<xml></xml><xml/>":           malformed,
		"<xml/>and more":              malformed,
		"success<xml/>":               malformed,
		"<html/>":                     malformed,
		"<XML/>":                      malformed,
		"<xml><a></b></xml>":          malformed,
		"<xml><a></xml></a>":          malformed,
		"<xml>a & b</xml>":            malformed,
		"<xml>&nbsp;</xml>":           malformed,
		"<xml>a ]]> b</xml>":          malformed,
		"<xml>a < b</xml>":            malformed,
		"<xml>\x01</xml>":             malformed,
		"<xml>&#1;</xml>":             malformed,
		"<xml>\x00</xml>":             malformed,
		"<xml>\xe4\xbd</xml>":         malformed,
		"<xml>\uffff</xml>":           malformed,
		`<xml a="b" a="c"/>`:          malformed,
		`<xml a=b/>`:                  malformed,
		`<xml/><?xml version="1.0"?>`: malformed,
		"<!DOCTYPE xml><xml/>":        malformed,
		`<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><xml>&b;</xml>`: malformed,
		"<xml>" + deep + "</xml>":                           malformed,
		"<xml>" + strings.Repeat("<a/>", 1001) + "</xml>":   malformed,
		"<xml" + strings.Repeat(` a="b"`, 1000) + "></xml>": malformed,
		`{"Encrypt":"a"}`:                                   malformed,

		"<xml><Encrypt>a</Encrypt></xml>":                                 sealed,
		"<xml><Encrypt/></xml>":                                           sealed,
		"<xml><a/><Encrypt><![CDATA[a]]></Encrypt><Nonce>1</Nonce></xml>": sealed,
		"<xml><encrypt>a</encrypt></xml>":                                 sealed,
		"<xml><Encrypt>a</Encrypt>":                                       malformed,
	} {
		err := wechat.ParseReply([]byte(doc))
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%.100q: got error %v, want %v", doc, err, want)
		}
	}
}

// FuzzParseReply checks that an accepted reply is not too large a task for the
// parsers after wxproxy: it has one root, and none of what the tests above
// reject.
func FuzzParseReply(f *testing.F) {
	for _, doc := range []string{
		"<xml/>", "<xml><a b='c'>d</a></xml>", "<xml><Encrypt>a</Encrypt></xml>", "<xml>",
		`<?xml version="1.0"?><xml><![CDATA[a]]></xml>`, "<!DOCTYPE a><xml/>",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		err := wechat.ParseReply(doc)
		switch {
		case err == nil:
			if s := string(doc); !strings.Contains(s, "<xml") || strings.Contains(s, "\x00") {
				t.Errorf("%q: got no error", doc)
			}
		case !errors.Is(err, wechat.ErrMalformed) && !errors.Is(err, wechat.ErrSealedReply):
			t.Errorf("%q: got error %v, want one of wechat", doc, err)
		}
	})
}
