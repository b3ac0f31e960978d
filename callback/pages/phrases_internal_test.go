package pages

import (
	"reflect"
	"strings"
	"testing"
)

// Every text exists in both languages, differs between them, and takes the same
// numbers.
func TestPhrasesAreComplete(t *testing.T) {
	zh, en := reflect.ValueOf(*phrasesByLanguage["zh"]), reflect.ValueOf(*phrasesByLanguage["en"])
	for i := range zh.NumField() {
		name, a, b := zh.Type().Field(i).Name, zh.Field(i).String(), en.Field(i).String()
		if a == "" || b == "" || a == b {
			t.Errorf("%s: got %q and %q, want two texts that differ", name, a, b)
		}
		if strings.Count(a, "{}") != strings.Count(b, "{}") {
			t.Errorf("%s: got %q and %q, want the same number of {}", name, a, b)
		}
	}
}
