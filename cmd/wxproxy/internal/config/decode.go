package config

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"wxproxy/cmd/wxproxy/internal/suggest"
)

// decoded is a configuration that was decoded but not validated.
type decoded struct {
	cfg Config
	// expanded has the keys of strings that contain a ${…}.
	expanded map[string]bool
	// emptyLists has the keys of lists that are in the file without an element.
	emptyLists map[string]bool
	faults     []fault
	invalid    map[string]bool // the keys of faults
}

// isInvalid reports whether the value of key, or the table around it, could not
// be decoded. It then has its default.
func (d *decoded) isInvalid(key string) bool {
	for dot := len(key); dot >= 0; dot = strings.LastIndexByte(key[:dot], '.') {
		if d.invalid[key[:dot]] {
			return true
		}
	}
	return false
}

// fault records what is wrong with the value of key.
func (d *decoded) fault(key, problem string, args ...any) {
	d.faults = append(d.faults, fault{Key: key, Problem: fmt.Sprintf(problem, args...)})
	d.invalid[key] = true
}

// decode stores the values of tree over the defaults. It continues after a
// fault, so that the operator sees all of them. lines returns the lines of
// keys, see keyLines.
func decode(tree map[string]any, from sources, lines func() map[string]int) *decoded {
	d := &decoder{
		decoded: &decoded{
			cfg: Default(), expanded: map[string]bool{}, emptyLists: map[string]bool{},
			invalid: map[string]bool{},
		},
		expand: &expander{sources: from, left: expansionLimit},
		lines:  lines,
	}
	d.table("", tree, reflect.ValueOf(&d.cfg).Elem())
	return d.decoded
}

// decoder walks through a tree and the struct for it at the same time. The TOML
// library can decode into structs too, but it stops at the first fault, its
// errors quote values, and it knows neither ${…} nor where a value came from.
type decoder struct {
	*decoded
	expand *expander
	lines  func() map[string]int
	lineOf map[string]int // the result of lines, once it was needed
}

var (
	durationType = reflect.TypeFor[Duration]()
	sizeType     = reflect.TypeFor[Size]()
	listType     = reflect.TypeFor[OneOrMore]()
)

// table fills the fields of the struct into, and reports keys without a field.
// It goes through the fields, not through the map, so that the faults of a file
// always have the same order.
func (d *decoder) table(path string, tree map[string]any, into reflect.Value) {
	var known []string
	for i := range into.NumField() {
		name := into.Type().Field(i).Tag.Get("toml")
		known = append(known, name)
		if v, found := tree[name]; found {
			d.value(join(path, name), v, into.Field(i))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		if !slices.Contains(known, name) {
			d.unknown(path, name, known)
		}
	}
}

// value fills one field. It converts nothing: "8080" is not a number, and 1 is
// not true, because the author of such a line had something else in mind.
func (d *decoder) value(key string, v any, into reflect.Value) {
	switch into.Type() {
	case durationType:
		d.duration(key, v, into)
		return
	case sizeType:
		d.size(key, v, into)
		return
	case listType:
		d.oneOrMore(key, v, into)
		return
	}
	// wechat.Secret is a struct by kind, but a string in the file.
	if secret, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if s, ok := d.string(key, v, "a string in quotes"); ok {
			if err := secret.UnmarshalText([]byte(s)); err != nil {
				d.fault(key, "is not valid")
			}
		}
		return
	}
	switch into.Kind() {
	case reflect.String:
		if s, ok := d.string(key, v, "a string in quotes"); ok {
			into.SetString(s)
		}
	case reflect.Bool:
		if b, ok := v.(bool); !ok {
			d.wrongType(key, v, "true or false, without quotes")
		} else {
			into.SetBool(b)
		}
	case reflect.Int:
		if n, ok := v.(int64); !ok {
			d.wrongType(key, v, "a whole number, without quotes")
		} else {
			into.SetInt(n)
		}
	case reflect.Slice:
		d.list(key, v, into)
	case reflect.Struct:
		d.structure(key, v, into)
	default:
		panic("BUG: the configuration has a field of type " + into.Type().String())
	}
}

// duration fills a field of type Duration.
func (d *decoder) duration(key string, v any, into reflect.Value) {
	if _, isNumber := v.(int64); isNumber {
		d.fault(key, "%v", errDurationUnit)
	} else if s, ok := d.string(key, v, `a duration in quotes, such as "60s"`); ok {
		d.parsed(key, into, func() (any, error) { return parseDuration(s) })
	}
}

// size fills a field of type Size.
func (d *decoder) size(key string, v any, into reflect.Value) {
	if n, isNumber := v.(int64); isNumber {
		into.SetInt(n)
	} else if s, ok := d.string(key, v, `a size in quotes, such as "32MiB"`); ok {
		d.parsed(key, into, func() (any, error) { return parseSize(s) })
	}
}

// oneOrMore fills a field of type OneOrMore.
func (d *decoder) oneOrMore(key string, v any, into reflect.Value) {
	items, isList := v.([]any)
	if !isList {
		items = []any{v}
	}
	list := make(OneOrMore, len(items))
	for i, item := range items {
		element := list.elementKey(key, i)
		list[i], _ = d.string(element, item, "a string in quotes, or a list of them")
	}
	if !isList && list[0] == "" {
		list = nil
	}
	into.Set(reflect.ValueOf(list))
}

// structure fills a table or a block.
func (d *decoder) structure(key string, v any, into reflect.Value) {
	if t, ok := v.(map[string]any); ok {
		d.table(key, t, into)
	} else if block, isBlock := strings.CutSuffix(key, "]"); isBlock {
		block, _, _ = strings.Cut(block, "[")
		d.wrongType(key, v, "a block; write [["+block+"]]")
	} else if _, isList := v.([]any); isList {
		d.fault(key, "is in double brackets; write [%s] once, in single brackets", key)
	} else {
		d.wrongType(key, v, "a table; write ["+key+"]")
	}
}

// list fills a slice of blocks, if its elements are structs, or of values. The
// elements are counted from 1, as readers do.
func (d *decoder) list(key string, v any, into reflect.Value) {
	items, ok := v.([]any)
	if !ok {
		if into.Type().Elem().Kind() == reflect.Struct {
			d.fault(key, "must be in double brackets; write [[%s]]", key)
		} else {
			d.wrongType(key, v, `a list of strings, such as ["https://shop.example.com/"]`)
		}
		return
	}
	d.emptyLists[key] = len(items) == 0
	// A block with a fault keeps its place, so that the numbers of the others
	// are right.
	list := reflect.MakeSlice(into.Type(), len(items), len(items))
	for i, item := range items {
		element := list.Index(i)
		if block, ok := element.Addr().Interface().(interface{ setDefaults() }); ok {
			block.setDefaults()
		}
		d.value(fmt.Sprintf("%s[%d]", key, i+1), item, element)
	}
	// An empty list replaces a default that is not empty. Otherwise the field
	// stays nil.
	if len(items) > 0 || into.Len() > 0 {
		into.Set(list)
	}
}

// string returns the string v with its ${…} expanded. If that is not possible
// it reports why, and ok is false.
func (d *decoder) string(key string, v any, want string) (s string, ok bool) {
	s, ok = v.(string)
	if !ok {
		d.wrongType(key, v, want)
		return "", false
	}
	out, problems := d.expand.expand(s)
	if problem := textProblem(s); problem != "" {
		problems = append(problems, problem)
	}
	for _, p := range problems {
		d.fault(key, "%s", p)
	}
	d.expanded[key] = strings.Contains(s, "${")
	return out, problems == nil
}

// parsed stores what parse returns.
func (d *decoder) parsed(key string, into reflect.Value, parse func() (any, error)) {
	v, err := parse()
	if err != nil {
		d.fault(key, "%v", err)
		return
	}
	into.Set(reflect.ValueOf(v))
}

// wrongType reports a value of the wrong type. It does not quote the value,
// which may be a secret without quotes.
func (d *decoder) wrongType(key string, v any, want string) {
	is := "a date or time" // the other four types of TOML
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
	d.fault(key, "is %s; it must be %s", is, want)
}

// unknown reports a key that does not exist, and suggests the one that was
// probably meant. The wrong name is not printed, only its line: it can be a
// secret.
func (d *decoder) unknown(path, name string, known []string) {
	problem := "there is no such key; remove it, or find its name in config.example.toml"
	if near := suggest.Nearest(name, known); near != "" {
		problem = "there is no such key; did you mean " + join(path, near) + "?"
	} else {
		// The key may exist in another [table] than the one above it.
		for _, elsewhere := range keysOf("", reflect.TypeFor[Config]()) {
			if strings.HasSuffix(elsewhere, "."+name) {
				problem = "there is no such key; did you mean " + elsewhere + "?"
				break
			}
		}
	}
	if d.lineOf == nil {
		d.lineOf = d.lines()
	}
	line := d.lineOf[join(path, name)]
	d.faults = append(d.faults, fault{Key: path, Line: line, Problem: problem})
}

// keysOf returns the keys of a struct and of its tables and blocks, such as
// "proxy.listen" and "app.appid".
func keysOf(path string, t reflect.Type) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		key, inside := join(path, f.Tag.Get("toml")), f.Type
		if inside.Kind() == reflect.Slice { // of blocks, or of strings
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

// join appends a key to the path of its table.
func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
