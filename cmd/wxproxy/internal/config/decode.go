package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"wxproxy/cmd/wxproxy/internal/suggest"
	"wxproxy/wechat"
)

// decoded is a configuration that was read, but not checked.
type decoded struct {
	cfg Config
	// written is what stands in the file for the strings that had a ${…} in them, by key.
	written map[string]string
	faults  []fault
	unread  map[string]bool // the keys of the faults
}

// faulty reports whether the value of key, or the table that it is in, could not be read: it has
// then kept its default.
func (d *decoded) faulty(key string) bool {
	for dot := len(key); dot >= 0; dot = strings.LastIndexByte(key[:dot], '.') {
		if d.unread[key[:dot]] {
			return true
		}
	}
	return false
}

func (d *decoded) fault(key, problem string, args ...any) {
	d.faults = append(d.faults, fault{key, fmt.Sprintf(problem, args...)})
	d.unread[key] = true
}

// decode puts the values of tree over the defaults. It goes on after a fault, so that the operator
// sees all of them.
func decode(tree map[string]any, from sources) *decoded {
	d := &decoded{cfg: Default(), written: map[string]string{}, unread: map[string]bool{}}
	w := &walk{decoded: d, expand: &expander{sources: from, left: expansionLimit}}
	w.table("", tree, reflect.ValueOf(&d.cfg).Elem())
	return d
}

// walk goes through the tree and the struct side by side.
type walk struct {
	*decoded
	expand *expander
}

var (
	durationType = reflect.TypeFor[Duration]()
	sizeType     = reflect.TypeFor[Size]()
)

// table fills the fields of a struct in their order, and reports the keys that have no field.
func (w *walk) table(path string, tree map[string]any, into reflect.Value) {
	// In the order of the fields, not of the map: the same file is answered with the same text.
	var known []string
	for i := range into.NumField() {
		name := into.Type().Field(i).Tag.Get("toml")
		known = append(known, name)
		if v, there := tree[name]; there {
			w.value(join(path, name), v, into.Field(i))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		if !slices.Contains(known, name) {
			w.unknown(path, name, known)
		}
	}
}

// value fills one field. Nothing is converted: "8080" is no number and 1 is not true, because whoever
// writes so has something else in mind than what would happen.
func (w *walk) value(key string, v any, into reflect.Value) {
	switch into.Type() {
	case durationType:
		s, ok := v.(string)
		if _, isNumber := v.(int64); isNumber {
			w.fault(key, "%v", errDurationUnit)
		} else if !ok {
			w.wrong(key, v, `a duration in quotes, such as "60s"`)
		} else if s, ok = w.text(key, s); ok {
			w.parsed(key, into, func() (any, error) { return parseDuration(s) })
		}
		return
	case sizeType:
		s, ok := v.(string)
		if n, isNumber := v.(int64); isNumber {
			into.SetInt(n)
		} else if !ok {
			w.wrong(key, v, `a size in quotes, such as "32MiB"`)
		} else if s, ok = w.text(key, s); ok {
			w.parsed(key, into, func() (any, error) { return parseSize(s) })
		}
		return
	}
	// wechat.Secret, which is a struct by kind and a string by meaning.
	if secret, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if s, ok := v.(string); !ok {
			w.wrong(key, v, "a string in quotes")
		} else if s, ok = w.text(key, s); ok {
			if err := secret.UnmarshalText([]byte(s)); err != nil {
				w.fault(key, "cannot be understood")
			}
		}
		return
	}
	switch into.Kind() {
	case reflect.String:
		if s, ok := v.(string); !ok {
			w.wrong(key, v, "a string in quotes")
		} else if s, ok = w.text(key, s); ok {
			into.SetString(s)
		}
	case reflect.Bool:
		if b, ok := v.(bool); !ok {
			w.wrong(key, v, "true or false, without quotes")
		} else {
			into.SetBool(b)
		}
	case reflect.Int:
		if n, ok := v.(int64); !ok {
			w.wrong(key, v, "a whole number, without quotes")
		} else {
			into.SetInt(n)
		}
	case reflect.Slice:
		w.list(key, v, into)
	case reflect.Struct:
		if t, ok := v.(map[string]any); ok {
			w.table(key, t, into)
		} else if block, isBlock := strings.CutSuffix(key, "]"); isBlock {
			block, _, _ = strings.Cut(block, "[")
			w.wrong(key, v, "a block; write [["+block+"]]")
		} else if _, isList := v.([]any); isList {
			w.fault(key, "stands in double brackets; write [%s] once, in single ones", key)
		} else {
			w.wrong(key, v, "a table; write ["+key+"]")
		}
	default:
		panic("BUG: the configuration has a field of type " + into.Type().String())
	}
}

// list fills a slice: of blocks where its elements are structs, otherwise of values. Elements are
// counted from 1, as the reader of a file does.
func (w *walk) list(key string, v any, into reflect.Value) {
	items, ok := v.([]any)
	if !ok {
		if into.Type().Elem().Kind() == reflect.Struct {
			w.fault(key, "must stand in double brackets; write [[%s]]", key)
		} else {
			w.wrong(key, v, `a list of strings, such as ["https://shop.example.com/"]`)
		}
		return
	}
	// All at once: a block with a fault keeps its place, so that the numbers of the others are right.
	list := reflect.MakeSlice(into.Type(), len(items), len(items))
	for i, item := range items {
		element := list.Index(i)
		if block, ok := element.Addr().Interface().(interface{ setDefaults() }); ok {
			block.setDefaults()
		}
		w.value(fmt.Sprintf("%s[%d]", key, i+1), item, element)
	}
	// An empty list is nothing, also where the default is everything. Where the default is nothing it stays as it is.
	if len(items) > 0 || into.Len() > 0 {
		into.Set(list)
	}
}

// text gives a string with its ${…} replaced, or reports what stands against it.
func (w *walk) text(key, s string) (string, bool) {
	out, problems := w.expand.expand(s)
	if problem := notText(s); problem != "" {
		problems = append(problems, problem)
	}
	for _, p := range problems {
		w.fault(key, "%s", p)
	}
	// Kept even where nothing was put in: checks show the value as it stands in the file.
	if strings.Contains(s, "${") {
		w.written[key] = s
	}
	return out, problems == nil
}

// parsed sets what parse gives.
func (w *walk) parsed(key string, into reflect.Value, parse func() (any, error)) {
	v, err := parse()
	if err != nil {
		w.fault(key, "%v", err)
		return
	}
	into.Set(reflect.ValueOf(v))
}

// wrong reports a value of the wrong type, and does not show it: it may be a secret without quotes.
func (w *walk) wrong(key string, v any, want string) {
	is := "a date or time" // TOML's other four types
	switch v.(type) {
	case string:
		is = "a string"
	case bool:
		is = "true or false"
	case int64, float64:
		is = "a number"
	case []any:
		is = "a list"
	case map[string]any:
		is = "a table"
	}
	w.fault(key, "is %s; it must be %s", is, want)
}

// unknown reports a key that does not exist, and which one was meant, if that can be told.
func (w *walk) unknown(path, name string, known []string) {
	key := join(path, name)
	if near := suggest.Nearest(name, known); near != "" {
		w.fault(key, "there is no such key; did you mean %s?", join(path, near))
		return
	}
	// A key below the wrong [table], or above all of them.
	for _, elsewhere := range keysOf("", reflect.TypeFor[Config]()) {
		if strings.HasSuffix(elsewhere, "."+name) {
			w.fault(key, "there is no such key; did you mean %s?", elsewhere)
			return
		}
	}
	w.fault(key, "there is no such key; remove it, or look its name up in config.example.toml")
}

// keysOf lists the keys that a struct has, those of its tables and blocks included: "proxy.listen", "app.appid".
func keysOf(path string, t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		key, inside := join(path, f.Tag.Get("toml")), f.Type
		if inside.Kind() == reflect.Slice { // of blocks, or a list of strings
			inside = inside.Elem()
		}
		if inside.Kind() == reflect.Struct && inside.Field(0).Tag.Get("toml") != "" {
			keys = append(keys, keysOf(key, inside)...)
		} else {
			keys = append(keys, key)
		}
	}
	return keys
}

// join puts a key behind the path of its table, in quotes where TOML wants them.
func join(path, name string) string {
	if !bare.MatchString(name) || len(name) > maxQuoted {
		name = quoted(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// bare are the keys that need no quotes.
var bare = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// maxQuoted is how many characters of a key or value an error quotes.
const maxQuoted = 100

// quoted returns s in quotes, on one line, without control characters, and cut
// to maxQuoted characters.
func quoted(s string) string { return strconv.Quote(wechat.Sanitize(s, maxQuoted)) }
