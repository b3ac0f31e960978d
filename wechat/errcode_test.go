package wechat_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"wxproxy/wechat"
)

func TestFindErrCode(t *testing.T) {
	f := func(body string, want int) {
		t.Helper()
		if got := wechat.FindErrCode([]byte(body)); got != want {
			t.Errorf("FindErrCode(%.80q): got %d, want %d", body, got, want)
		}
	}
	f(`{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest rid: 669e174a-303bcbd1-71c3ffbf"}`, 40001)
	f(`{"errcode":0,"errmsg":"ok"}`, 0)
	f(`{"errcode":"40029","errmsg":"invalid code"}`, 40029)
	f(`{"errmsg":"busy","errcode":-1}`, -1)
	f("\xef\xbb\xbf \r\n\t{ \"errcode\" : 42001 }", 42001)
	f(`{"errmsg":"a \"quoted\" \\ word","errcode":42001}`, 42001)
	f("{\"nickname\":\"raw\x01control\",\"errcode\":40014}", 40014)
	f(`{"errcode":42001,"errmsg":"cut o`, 42001)
	f(`{"errcode":42001`, 42001)
	f(`{"list":[{"errcode":42001}],"x":{"errcode":40001}}`, 0)
	f(`{"list":[{"errcode":42001}],"errcode":45009}`, 45009)
	// a successful response that describes a failed call
	f(`{"errcode":0,"request":{"response_body":"{\"errcode\":40001,\"errmsg\":\"x\"}"}}`, 0)
	f(`{"request":{"response_body":"{\"errcode\":40001}"}}`, 0)
	f(`{"text":"errcode","errcode_x":40001,"xerrcode":40001}`, 0)
	f(`{"content":"errcode\":40001"}`, 0)
	f(`[{"errcode":40001}]`, 0)
	f(`"errcode":40001`, 0)
	f(`<html>errcode 40001</html>`, 0)
	f(``, 0)
	f(`{`, 0)
	f(`{"errcode"`, 0)
	f(`{"errcode":`, 0)
	f(`{"errcode":null}`, 0)
	f(`{"errcode":"x"}`, 0)
	f(`{"errcode":4.5e4}`, 0)
	f(`{"errcode":99999999999999999999}`, 0)
	f(`{"errcode":"40001x"}`, 0)
	f(`{"a\\":1,"errcode":40001}`, 40001)
	f(`{"a\\\"errcode":1,"b":2}`, 0)
	f(`{"data":"`+strings.Repeat("x", 1<<20)+`","errcode":40001}`, 40001)
}

func TestFindErrCodeDoesNotAllocate(t *testing.T) {
	body := []byte(`{"errcode":40001,"errmsg":"invalid credential"}`)
	if n := testing.AllocsPerRun(100, func() { wechat.FindErrCode(body) }); n != 0 {
		t.Errorf("FindErrCode: got %v allocations, want 0", n)
	}
}

// FindErrCode agrees with encoding/json on everything that encoding/json
// accepts.
func FuzzFindErrCode(f *testing.F) {
	for _, s := range []string{
		`{"errcode":40001,"errmsg":"x"}`, `{"a":{"errcode":1},"errcode":"42001"}`, `{"a":"\"errcode\":1","b":["errcode",{"errcode":2}]}`,
		"{\"a\":\"\x00\xff\",\"errcode\":-1}", `{"errcode":1e5}`, `[`, `{"a\"":[[[]]],"errcode":7}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := wechat.FindErrCode(body)
		want, comparable := reference(body)
		if comparable && got != want {
			t.Fatalf("FindErrCode(%q): got %d, want %d as encoding/json", body, got, want)
		}
	})
}

// reference returns the first top-level errcode, found by encoding/json.
// comparable is false for what is not strict JSON, and for keys with escapes.
func reference(body []byte) (code int, comparable bool) {
	if !json.Valid(body) || bytes.Contains(body, []byte(`\u`)) {
		return 0, false
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return 0, true
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return 0, false
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return 0, false
		}
		if key != "errcode" {
			continue
		}
		s := string(raw)
		if unquoted, err := strconv.Unquote(s); err == nil {
			s = unquoted
		}
		n, err := strconv.ParseInt(s, 10, 32)
		// The result for quoted numbers with spaces or signs, and for numbers
		// at the edge of the range, does not matter.
		if err != nil && strings.ContainsAny(s, "0123456789") || n > 2_000_000_000 ||
			n < -2_000_000_000 || strings.HasPrefix(s, "+") {
			return 0, false
		}
		return int(n), true
	}
	return 0, true
}
