package wechat_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/wechat"
)

// pushes are documents as WeChat writes them, by the name of their file, with
// "@1" to "@3" where a user's text stands. No rule says in which order WeChat
// writes the fields, so some texts are at the beginning or at the end. A
// "newfield" is not known, as WeChat adds some.
var pushes = readPushes()

func readPushes() map[string]string {
	files, err := filepath.Glob("testdata/pushes/*.xml")
	if err != nil || len(files) == 0 {
		panic(fmt.Sprint("no pushes: ", err))
	}
	read := make(map[string]string)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			panic(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".xml")
		read[name] = strings.TrimSuffix(string(b), "\n")
	}
	return read
}

// hostileTexts are what a user can type. NAME is the element that holds the
// text, PARENT the one around it, if there is one.
var hostileTexts = []string{
	"", "hello", " a \n b ", "你好 😀", "]]>", "a]]>b", "]]", "]]]]>", "<![CDATA[",
	"<![CDATA[a]]>", "]]><![CDATA[", "]]]]><![CDATA[>", "]]> ", "&", "&amp;", "&lt;",
	"&nothing;", "&#0;", "&#xD800;", "a & b < c > d", "<", "</", "<a>", "</a>", "<a/>",
	"<!--", "<!-- a -->", "-->", "<?xml?>", "<!DOCTYPE a>", `<a b="c">`,
	"\x00\x01\x08\x1f\x7f", "\xe5\xad", "\xff", "\ufffe\uffff", "\u0085\u2028", "a\rb\r\nc",
	"</NAME>", "<NAME>", "<NAME></NAME>", "]]></NAME>", "]]> </NAME >",
	"<NAME><![CDATA[a]]></NAME>", "]]></NAME><NAME><![CDATA[", "]]></NAME></xml>",
	"]]></NAME></xml><xml><NAME><![CDATA[",
	"]]></NAME><FromUserName><![CDATA[forged]]></FromUserName><NAME><![CDATA[",
	"]]></NAME><ToUserName>gh_forged</ToUserName><NAME><![CDATA[",
	"]]></NAME><MsgType>event</MsgType><Event>forged</Event><NAME><![CDATA[",
	"]]></NAME><InfoType>forged</InfoType><AppId>forged</AppId><NAME><![CDATA[",
	"]]></NAME><MsgId>1</MsgId></xml><!--", "]]></NAME><!-- -->\n<NAME><![CDATA[",
	"]]></NAME><Other><![CDATA[", "]]></NAME><MsgId>1</MsgId></xml>",
	"</NAME><FromUserName>forged</FromUserName><NAME>",
	"]]></NAME></PARENT><Event>forged</Event><PARENT><NAME><![CDATA[",
	strings.Repeat("]]></NAME>", 2000), strings.Repeat("<![CDATA[", 2000),
	strings.Repeat("<a>", 2000),
}

// element is an element that holds text only, with the names around it.
type element struct{ path, text string }

// elementsOf reads a document as encoding/xml does.
func elementsOf(doc []byte) ([]element, error) {
	var (
		out  []element
		path []string
		text strings.Builder
		leaf bool
	)
	d := xml.NewDecoder(strings.NewReader(string(doc)))
	for {
		token, err := d.Token()
		if err == io.EOF {
			if len(path) > 0 || len(out) == 0 && text.Len() == 0 {
				return out, errors.New("no document")
			}
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			path, leaf = append(path, t.Name.Local), true
			text.Reset()
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			if leaf {
				out = append(out, element{strings.Join(path, "/"), text.String()})
			}
			path, leaf = path[:len(path)-1], false
		case xml.Comment, xml.ProcInst, xml.Directive:
			return nil, errors.New("more than elements")
		}
	}
}

// typed returns a text as it has to arrive: without what XML cannot hold.
func typed(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r < ' ' && !strings.ContainsRune("\t\r\n", r):
			return ' '
		case r == 0xFFFE || r == 0xFFFF:
			return '\uFFFD'
		}
		return r
	}, string([]rune(s)))
	// XML parsers do this with every line end.
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// fill returns a push with texts in it, and the elements that it has to have.
func fill(push string, texts ...string) (doc string, want []element) {
	var marks, values []string
	for i := range texts {
		mark := fmt.Sprint("@", i+1)
		marks = append(marks, mark, texts[i])
		values = append(values, mark, typed(texts[i]))
	}
	want, err := elementsOf([]byte(push))
	if err != nil {
		panic(err)
	}
	for i, e := range want {
		want[i].text = strings.NewReplacer(values...).Replace(e.text)
	}
	return strings.NewReplacer(marks...).Replace(push), want
}

// nameOf returns the names of the element that holds a text of a push, and of
// the one around it.
func nameOf(push string, n int) (name, parent string) {
	empty := strings.Replace(push, fmt.Sprint("@", n), "@@@", 1)
	elements, err := elementsOf([]byte(empty))
	if err != nil {
		panic(err)
	}
	for _, e := range elements {
		if strings.HasSuffix(e.text, "@@@") {
			names := strings.Split(e.path, "/")
			return names[len(names)-1], names[len(names)-2]
		}
	}
	panic("no text " + fmt.Sprint(n))
}

// textsOf returns how many texts a push has.
func textsOf(push string) int {
	return strings.Count(push, "@1") + strings.Count(push, "@2") + strings.Count(push, "@3")
}

// checkElements checks that a document has exactly these elements.
func checkElements(t *testing.T, doc string, got []byte, want []element) {
	t.Helper()
	elements, err := elementsOf(got)
	if err != nil {
		t.Errorf("document %.2000q: got %.2000q, which is not well-formed: %v", doc, got, err)
	} else if !slices.Equal(elements, want) {
		t.Errorf("document %.2000q: got elements\n%.2000q, want\n%.2000q", doc, elements, want)
	}
}

// Each hostile text in each field of each push, with harmless texts in the
// others: the document has exactly the fields that WeChat wrote, with what
// WeChat wrote and what the user typed.
func TestHostileTexts(t *testing.T) {
	for name, push := range pushes {
		for n := range textsOf(push) {
			element, parent := nameOf(push, n+1)
			for _, text := range hostileTexts {
				text = strings.NewReplacer("NAME", element, "PARENT", parent).Replace(text)
				texts := []string{"a", "b", "c"}
				texts[n] = text
				doc, want := fill(push, texts...)
				d, err := wechat.ParseDocument([]byte(doc))
				if err != nil {
					t.Errorf("%s, text %d %.100q: %v", name, n+1, text, err)
					continue
				}
				if name == "newfield" && strings.HasSuffix(text, "<NewField><![CDATA[") &&
					!strings.Contains(text, "UserName") && !strings.Contains(text, "</xml>") {
					continue // it could be two fields
				}
				checkElements(t, doc, d.WellFormed(), want)
				if string(d.Bytes()) != doc {
					t.Errorf("%s, text %.100q: got other Bytes than were pushed", name, text)
				}
			}
		}
	}
}

// between is what a user can write between the end of a text and the start of
// another.
var between = []string{
	"", "<AppId><![CDATA[forged]]></AppId>", "<Event>forged</Event>",
	"<ScanCodeInfo><ScanType>forged</ScanType>", "<info>", "<info><code>forged</code>",
	"<Other>forged</Other>", "<Content><![CDATA[a]]></Content>",
	"</info><appid>forged</appid><info>",
	"<appid>forged</appid><auth_code>forged</auth_code><info>",
}

// apart are two texts that make a well-formed document together: what WeChat
// wrote between them, FROM's end and TO's start, is hidden in a comment or in
// an element.
var apart = [][2]string{
	{"a]]></FROM><Event>forged</Event><!--", "--><TO><![CDATA[b"},
	{"a]]></FROM><Event>forged</Event><Other><!--", "--></Other><TO><![CDATA[b"},
	{"a]]></FROM><Event>forged</Event><Other><FROM><![CDATA[", "]]></TO></Other><TO><![CDATA[b"},
	{"]]></FROM><Event>forged</Event><Other><FROM><![CDATA[", "]]></TO><FROM/></Other><TO><![CDATA["},
	{"a]]></FROM><appid>forged</appid><?a ", "?><TO><![CDATA[b"},
	{"a]]></FROM><appid>forged</appid><!DOCTYPE a [", "]><TO><![CDATA[b"},
	{`a]]></FROM><appid>forged</appid><Other a="`, `"/><TO><![CDATA[b`},
}

// Texts of two fields that hide from an XML parser that they forge a third. No
// field is added to any push, and none is changed.
func TestHostileTextsApart(t *testing.T) {
	for name, push := range pushes {
		for n := range textsOf(push) {
			for m := n + 1; m < textsOf(push); m++ {
				from, _ := nameOf(push, n+1)
				to, _ := nameOf(push, m+1)
				for _, pair := range apart {
					texts := []string{"a", "b", "c"}
					names := strings.NewReplacer("FROM", from, "TO", to)
					texts[n], texts[m] = names.Replace(pair[0]), names.Replace(pair[1])
					checkNothingForged(t, name, push, texts)
				}
			}
		}
	}
}

// Texts in all fields of a push, made to be taken for each other: they can lose
// a field that stands between two of them, and add or change none. The fields
// before the first and behind the last of them are all there.
func TestHostileTextsTogether(t *testing.T) {
	for name, push := range pushes {
		n := textsOf(push)
		for pair := range n * n {
			from, parent := nameOf(push, pair/n+1)
			to, toParent := nameOf(push, pair%n+1)
			for _, b := range between {
				text := "]]></" + from + ">" + b + "<" + to + "><![CDATA["
				closing := "]]></" + from + "></" + parent + "><" + toParent + ">" + b +
					"<" + to + "><![CDATA["
				for _, text := range []string{
					text, closing, text + closing, strings.Repeat(text, 3),
				} {
					for i := range n + 1 { // in one field, or in all of them
						texts := []string{"a", "b", "c"}
						for j := range texts {
							if i == j || i == n {
								texts[j] = text
							}
						}
						if name != "newfield" {
							checkNothingForged(t, name, push, texts)
						}
					}
				}
			}
		}
	}
}

// What is kept of fields between two texts, and which text ends where.
func TestFieldsBetweenTexts(t *testing.T) {
	for _, tc := range []struct {
		name     string
		push     string
		texts    []string
		withheld []string // paths
	}{
		{"the end of a field that the document has already", "mini-program",
			[]string{"]]></Title><FromUserName>f</FromUserName><PagePath><![CDATA[", "b"}, nil},
		{"the end of a field that comes last", "registration",
			[]string{"a", "]]></msg><appid>f</appid><info><name><![CDATA[", "c"}, nil},
		{"a scanned code with the key of a menu", "scan",
			[]string{"6", "]]></EventKey><ScanCodeInfo><ScanResult><![CDATA["},
			[]string{"xml/ScanCodeInfo/ScanType"}},
		{"a title with the next text", "link",
			[]string{"]]></Title><Description><![CDATA[f", "b", "c"}, nil},
		{"a title with the next field", "mini-program",
			[]string{"]]></Title><AppId>f</AppId><PagePath><![CDATA[", "b"}, []string{"xml/AppId"}},
		{"a title with another field", "link",
			[]string{"]]></Title><Event>f</Event><Description><![CDATA[f", "b", "c"}, nil},
	} {
		doc, want := fill(pushes[tc.push], tc.texts...)
		want = slices.DeleteFunc(want, func(e element) bool {
			return slices.Contains(tc.withheld, e.path)
		})
		d, err := wechat.ParseDocument([]byte(doc))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		checkElements(t, tc.name+": "+doc, d.WellFormed(), want)
	}
}

// What was well-formed stays as it is, byte for byte. What other parsers than
// encoding/xml reject, or could read in another way, is written anew.
func TestWellFormedDocuments(t *testing.T) {
	same := []string{docMessage, ticketDocument,
		"<xml>\n\t<a> b </a>\r\n<c/><d></d>\n</xml>\n",
		`<xml><a b="c" d='e'>f</a></xml>`,
		"<xml><Content>a &amp; b &lt; &#20320;</Content></xml>",
		"<!-- a --><xml><!-- b --><a>b</a></xml>",
		`<?xml version="1.0" encoding="utf-8"?><xml><a>b</a></xml>`,
		"<xml><list><reason>a</reason></list><list><reason>b</reason></list></xml>",
		"<xml><Content><![CDATA[</Content></xml>&nothing;<a>]] ]]></Content><MsgId>1</MsgId></xml>",
		"<xml><Content>\n<![CDATA[a]]>\n</Content></xml>",
	}
	for name := range pushes {
		doc, _ := fill(pushes[name], "a <b> & </c> ]] >", "你好", "")
		same = append(same, doc)
	}
	for _, doc := range same {
		d, err := wechat.ParseDocument([]byte(doc))
		if err != nil {
			t.Errorf("%q: %v", doc, err)
		} else if string(d.WellFormed()) != doc {
			t.Errorf("%q: got %q, want it as it is", doc, d.WellFormed())
		}
	}
	// The root is left out.
	rewritten := func(doc, want string) {
		t.Helper()
		d, err := wechat.ParseDocument([]byte("<xml>" + doc + "</xml>"))
		if err != nil {
			t.Errorf("%q: %v", doc, err)
		} else if got := string(d.WellFormed()); got != "<xml>"+want+"</xml>" {
			t.Errorf("%q: got %q, want %q", doc, got, want)
		}
	}
	rewritten("<a:b>c</a:b>", "<a_b>c</a_b>")
	rewritten("<你>c</你>", "<_>c</_>")
	rewritten(`<a b="1" b="2">c</a>`, "<a>c</a>")
	rewritten("<a>&#xD800;</a>", "<a>&amp;#xD800;</a>")
	rewritten("<a>b<!-- c -->d</a>", "<a>b&lt;!-- c --&gt;d</a>")
	rewritten("<a><![CDATA[b]]><![CDATA[c]]></a>", "<a>b]]&gt;&lt;![CDATA[c</a>")
	rewritten("<a>b<![CDATA[c]]></a>", "<a>bc</a>")
	rewritten("<Content><b>c</b></Content>", "<Content>&lt;b&gt;c&lt;/b&gt;</Content>")
	rewritten("<Content>a < b & c</Content><MsgId>1</MsgId>",
		"<Content>a &lt; b &amp; c</Content><MsgId>1</MsgId>")
	rewritten("<Content><![CDATA[a</Content><MsgId>1</MsgId>",
		"<Content>a</Content><MsgId>1</MsgId>")
	rewritten("<a>\x01</a><Content><![CDATA[\x02]]></Content>",
		"<a> </a><Content><![CDATA[ ]]></Content>")
	for _, doc := range []string{
		"\ufeff<xml><a>b</a></xml>", `<?xml version="1.0" encoding="GBK"?><xml><a>b</a></xml>`,
		`<?xml version="1.1"?><xml><a>b</a></xml>`, "<?a b?><xml><a>b</a></xml>",
	} {
		d, err := wechat.ParseDocument([]byte(doc))
		if want := "<xml><a>b</a></xml>"; err != nil || string(d.WellFormed()) != want {
			t.Errorf("%q: got %v, want %s", doc, err, want)
		}
	}
}

const ticketDocument = `<xml>
<AppId><![CDATA[wx6001eeeefe06e0af]]></AppId>
<CreateTime>1512627534</CreateTime>
<InfoType><![CDATA[component_verify_ticket]]></InfoType>
<ComponentVerifyTicket><![CDATA[ticket@@@a]]></ComponentVerifyTicket>
</xml>`

// checkNothingForged checks that a push with texts has no field that WeChat did
// not write, and that all fields of WeChat's are there except those between two
// texts.
func checkNothingForged(t *testing.T, name, push string, texts []string) {
	t.Helper()
	doc, want := fill(push, texts...)
	d, err := wechat.ParseDocument([]byte(doc))
	if err != nil {
		t.Errorf("%s: document %.2000q: %v", name, doc, err)
		return
	}
	got, err := elementsOf(d.WellFormed())
	if err != nil {
		t.Errorf("%s: document %.2000q: got %.2000q, which is not well-formed: %v",
			name, doc, d.WellFormed(), err)
		return
	}
	written, _ := elementsOf([]byte(push))
	isText := func(e element) bool {
		return strings.Contains(e.text, "@") && !strings.Contains(e.text, "@@")
	}
	first := slices.IndexFunc(written, isText)
	last := len(written) - 1
	for !isText(written[last]) {
		last--
	}
	for i, e := range want {
		switch {
		case len(got) > 0 && got[0].path == e.path && (isText(written[i]) || got[0].text == e.text):
			got = got[1:]
		case i <= first || i >= last:
			t.Errorf("%s: document %.2000q: got %.2000q, want %v next",
				name, doc, d.WellFormed(), e)
			return
		}
	}
	if len(got) > 0 {
		t.Errorf("%s: document %.2000q: got %.2000q, want no %v", name, doc, d.WellFormed(), got[0])
	}
}

// FuzzHostileText puts one text into a field of a push. Unless it names another
// field that holds a text, the document has exactly the elements that WeChat
// wrote, and the text.
func FuzzHostileText(f *testing.F) {
	names := pushNames()
	for i, name := range names {
		for n := range textsOf(pushes[name]) {
			element, parent := nameOf(pushes[name], n+1)
			for _, text := range hostileTexts {
				if len(text) < 1000 {
					text = strings.NewReplacer("NAME", element, "PARENT", parent).Replace(text)
					f.Add(uint(i), uint(n), text)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, i, n uint, text string) {
		name := names[i%uint(len(names))]
		push := pushes[name]
		texts := []string{"a", "b", "c"}
		n %= uint(textsOf(push))
		texts[n] = text
		if name == "newfield" && strings.Contains(text, "</NewField") {
			t.Skip("can be two fields")
		}
		for m := range textsOf(push) {
			if other, _ := nameOf(push, m+1); uint(m) != n && strings.Contains(text, other) {
				checkNothingForged(t, name, push, texts)
				return
			}
		}
		doc, want := fill(push, texts...)
		d, err := wechat.ParseDocument([]byte(doc))
		if err != nil {
			t.Fatalf("%s: %q: %v", name, doc, err)
		}
		checkElements(t, doc, d.WellFormed(), want)
	})
}

// compose returns texts made of what could be taken for the end of a field, and
// for other fields, in an order that r decides.
func compose(r *rand.Rand, push string) []string {
	pieces := []string{
		"a", "]]>", "<![CDATA[", "</xml>", "</info>", "<info>", "<AppId>f</AppId>",
		"<Event>f</Event>", "<Other><![CDATA[f]]></Other>", "<code>f</code>", "<ScanCodeInfo>",
		"</ScanCodeInfo>", "<ScanType>f</ScanType>", "<SendLocationInfo>", "</SendLocationInfo>",
		"<appid>f</appid>", "]]></Content>", "<Content><![CDATA[", "<xml>", "<MsgId>f</MsgId>",
		"<!--", "-->", "<Other>", "</Other>", "<![CDATA[",
	}
	for n := range textsOf(push) {
		name, _ := nameOf(push, n+1)
		for range 4 {
			pieces = append(pieces, "]]></"+name+">", "<"+name+"><![CDATA[")
		}
	}
	texts := make([]string, 3)
	for i := range texts {
		for range r.IntN(12) {
			texts[i] += pieces[r.IntN(len(pieces))]
		}
	}
	return texts
}

// FuzzHostileTexts puts texts into all fields of a push that hold one.
func FuzzHostileTexts(f *testing.F) {
	names := slices.DeleteFunc(pushNames(), func(name string) bool {
		return name == "newfield"
	})
	for i := range names {
		for seed := range uint64(100) {
			f.Add(uint(i), seed, "")
		}
		f.Add(uint(i), uint64(0), "]]></Title><Description><![CDATA[")
	}
	f.Fuzz(func(t *testing.T, i uint, seed uint64, more string) {
		name := names[i%uint(len(names))]
		r := rand.New(rand.NewPCG(seed, 0))
		texts := compose(r, pushes[name])
		texts[r.IntN(len(texts))] += more
		checkNothingForged(t, name, pushes[name], texts)
	})
}

// pushNames returns the names of pushes in a fixed order.
func pushNames() []string { return slices.Sorted(maps.Keys(pushes)) }

// A text of 60,000 comments that do not end costs about as much as one of as
// many other characters. Compared is the fastest of three runs each.
func TestCommentsThatDoNotEnd(t *testing.T) {
	fastest := func(text string) time.Duration {
		text = strings.Repeat("]]></Title>"+text, 60_000)
		doc, _ := fill(pushes["link"], text, "b", "c")
		best := time.Hour
		for range 3 {
			start := time.Now()
			if _, err := wechat.ParseDocument([]byte(doc)); err != nil {
				t.Fatalf("text %.50q: %v", text, err)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	if got, other := fastest("<!--"), fastest("<!aa"); got > 6*other {
		t.Errorf("got %v with comments, %v with other characters", got, other)
	}
}
