package wechat

import (
	"bytes"
	"fmt"
	"strings"
)

// ParseOwnEnvelope is [ParseEnvelope] for the push of an own account, which can
// be JSON, and which in compatible mode (兼容模式) has the message itself beside
// Encrypt. Of that message nothing is read, because no signature covers it. The
// error is [ErrMalformed].
func ParseOwnEnvelope(body []byte) (Envelope, error) {
	if IsJSON(body) {
		return parseJSONEnvelope(body)
	}
	if bytes.Contains(body, []byte("<MsgType>")) {
		if e, ok := lastEncrypt(body); ok {
			return Envelope{Encrypt: e}, nil
		}
	}
	return ParseEnvelope(body)
}

// parseJSONEnvelope parses an outer document in JSON. The error is
// [ErrMalformed].
func parseJSONEnvelope(body []byte) (Envelope, error) {
	_, fields, err := readJSON(body, []string{"ToUserName", "Encrypt"})
	if err != nil {
		return Envelope{}, err
	}
	f, err := fieldTexts(fields, "ToUserName", "Encrypt")
	switch {
	case err != nil:
		return Envelope{}, err
	case f["Encrypt"] == "":
		return Envelope{}, fmt.Errorf("%w: no Encrypt", ErrMalformed)
	}
	return Envelope{ToUserName: f["ToUserName"], Encrypt: f["Encrypt"]}, nil
}

// lastEncrypt returns the Encrypt at the end of a document in compatible mode.
// What stands before it is not parsed: a user's text may hold anything, tags
// and "]]>" included. Only an Encrypt that msg_signature covers counts, so a
// text cannot replace it.
func lastEncrypt(body []byte) (string, bool) {
	rest, ok := bytes.CutSuffix(bytes.TrimSpace(body), []byte("</xml>"))
	if !ok {
		return "", false
	}
	if rest, ok = bytes.CutSuffix(bytes.TrimSpace(rest), []byte("</Encrypt>")); !ok {
		return "", false
	}
	i := bytes.LastIndex(rest, []byte("<Encrypt>"))
	if i < 0 {
		return "", false
	}
	text := strings.TrimSpace(string(rest[i+len("<Encrypt>"):]))
	if inner, ok := strings.CutPrefix(text, "<![CDATA["); ok {
		text, ok = strings.CutSuffix(inner, "]]>")
		if !ok {
			return "", false
		}
	}
	return text, text != "" && strings.Trim(text, base64Characters) == ""
}

const base64Characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
