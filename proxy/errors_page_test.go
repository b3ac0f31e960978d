package proxy_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"wxproxy/wechat"
)

// docs/errors.md explains what callers may be told. What is not there is found here: every problem that is written
// down in this package with a status and words of its own, and every code of WeChat's that is counted by name.

func errorsPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// statusNames are the names of net/http's constants.
var statusNames = func() map[string]int {
	names := make(map[string]int)
	for status := 100; status < 600; status++ {
		if text := http.StatusText(status); text != "" {
			names["Status"+strings.NewReplacer(" ", "", "-", "", "'", "").Replace(text)] = status
		}
	}
	return names
}()

// writtenProblem is a problem as the source has it. Verbs of fmt in its words, and what is put to them, stand for
// something that is filled in.
type writtenProblem struct {
	where  string
	status int
	words  string
}

var verb = regexp.MustCompile(`%[a-z]`)

// row is the beginning of its line in the table.
func (p writtenProblem) row() *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?m)^\| ` + strconv.Itoa(p.status) + ` \| `)
	for i, fixed := range verb.Split(p.words, -1) {
		if i > 0 {
			b.WriteString(`[A-Z]+`)
		}
		b.WriteString(regexp.QuoteMeta(fixed))
	}
	b.WriteString(` \| `)
	return regexp.MustCompile(b.String())
}

func writtenProblems(t *testing.T) []writtenProblem {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []writtenProblem
	set := token.NewFileSet()
	add := func(n ast.Node, status, words ast.Expr) {
		name, ok := status.(*ast.SelectorExpr)
		said, known := wordsOf(words)
		if !ok || !known {
			return // what another problem says, or WeChat
		}
		code, ok := statusNames[name.Sel.Name]
		if ok && code != http.StatusOK { // those speak with WeChat's codes
			all = append(all, writtenProblem{set.Position(n.Pos()).String(), code, said})
		}
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(set, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "newAPIError" && len(n.Args) >= 3 {
					add(n, n.Args[0], n.Args[2])
				}
			case *ast.CompositeLit:
				if typ, ok := n.Type.(*ast.Ident); ok && typ.Name == "apiError" {
					fields := make(map[string]ast.Expr)
					for _, e := range n.Elts {
						if kv, ok := e.(*ast.KeyValueExpr); ok {
							fields[kv.Key.(*ast.Ident).Name] = kv.Value
						}
					}
					add(n, fields["status"], fields["msg"])
				}
			}
			return true
		})
	}
	return all
}

// wordsOf reads a literal, or a sum of which some are literals.
func wordsOf(e ast.Expr) (words string, known bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		words, err := strconv.Unquote(e.Value)
		return words, err == nil
	case *ast.BinaryExpr:
		a, knownA := wordsOf(e.X)
		b, knownB := wordsOf(e.Y)
		if !knownA {
			a = "%s"
		}
		if !knownB {
			b = "%s"
		}
		return a + b, knownA || knownB
	}
	return "", false
}

func TestErrorsPageHasEveryProblem(t *testing.T) {
	page, all := errorsPage(t), writtenProblems(t)
	if len(all) < 20 {
		t.Errorf("only %d problems were found in the source", len(all))
	}
	for _, p := range all {
		if row := p.row(); !row.MatchString(page) {
			t.Errorf("%s: docs/errors.md does not have the line %s", p.where, row)
		}
	}
}

func TestErrorsPageHasEveryCode(t *testing.T) {
	_, table, found := strings.Cut(errorsPage(t), "\n## WeChat's codes\n")
	if !found {
		t.Fatal("docs/errors.md has no part about WeChat's codes")
	}
	var there []int
	for _, row := range regexp.MustCompile(`(?m)^\| (-?[0-9][-0-9, ]*) \|`).FindAllStringSubmatch(table, -1) {
		for _, number := range strings.Split(row[1], ", ") {
			code, err := strconv.Atoi(number)
			if err != nil {
				t.Fatalf("%q: %v", row[1], err)
			}
			there = append(there, code)
		}
	}
	want := slices.Clone(wechat.KnownCodes)
	slices.Sort(there)
	slices.Sort(want)
	if !slices.Equal(there, want) {
		t.Errorf("docs/errors.md has\n%v\nwxproxy counts\n%v", there, want)
	}
}
