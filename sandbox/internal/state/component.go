package state

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// maxTemplates is WeChat's limit for one type of template; the sandbox applies
// it to both types together.
const maxTemplates = 200

// Template is one entry of the component's template library
// (thirdparty-management/template-management).
type Template struct {
	ID      int
	Kind    int // 0 ordinary, 1 standard
	Created time.Time
}

// Templates is the component's template library. The zero value is empty and
// ready to use. It is safe for concurrent use.
type Templates struct {
	mu     sync.Mutex // guards everything below
	list   []Template
	nextID int
}

// Add adds a template, and reports whether there was room for it.
func (t *Templates) Add(kind int, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.list) >= maxTemplates {
		return false
	}
	t.list = append(t.list, Template{ID: t.nextID, Kind: kind, Created: now})
	t.nextID++
	return true
}

// All returns a copy of the library.
func (t *Templates) All() []Template {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.list)
}

// Delete deletes a template, and reports whether there was one.
func (t *Templates) Delete(id int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.list)
	t.list = slices.DeleteFunc(t.list, func(e Template) bool { return e.ID == id })
	return len(t.list) < n
}

// maxDomains bounds each list of domains.
const maxDomains = 1000

// Domains holds the component-wide domain lists
// (thirdparty-management/domain-mgnt). Each is one string, joined by
// semicolons, as WeChat sends and takes it. The zero value is ready to use. It
// is safe for concurrent use.
type Domains struct {
	mu     sync.Mutex // guards everything below
	byKind map[string]string
}

// Apply carries out an action ("get", "set", "add", "delete") on the list of
// that kind and returns the list. The errcode is 47001 for another action, and
// 40170 if the list would be too long.
func (d *Domains) Apply(kind, action, domains string) (list string, code int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	have, given := splitDomains(d.byKind[kind]), splitDomains(domains)
	switch action {
	case "get":
	case "set":
		have = given
	case "add":
		have = append(without(have, given), given...)
	case "delete":
		have = without(have, given)
	default:
		return "", 47001
	}
	if len(have) > maxDomains {
		return "", 40170
	}
	if d.byKind == nil {
		d.byKind = make(map[string]string)
	}
	d.byKind[kind] = strings.Join(have, ";")
	return d.byKind[kind], 0
}

// splitDomains splits a list and drops empty entries.
func splitDomains(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ';' })
}

// without returns the list less what is in drop, in a new slice.
func without(list, drop []string) []string {
	var out []string
	for _, v := range list {
		if !slices.Contains(drop, v) {
			out = append(out, v)
		}
	}
	return out
}
