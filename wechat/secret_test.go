package wechat_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"wxproxy/wechat"
)

const plain = "ticket@@@5HCM8qgX"

// traces are forms in which the secret could be printed: text, base64, and
// bytes in hexadecimal and decimal.
var traces = []string{plain, "5HCM", "7469636b6574", "7469636B6574", "0x74, 0x69", "116 105 99",
	"116, 105, 99", "0x7469636b6574"}

func hides(t *testing.T, how, out string) {
	t.Helper()
	for _, trace := range traces {
		if strings.Contains(out, trace) {
			t.Errorf("%s: got %q in %s, want nothing of the secret", how, trace, out)
		}
	}
}

type holder struct{ hidden wechat.Secret }

type Open struct {
	Name  string
	Token wechat.Secret
	Ptr   *wechat.Secret
	Map   map[string]wechat.Secret
	List  []wechat.Secret
	Any   any
}

// nests returns values that contain s in different places.
func nests() map[string]any {
	s := wechat.NewSecret(plain)
	open := Open{Name: "n", Token: s, Ptr: &s, Map: map[string]wechat.Secret{"k": s},
		List: []wechat.Secret{s}, Any: s}
	return map[string]any{
		"itself":                           s,
		"pointer":                          &s,
		"unexported field":                 holder{s},
		"pointer to an unexported field":   &holder{s},
		"unexported pointer":               struct{ p *wechat.Secret }{&s},
		"unexported struct":                struct{ h holder }{holder{s}},
		"unexported interface":             struct{ v any }{s},
		"unexported slice":                 struct{ v []wechat.Secret }{[]wechat.Secret{s}},
		"unexported array":                 struct{ v [2]wechat.Secret }{[2]wechat.Secret{s, s}},
		"unexported map":                   struct{ m map[string]holder }{map[string]holder{"k": {s}}},
		"slice":                            []wechat.Secret{s},
		"slice of pointers":                []*wechat.Secret{&s},
		"map":                              map[string]wechat.Secret{"k": s},
		"map to structs":                   map[string]holder{"k": {s}},
		"exported fields":                  open,
		"pointer to exported fields":       &open,
		"slice of interfaces":              []any{s, &s, holder{s}},
		"struct in a map in a slice":       []map[string]Open{{"k": open}},
		"event, which has several of them": wechat.Event{Ticket: s, AuthorizationCode: s, AuthCode: s},
		"grant":                            wechat.Grant{Access: s, Refresh: s},
		"pointer to a pointer to exported": func() **Open { p := &open; return &p }(),
		"channel value that is a struct":   struct{ A, b any }{holder{s}, &holder{s}},
		"embedded":                         struct{ wechat.Secret }{s},
		"function result in an error chain": errors.Join(fmt.Errorf("cannot use %v", s),
			fmt.Errorf("or %+v", holder{s})),
	}
}

func TestSecretUnderFmt(t *testing.T) {
	for name, v := range nests() {
		for verb := 'A'; verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", " ", "-40", "040", ".3", "+#", "# "} {
				hides(t, fmt.Sprintf("%%%s%c of %s", flags, verb, name), fmt.Sprintf("%"+flags+string(verb), v))
			}
		}
		hides(t, "Sprint of "+name, fmt.Sprint(v))
		hides(t, "Sprintln of "+name, fmt.Sprintln(v))
		hides(t, "too many arguments: "+name, fmt.Sprintf(surplus, v))
	}
	s := wechat.NewSecret(plain)
	if got := fmt.Sprintf("%v %s %q %x %#v %+v %d", s, s, s, s, s, s, s); got != "*** *** *** *** *** *** ***" {
		t.Errorf("the secret: got %s", got)
	}
	if got := fmt.Sprintf("[%v]", wechat.Secret{}); got != "[]" {
		t.Errorf("the empty secret: got %s", got)
	}
	hides(t, "GoString", s.GoString())
	hides(t, "String", s.String())
}

// surplus makes fmt print its argument as %!(EXTRA …). It is a variable, so
// that vet accepts it.
var surplus = "nothing"

func TestSecretUnderSlog(t *testing.T) {
	for name, v := range nests() {
		var text, js bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&text, nil), slog.NewJSONHandler(&js, nil)} {
			log := slog.New(h)
			log.With("with", v).WithGroup("g").Info("m", "v", v, slog.Group("inner", "v", v))
			log.Info("m", "values", []any{v, v})
		}
		hides(t, "slog text of "+name, text.String())
		hides(t, "slog JSON of "+name, js.String())
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "ticket", wechat.NewSecret(plain))
	if !strings.Contains(out.String(), "ticket=***") {
		t.Errorf("slog: got %s", out.String())
	}
}

func TestSecretUnderEncoders(t *testing.T) {
	for name, v := range nests() {
		b, err := json.Marshal(v)
		if err != nil && !strings.Contains(err.Error(), "unsupported") {
			t.Errorf("%s: %v", name, err)
		}
		hides(t, "JSON of "+name, string(b))
		var out strings.Builder
		if err := template.Must(template.New("").Parse("{{.}} {{printf `%s` .}}")).Execute(&out, v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		hides(t, "template of "+name, out.String())
	}
	s := wechat.NewSecret(plain)
	asXML, err := xml.Marshal(struct {
		XMLName xml.Name      `xml:"a"`
		Attr    wechat.Secret `xml:"b,attr"`
		Element wechat.Secret
	}{Attr: s, Element: s})
	if want := `<a b="***"><Element>***</Element></a>`; err != nil || string(asXML) != want {
		t.Errorf("XML: got %s, %v", asXML, err)
	}
	got, err := json.Marshal(Open{Name: "n", Token: s, Ptr: &s,
		Map: map[string]wechat.Secret{"k": s}, List: []wechat.Secret{s, {}}, Any: holder{s}})
	const want = `{"Name":"n","Token":"***","Ptr":"***","Map":{"k":"***"},"List":["***",""],"Any":{}}`
	if err != nil || string(got) != want {
		t.Errorf("JSON: got %s, %v", got, err)
	}
}

func TestSecretIsReadFromText(t *testing.T) {
	var v struct{ Token wechat.Secret }
	if err := json.Unmarshal([]byte(`{"Token":"`+plain+`"}`), &v); err != nil || v.Token.Reveal() != plain {
		t.Errorf("decoding: got %q, %v", v.Token.Reveal(), err)
	}
	if err := json.Unmarshal([]byte(`{"Token":""}`), &v); err != nil || !v.Token.IsEmpty() {
		t.Errorf("decoding an empty secret: got error %v", err)
	}
	// Some errors of encoding/json quote the input.
	for _, in := range []string{`{"Token":["` + plain + `"]}`, `{"Token":{"a":"` + plain + `"}}`,
		`{"Token":"` + plain} {
		err := json.Unmarshal([]byte(in), &v)
		if err == nil {
			t.Errorf("decoding %s: got no error, want one", in)
			continue
		}
		hides(t, "error", err.Error())
	}
}

func TestSecretValues(t *testing.T) {
	a, b, none := wechat.NewSecret("a"), wechat.NewSecret("b"), wechat.NewSecret("")
	switch {
	case a.Reveal() != "a" || none.Reveal() != "":
		t.Errorf("Reveal: got %q and %q", a.Reveal(), none.Reveal())
	case !a.Equal(wechat.NewSecret("a")) || a.Equal(b) || a.Equal(none) || !none.Equal(wechat.Secret{}):
		t.Error("Equal: it does not compare values")
	case a.IsEmpty() || !none.IsEmpty():
		t.Errorf("IsEmpty: got %v for %q", a.IsEmpty(), a.Reveal())
	// The SHA-256 of "a" begins with ca978112.
	case a.Fingerprint() != "ca978112" || none.Fingerprint() != "":
		t.Errorf("Fingerprint: got %q, %q, want ca978112 and none", a.Fingerprint(), none.Fingerprint())
	}
}
