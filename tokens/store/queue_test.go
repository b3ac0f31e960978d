package store_test

import (
	"strings"
	"testing"

	"wxproxy/tokens/store"
)

// TestQueueKeyIsText: valid keys are parsed as they were written, and what is
// not the text of a key is no key.
func TestQueueKeyIsText(t *testing.T) {
	long := strings.Repeat("k", 1024)
	for _, k := range []store.QueueKey{
		{Service: "orders", AppID: "wx0123456789abcdef", ID: "abc"},
		{Service: "queue", AppID: "\x00", ID: " "},
		{Service: long, AppID: long, ID: long},
	} {
		if got, ok := store.ParseQueueKey(k.String()); !ok || got != k {
			t.Errorf("%.40q: got %+v, %v", k, got, ok)
		}
	}
	for _, s := range []string{
		"", "queue/", "queue/a/b", "queue/a/b/", "queue//b/c", "queue/a//c", "queue/a/b/c/d",
		"a/b/c", "damaged/queue/a/b/c", "queue/a/b/" + long + "k",
	} {
		if k, ok := store.ParseQueueKey(s); ok {
			t.Errorf("%.40q: got %+v, want no key", s, k)
		}
	}
}
