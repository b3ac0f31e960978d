package push

import (
	"strconv"
	"strings"
	"time"
)

// Document is a piece of XML as WeChat writes it: one element after the other,
// without attributes. Its methods return the document with more at its end.
type Document string

// Event returns the beginning of an authorization event.
func (s *Sender) Event(now time.Time, infoType string) Document {
	return Document("").CDATA("AppId", s.component).Number("CreateTime", int(now.Unix())).CDATA("InfoType", infoType)
}

// Consent describes a merchant's consent, as an event reports it.
type Consent struct {
	AppID       string
	Code        string
	CodeExpires time.Time
	PreAuthCode string
}

// ConsentEvent returns an `authorized` or `updateauthorized` event.
func (s *Sender) ConsentEvent(now time.Time, infoType string, c Consent) Document {
	return s.Event(now, infoType).
		CDATA("AuthorizerAppid", c.AppID).
		CDATA("AuthorizationCode", c.Code).
		CDATA("AuthorizationCodeExpiredTime", unix(c.CodeExpires)).
		CDATA("PreAuthCode", c.PreAuthCode)
}

// CDATA adds an element with text, which may contain anything.
func (d Document) CDATA(name, value string) Document {
	// A CDATA section cannot hold its own end; two sections can.
	value = strings.ReplaceAll(value, "]]>", "]]]]><![CDATA[>")
	return d.Element(name, Document("<![CDATA["+value+"]]>"))
}

// Number adds an element with a number.
func (d Document) Number(name string, n int) Document {
	return d.Element(name, Document(strconv.Itoa(n)))
}

// Element adds an element with the document inner in it.
func (d Document) Element(name string, inner Document) Document {
	return d + Document("<"+name+">") + inner + Document("</"+name+">\n")
}

// unix returns t as WeChat writes times: in seconds.
func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
