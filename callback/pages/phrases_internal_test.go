package pages

import (
	"reflect"
	"strings"
	"testing"
)

// Every phrase is there in both languages, in words of its own, and wants the same put in.
func TestPhrases(t *testing.T) {
	zh, en := reflect.ValueOf(*phrasesOf["zh"]), reflect.ValueOf(*phrasesOf["en"])
	for i := range zh.NumField() {
		name, a, b := zh.Type().Field(i).Name, zh.Field(i).String(), en.Field(i).String()
		if a == "" || b == "" || a == b || strings.Count(a, "{}") != strings.Count(b, "{}") {
			t.Errorf("%s: %q, %q", name, a, b)
		}
	}
}
