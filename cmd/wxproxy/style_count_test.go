package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// The figures of [TestStyle].
const (
	commentOver80      = "comment lines over 80 columns"
	commentOver100     = "comment lines over 100 columns"
	codeOver100        = "code lines over 100 columns"
	codeOver120        = "code lines over 120 columns"
	proseOver100       = "Markdown prose lines over 100 columns"
	proseOver120       = "Markdown prose lines over 120 columns"
	pronounsInComments = "indefinite pronouns in comments (lines)"
	pronounsInStrings  = "indefinite pronouns in string literals"
	pronounsInProse    = "indefinite pronouns in Markdown (lines)"
	pronounsElsewhere  = "indefinite pronouns in other files (lines)"
	british            = "British spellings (lines)"
	commentShare       = "comment lines per 1000 lines of code"
	longFunctions      = "functions over 80 lines"
	complexFunctions   = "functions with a cyclomatic complexity over 20"
	mostMethods        = "methods of the largest type"
	filesInProxy       = "files in proxy"
	filesInCommand     = "files in cmd/wxproxy"
	sleeps             = "time.Sleep in tests"
)

const (
	maxFunctionLines = 80
	maxComplexity    = 20
	tabColumns       = 4
)

var (
	// pronouns matches the words that make a sentence hard to read: "a caller"
	// says more than each of them. A class in the place of one letter keeps the
	// expression from matching itself.
	pronouns = regexp.MustCompile(`(?i)\b([w]ho|[w]hom|[w]hoever|[n]obody|[s]omebody|[e]verybody|[a]nybody)\b`)

	// britishWords matches the spellings that occurred in this repository, and
	// their relatives.
	britishWords = regexp.MustCompile(`(?i)\b(un|re|de)?([a]uthoris|[b]ehaviour|[c]olour|[h]onour|[f]avour|[n]eighbour|[r]ecognis|` +
		`[o]rganis|[n]ormalis|[i]nitialis|[s]erialis|[s]ynchronis|[s]ummaris|[m]inimis|[m]aximis|[o]ptimis(e|a)|[r]ealise|` +
		`[e]mphasis(e|ing)|[c]ancell(ed|ing)|[l]abell(ed|ing)|[c]entre[ds]?\b|[l]icence|[c]atalogue|[a]nalyse|[a]rtefact|[d]efence|[w]hilst)`)

	// otherText names the kinds of files, besides Go and Markdown, that people
	// read.
	otherText = regexp.MustCompile(`\.(toml|ya?ml|sh|js|css|html|cfg|conf|service)$|(^|/)(Makefile|Dockerfile|\.ci/run)$`)
)

// place is a line of a file.
type place struct {
	file string
	line int
}

// styleCounter counts the figures below a directory.
type styleCounter struct {
	root    string
	places  map[string][]place // figure → where, one entry for each
	methods map[string]int     // package.type → methods outside tests

	comments, lines int // outside tests, without blank lines

	// Of all Go files, without blank lines; and of Markdown what is counted.
	allComments, allCode, prose int
}

func newStyleCounter(root string) *styleCounter {
	return &styleCounter{root: root, places: map[string][]place{}, methods: map[string]int{}}
}

func (c *styleCounter) value(figure string) int {
	switch figure {
	case commentShare:
		return c.comments * 1000 / max(c.lines, 1)
	case mostMethods:
		return slices.Max(append(slices.Collect(maps.Values(c.methods)), 0))
	}
	return len(c.places[figure])
}

// detail returns what else is worth printing beside a figure: the share of all
// lines, or the largest types.
func (c *styleCounter) detail(figure string) string {
	share := func(all int) string {
		return fmt.Sprintf(", %.1f %% of %d", 100*float64(c.value(figure))/float64(max(all, 1)), all)
	}
	switch figure {
	case commentOver80, commentOver100, pronounsInComments:
		return share(c.allComments)
	case codeOver100, codeOver120:
		return share(c.allCode)
	case proseOver100, proseOver120:
		return share(c.prose)
	case mostMethods:
	default:
		return ""
	}
	types := slices.Collect(maps.Keys(c.methods))
	slices.SortFunc(types, func(a, b string) int { return c.methods[b] - c.methods[a] })
	var b strings.Builder
	for _, name := range types[:min(5, len(types))] {
		fmt.Fprintf(&b, ", %s %d", name, c.methods[name])
	}
	return b.String()
}

func (c *styleCounter) add(figure, name string, line int) {
	c.places[figure] = append(c.places[figure], place{name, line})
}

// where lists the places of a figure in files below a folder, one file a line.
func (c *styleCounter) where(figure, folder string) string {
	var b strings.Builder
	last := ""
	for _, p := range c.places[figure] {
		if !strings.HasPrefix(p.file, folder) {
			continue
		}
		if p.file != last {
			fmt.Fprintf(&b, "\n    %s:", p.file)
			last = p.file
		}
		fmt.Fprintf(&b, " %d", p.line)
	}
	return b.String()
}

// walk reads all files. It skips what is not written by hand: results,
// installed tools, and modules of other languages.
func (c *styleCounter) walk() error {
	skipped := []string{".git", "node_modules", ".tools", ".bench", "testdata"}
	return filepath.WalkDir(c.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(skipped, d.Name()) && name != c.root {
				return fs.SkipDir
			}
			return nil
		}
		short, err := filepath.Rel(c.root, name)
		if err != nil {
			return err
		}
		short = filepath.ToSlash(short)
		kind := path.Ext(short)
		if kind != ".go" && kind != ".md" && !otherText.MatchString(short) {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			if britishWords.MatchString(line) {
				c.add(british, short, i+1)
			}
			if kind != ".go" && kind != ".md" && pronouns.MatchString(line) {
				c.add(pronounsElsewhere, short, i+1)
			}
		}
		switch kind {
		case ".go":
			return c.countGo(short, text)
		case ".md":
			c.countMarkdown(short, string(text))
		}
		return nil
	})
}

// countMarkdown leaves tables, code and lines that cannot be wrapped out of the
// length of lines.
func (c *styleCounter) countMarkdown(name, text string) {
	fenced := false
	for i, line := range strings.Split(text, "\n") {
		bare := strings.TrimSpace(line)
		if strings.HasPrefix(bare, "```") {
			fenced = !fenced
		}
		if fenced {
			continue
		}
		if pronouns.MatchString(line) {
			c.add(pronounsInProse, name, i+1)
		}
		wraps := strings.Contains(strings.TrimLeft(bare, "-*#> "), " ")
		if strings.HasPrefix(bare, "|") || strings.HasPrefix(bare, "<") || !wraps {
			continue
		}
		c.prose++
		switch n := columns(line); {
		case n > 120:
			c.add(proseOver120, name, i+1)
			fallthrough
		case n > 100:
			c.add(proseOver100, name, i+1)
		}
	}
}

func (c *styleCounter) countGo(name string, text []byte) error {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	test := strings.HasSuffix(name, "_test.go")
	c.countLines(name, text, test)
	if test {
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && isSleep(call.Fun) {
				c.add(sleeps, name, files.Position(n.Pos()).Line)
			}
			return true
		})
		return nil
	}
	switch path.Dir(name) {
	case "proxy":
		c.add(filesInProxy, name, 1)
	case "cmd/wxproxy":
		c.add(filesInCommand, name, 1)
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok {
			c.countFunction(name, files, f)
		}
	}
	return nil
}

// countLines counts what depends on the text of single lines.
func (c *styleCounter) countLines(name string, text []byte, test bool) {
	raw := c.countTokens(name, text)
	for i, line := range strings.Split(string(text), "\n") {
		bare := strings.TrimSpace(line)
		comment := strings.HasPrefix(bare, "//")
		if bare != "" && !test {
			c.lines++
			if comment {
				c.comments++
			}
		}
		switch {
		case bare == "":
		case comment:
			c.allComments++
		default:
			c.allCode++
		}
		n := columns(line)
		switch {
		case raw[i+1], strings.HasPrefix(bare, "//go:"):
		case comment && n > 100:
			c.add(commentOver100, name, i+1)
			fallthrough
		case comment && n > 80:
			c.add(commentOver80, name, i+1)
		case comment:
		case n > 120:
			c.add(codeOver120, name, i+1)
			fallthrough
		case n > 100:
			c.add(codeOver100, name, i+1)
		}
	}
}

// countTokens counts the words in comments and string literals. It returns the
// lines that raw strings over several lines cover: test data, in most cases.
func (c *styleCounter) countTokens(name string, text []byte) (raw map[int]bool) {
	raw = map[int]bool{}
	file := token.NewFileSet().AddFile(name, -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, scanner.ScanComments)
	for {
		pos, tok, literal := s.Scan()
		line := file.Line(pos)
		switch tok {
		case token.EOF:
			return raw
		case token.COMMENT:
			for i, part := range strings.Split(literal, "\n") {
				if pronouns.MatchString(part) {
					c.add(pronounsInComments, name, line+i)
				}
			}
		case token.STRING:
			if pronouns.MatchString(literal) {
				c.add(pronounsInStrings, name, line)
			}
			for i := range strings.Count(literal, "\n") {
				raw[line+i], raw[line+i+1] = true, true
			}
		}
	}
}

func (c *styleCounter) countFunction(name string, files *token.FileSet, f *ast.FuncDecl) {
	first, last := files.Position(f.Pos()).Line, files.Position(f.End()).Line
	if last-first+1 > maxFunctionLines {
		c.add(longFunctions, name, first)
	}
	if complexity(f) > maxComplexity {
		c.add(complexFunctions, name, first)
	}
	if f.Recv != nil {
		c.methods[path.Dir(name)+"."+receiver(f.Recv.List[0].Type)]++
	}
}

// complexity is the cyclomatic complexity of f: 1, and 1 for each branch. The
// functions inside f count as parts of f.
func complexity(f *ast.FuncDecl) int {
	n := 1
	ast.Inspect(f, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.IfStmt, *ast.ForStmt, *ast.RangeStmt:
			n++
		case *ast.CaseClause:
			if node.List != nil {
				n++
			}
		case *ast.CommClause:
			if node.Comm != nil {
				n++
			}
		case *ast.BinaryExpr:
			if node.Op == token.LAND || node.Op == token.LOR {
				n++
			}
		}
		return true
	})
	return n
}

// receiver returns the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return "?"
}

// isSleep reports whether e is time.Sleep.
func isSleep(e ast.Expr) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "Sleep" {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == "time"
}

// columns returns the width of a line, with tabs of four columns.
func columns(line string) int {
	return utf8.RuneCountInString(line) + (tabColumns-1)*bytes.Count([]byte(line), []byte("\t"))
}
