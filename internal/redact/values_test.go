package redact_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"wxproxy/internal/redact"
)

// token is a token of realistic length and alphabet.
const token = "75_9QdZkLx0bW1vTt-Real_Token_Of_The_Platform-0123456789" +
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"

// encodings are the ways to write one byte. They can be combined: the result of
// one is encoded by the next, some bytes of it or all.
var encodings = map[string]func(b byte) string{
	"as it is":     func(b byte) string { return string(b) },
	"percent":      func(b byte) string { return fmt.Sprintf("%%%02X", b) },
	"percent low":  func(b byte) string { return fmt.Sprintf("%%%02x", b) },
	"unicode":      func(b byte) string { return fmt.Sprintf(`\u%04x`, b) },
	"unicode high": func(b byte) string { return fmt.Sprintf(`\u%04X`, b) },
	"hexadecimal":  func(b byte) string { return fmt.Sprintf(`\x%02x`, b) },
	"entity":       func(b byte) string { return fmt.Sprintf("&#%d;", b) },
	"entity hex":   func(b byte) string { return fmt.Sprintf("&#x%04x;", b) },
	"named":        namedEntity,
	"json":         backslash,
}

var encodingNames = []string{
	"as it is", "percent", "percent low", "unicode", "unicode high", "hexadecimal", "entity",
	"entity hex", "named", "json",
}

func namedEntity(b byte) string {
	names := map[byte]string{'"': "quot", '&': "amp", '<': "lt", '>': "gt", '_': "lowbar"}
	if name, ok := names[b]; ok {
		return "&" + name + ";"
	}
	return string(b)
}

func backslash(b byte) string {
	if b == '"' || b == '\\' || b == '/' {
		return `\` + string(b)
	}
	return string(b)
}

// encode writes s with an encoding. Of the bytes that need no escape it encodes
// each with the given probability.
func encode(r *rand.Rand, s, encoding string, probability float64) string {
	var b strings.Builder
	for i := range len(s) {
		special := strings.IndexByte(`"\/&<>%`, s[i]) >= 0
		if special || r.Float64() < probability {
			b.WriteString(encodings[encoding](s[i]))
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// TestValueIsFoundInEveryEncoding checks a known token in each composition of
// two encodings, of some bytes or all, in each surrounding.
func TestValueIsFoundInEveryEncoding(t *testing.T) {
	var o redact.Options
	o.Values.Add(token)
	r := rand.New(rand.NewPCG(1, 2))
	for _, first := range encodingNames {
		for _, second := range encodingNames {
			for _, probability := range []float64{0, 0.1, 0.5, 1} {
				in := encode(r, encode(r, token, first, probability), second, probability)
				for _, around := range [][2]string{
					{"", ""}, {`{"a":"`, `","b":1}`}, {"?access_token=", "&x=1"}, {"<a>", "</a>"},
					// What comes before can look like an escape that takes the
					// first characters of the token.
					{"100%", "%"}, {`\`, `\`}, {`\u00`, ""}, {`\u`, ""}, {"&", ";"}, {"&#", ";"},
					{"%%", ""},
				} {
					text := around[0] + in + around[1]
					got, n := redact.Mask([]byte(text), &o)
					shown := bytes.Contains(redact.Plain(got), []byte(token[6:]))
					if in := o.Values.In([]byte(text)); n != 1 || shown || !in {
						t.Fatalf("%s of %s (%v): Mask(%s): got %s, %d masked, In %t",
							second, first, probability, text, got, n, in)
					}
					if around[0] == `{"a":"` && string(got) != `{"a":"***","b":1}` {
						t.Errorf("%s of %s: got %s, want the rest unchanged", second, first, got)
					}
				}
			}
		}
	}
}

// TestValues checks what is added, and what is found.
func TestValues(t *testing.T) {
	var v redact.Values
	v.Add("short")
	if !v.Empty() || v.In([]byte("short")) {
		t.Errorf("short value: got it added, want it ignored")
	}
	v.Add(token)
	v.Add(token)
	v.Add("0123456789abcdef%2B/=")
	v.Add("0123456789abcdef+/=")
	v.Add("the third value, which is known")
	for in, want := range map[string]string{
		"":                           "",
		token[:80]:                   token[:80],
		"0123456789ABCDEF+/=":        "0123456789ABCDEF+/=",
		"a 0123456789abcdef+/= b":    "a *** b",
		"a 0123456789abcdef%2b%2F= ": "a *** ",
		token + token + "x" + token:  "******x***",
		"the third value, which is known, " + token: "***, ***",
	} {
		o := redact.Options{Values: v}
		got, _ := redact.Mask([]byte(in), &o)
		if string(got) != want || v.In([]byte(in)) != (in != want) {
			t.Errorf("Mask(%s): got %s, want %s; In: got %t", in, got, want, v.In([]byte(in)))
		}
	}
}

// utf16 returns s in UTF-16.
func utf16(s string, order binary.AppendByteOrder) []byte {
	var b []byte
	for i := range len(s) {
		b = order.AppendUint16(b, uint16(s[i]))
	}
	return b
}

// TestUTF16 checks that text in UTF-16 is searched and stays UTF-16.
func TestUTF16(t *testing.T) {
	o := redact.Options{Names: true}
	o.Values.Add(token)
	for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
		got, _ := redact.Mask(utf16(`{"refresh_token":"abc","b":"`+token+`","c":1}`, order), &o)
		stars := strings.Repeat("*", len(token))
		want := utf16(`{"refresh_token":"***","b":"`+stars+`","c":1}`, order)
		if !bytes.Equal(got, want) {
			t.Errorf("%v: got %q, want %q", order, got, want)
		}
	}
}
