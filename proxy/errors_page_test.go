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

// docs/errors.md explains the errors that callers can receive. The tests in
// this file check that it has every API error in the source of this package,
// and every one of WeChat's codes that is counted by name.

func errorsPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// statusNames maps the names of net/http's constants to their values.
var statusNames = func() map[string]int {
	names := make(map[string]int)
	for status := 100; status < 600; status++ {
		if text := http.StatusText(status); text != "" {
			names["Status"+strings.NewReplacer(" ", "", "-", "", "'", "").Replace(text)] = status
		}
	}
	return names
}()

// sourceError is an API error as it is in the source. Formatting verbs in its
// text are placeholders.
type sourceError struct {
	position string
	status   int
	text     string
}

var verb = regexp.MustCompile(`%[a-z]`)

// row matches the beginning of the error's row in the table, where placeholders
// are in capitals.
func (e sourceError) row() *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?m)^\| ` + strconv.Itoa(e.status) + ` \| `)
	for i, fixed := range verb.Split(e.text, -1) {
		if i > 0 {
			b.WriteString(`[A-Z]+`)
		}
		b.WriteString(regexp.QuoteMeta(fixed))
	}
	b.WriteString(` \| `)
	return regexp.MustCompile(b.String())
}

// apiErrorsInSource returns the errors that the source of this package builds
// from literals. Errors with status 200 are left out: their text is WeChat's.
func apiErrorsInSource(t *testing.T) []sourceError {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var all []sourceError
	set := token.NewFileSet()
	add := func(n ast.Node, status int, text ast.Expr) {
		if text, known := textOf(text); known && status != 0 && status != http.StatusOK {
			all = append(all, sourceError{set.Position(n.Pos()).String(), status, text})
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
				f, ok := n.Fun.(*ast.Ident)
				switch {
				case !ok:
				case f.Name == "newAPIError":
					add(n, statusOf(n.Args[0]), n.Args[2])
				case f.Name == "authorizerError":
					add(n, http.StatusServiceUnavailable, n.Args[1])
				case f.Name == "componentTokenError":
					add(n, http.StatusServiceUnavailable, n.Args[0])
				}
			case *ast.CompositeLit:
				if typ, ok := n.Type.(*ast.Ident); ok && typ.Name == "apiError" {
					fields := make(map[string]ast.Expr)
					for _, e := range n.Elts {
						if kv, ok := e.(*ast.KeyValueExpr); ok {
							fields[kv.Key.(*ast.Ident).Name] = kv.Value
						}
					}
					add(n, statusOf(fields["status"]), fields["msg"])
				}
			}
			return true
		})
	}
	return all
}

// statusOf returns the value of a constant of net/http, or 0.
func statusOf(e ast.Expr) int {
	if name, ok := e.(*ast.SelectorExpr); ok {
		return statusNames[name.Sel.Name]
	}
	return 0
}

// textOf returns a string literal, or a sum of which some parts are literals.
// The others become placeholders.
func textOf(e ast.Expr) (text string, known bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		a, knownA := textOf(e.X)
		b, knownB := textOf(e.Y)
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

func TestErrorsPageHasEveryAPIError(t *testing.T) {
	page, all := errorsPage(t), apiErrorsInSource(t)
	if len(all) < 20 {
		t.Errorf("got %d errors in the source, want 20 at least", len(all))
	}
	for _, e := range all {
		if row := e.row(); !row.MatchString(page) {
			t.Errorf("%s: docs/errors.md has no row that matches %s", e.position, row)
		}
	}
}

func TestErrorsPageHasEveryCode(t *testing.T) {
	_, table, found := strings.Cut(errorsPage(t), "\n## WeChat's codes\n")
	if !found {
		t.Fatal("docs/errors.md: got no section on WeChat's codes, want one")
	}
	var got []int
	for _, row := range regexp.MustCompile(`(?m)^\| (-?[0-9][-0-9, ]*) \|`).FindAllStringSubmatch(table, -1) {
		for _, number := range strings.Split(row[1], ", ") {
			code, err := strconv.Atoi(number)
			if err != nil {
				t.Fatalf("%q: %v", row[1], err)
			}
			got = append(got, code)
		}
	}
	want := slices.Clone(wechat.KnownCodes)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("docs/errors.md: got the codes\n%v\nwant those that are counted\n%v", got, want)
	}
}
