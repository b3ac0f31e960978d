package conformance_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"wxproxy/wechat"
)

// elementTree prints the leaves of each document of a list, as ElementTree
// reads them: pairs of a path and a text.
const elementTree = `
import base64, json, sys
import xml.etree.ElementTree as ET

def leaves(element, path):
    if len(element) == 0:
        yield path, element.text or ""
    for child in element:
        yield from leaves(child, path + "/" + child.tag)

documents = [base64.b64decode(d) for d in json.load(sys.stdin)]
json.dump([list(leaves(ET.fromstring(d), "xml")) for d in documents], sys.stdout)
`

// leavesOf returns the same of one document, as encoding/xml reads it.
func leavesOf(t *testing.T, doc []byte) (leaves [][2]string) {
	var path []string
	var text strings.Builder
	leaf := false
	d := xml.NewDecoder(bytes.NewReader(doc))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return leaves
		}
		if err != nil {
			t.Fatalf("document %.1000q: %v", doc, err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			path, leaf = append(path, token.Name.Local), true
			text.Reset()
		case xml.CharData:
			text.Write(token)
		case xml.EndElement:
			if leaf {
				leaves = append(leaves, [2]string{strings.Join(path, "/"), text.String()})
			}
			path, leaf = path[:len(path)-1], false
		}
	}
}

// Python's ElementTree reads each document that wxproxy hands on as
// encoding/xml does: 14 kinds of pushes × hostile texts in one field, or in
// all.
func TestElementTreeAgrees(t *testing.T) {
	if !enabled {
		t.Skip("run make conformance, which installs Python")
	}
	files, err := filepath.Glob("../wechat/testdata/pushes/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatalf("got %q, %v, want pushes", files, err)
	}
	var documents [][]byte
	texts := append(slices.Clone(hostileMessages), "\x00\x1f\x7f", "\xe5\xad", "\ufffe\uffff",
		"a\rb\r\nc", "&#0;", "\u0085\u2028", "<!--", "<?xml?>", "]]", "a]]>", " ", "")
	for _, file := range files {
		push, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			for _, in := range [][]string{{text, "b", "c"}, {"a", text, "c"}, {text, text, text}} {
				fill := strings.NewReplacer("@1", in[0], "@2", in[1], "@3", in[2])
				doc := fill.Replace(string(push))
				d, err := wechat.ParseDocument([]byte(doc))
				if err != nil {
					t.Errorf("document %.1000q: %v", doc, err)
					continue
				}
				documents = append(documents, d.WellFormed())
			}
		}
	}
	in, err := json.Marshal(documents)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("python3", "-c", elementTree)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ElementTree: %v: %s", err, &stderr)
	}
	var read [][][2]string
	if err := json.Unmarshal(out, &read); err != nil || len(read) != len(documents) {
		t.Fatalf("ElementTree: got %d documents, %v, want %d", len(read), err, len(documents))
	}
	for i, doc := range documents {
		if want := leavesOf(t, doc); !slices.Equal(read[i], want) {
			t.Errorf("document %.1000q: got %.1000q in Python, want %.1000q", doc, read[i], want)
		}
	}
}
