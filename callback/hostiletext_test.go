package callback_test

import (
	"encoding/xml"
	"fmt"
	"strings"
	"testing"

	"wxproxy/callback"
)

// hostileContents are texts that users type, and that WeChat does not escape:
// the end of a CDATA section, of the element and of the document, CDATA in
// CDATA, forged fields, markup, entities, control characters, cut UTF-8.
var hostileContents = []string{
	"]]>", "a]]>b", "<![CDATA[a]]>", "]]><![CDATA[", "]]></Content></xml>", "</Content>", "<", "&",
	"&nothing;", "<!DOCTYPE a>", "<a>", "\x00\x08\x1f", "\xe5\xad", "\ufffe", "<!--",
	"]]></Content><FromUserName><![CDATA[forged]]></FromUserName><Content><![CDATA[",
	"]]></Content><MsgType>event</MsgType><Event>forged</Event><Content><![CDATA[",
	"]]></Content><InfoType>forged</InfoType><Content><![CDATA[",
	"]]></Content><ToUserName>gh_000000000000</ToUserName><MsgId>1</MsgId></xml><!--",
	strings.Repeat("]]></Content>", 2000),
}

// arrived returns a hostile text as a service has to read it: with a
// replacement for what XML cannot hold.
func arrived(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ':
			return ' '
		case r == 0xFFFE:
			return '\uFFFD'
		}
		return r
	}, text)
}

// Each hostile text is answered with success, whether a service gets it or not.
// The service reads what WeChat wrote and what the user typed, and nothing
// else, as text and as the name of an event's key.
func TestHostileTextsReachServices(t *testing.T) {
	s := newService(t, nil)
	without := start(t, callback.Config{})
	with := start(t, callback.Config{Forwards: []callback.Forward{forwardAll(s.URL)}})
	for i, text := range hostileContents {
		for _, kind := range []string{"text", "event"} {
			doc, name := textDoc(text), "Content"
			if kind == "event" {
				name = "EventKey"
				text = strings.ReplaceAll(text, "Content>", "EventKey>")
				doc = messageDoc("event", "<Event>CLICK</Event><EventKey><![CDATA["+text+"]]></EventKey>")
			}
			before := len(s.deliveries())
			without.wantResponse(without.message(doc), 200)
			with.wantResponse(with.message(doc), 200)
			s.wantDeliveries(t, before+1)
			got := s.deliveries()[before]
			var read struct {
				ToUserName, FromUserName, MsgType, Event, Content, EventKey, InfoType []string
			}
			if err := xml.Unmarshal([]byte(got.body), &read); err != nil {
				t.Errorf("%q: got %.1000q, which is not well-formed: %v", text, got.body, err)
				continue
			}
			typed := append(read.Content, read.EventKey...)
			want := fmt.Sprintf("%q", []any{
				[]string{originalID}, []string{user}, []string{kind}, []string{arrived(text)},
			})
			if got := fmt.Sprintf("%q", []any{
				read.ToUserName, read.FromUserName, read.MsgType, typed,
			}); got != want || len(read.InfoType) > 0 || len(read.Event) > 0 != (kind == "event") {
				t.Errorf("text %d as %s: got %.1000q, want %.1000q in the service", i, name, got, want)
			}
			if got.header.Get("X-WX-OPENID") != user {
				t.Errorf("%q: got X-WX-OPENID %q, want %q", text, got.header.Get("X-WX-OPENID"), user)
			}
		}
	}
}

// A list of results that names neither its type nor the component is forwarded
// for the component.
func TestResultsOfBatchAreForwarded(t *testing.T) {
	s := newService(t, nil)
	w := start(t, callback.Config{Forwards: []callback.Forward{
		{AppIDs: []string{component}, Events: []string{"*"}, URL: s.URL},
	}})
	doc := "<xml><List><Appid>" + account + "</Appid><AuditId>1</AuditId></List></xml>"
	w.wantResponse(w.push(doc), 200)
	eventually(t, "a delivery", func() bool { return len(s.deliveries()) > 0 })
	got := s.deliveries()[0]
	if got.body != doc || got.header.Get("X-WX-APPID") != component {
		t.Errorf("service: got %q for %s, want %q for %s",
			got.body, got.header.Get("X-WX-APPID"), doc, component)
	}
	w.wantCounted("other ignored")
}
