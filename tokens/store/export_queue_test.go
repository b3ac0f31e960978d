package store_test

import (
	"bytes"
	"testing"

	"wxproxy/tokens/store"
)

// exportedEntries returns the entries of a sealed queue as an export has them.
func exportedEntries(t testing.TB) (keys []string, entries [][]byte) {
	t.Helper()
	s, err := store.Seal(t.Context(), store.NewMemory(), make([]byte, store.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	q, _ := store.As[store.Queuer](s)
	for _, id := range []string{"b", "a", "c"} {
		e := store.QueueEntry{
			QueueKey: store.QueueKey{Service: "orders", AppID: "wx", ID: id}, Payload: []byte(id),
		}
		if _, err := q.Queue().Add(t.Context(), 0, e); err != nil {
			t.Fatal(err)
		}
	}
	exporter, _ := store.As[store.Exporter](s)
	_, err = exporter.Export(t.Context(), func(key string, record []byte) error {
		if _, ok, _ := store.ParseExported(key, record); ok {
			keys, entries = append(keys, key), append(entries, bytes.Clone(record))
		}
		return nil
	})
	if err != nil || len(entries) != 3 {
		t.Fatalf("export: got %d entries, error %v, want 3", len(entries), err)
	}
	return keys, entries
}

// TestExportedEntryIsParsed cuts an entry of an export at every length: what is
// cut before its payload is an error. The first byte is the version.
func TestExportedEntryIsParsed(t *testing.T) {
	keys, entries := exportedEntries(t)
	for i, id := range []string{"b", "a", "c"} {
		e, ok, err := store.ParseExported(keys[i], entries[i])
		if err != nil || !ok || e.ID != id || e.Service != "orders" || len(e.Payload) == 0 {
			t.Errorf("entry %d: got %+v, %v, error %v", i, e, ok, err)
		}
		for n := range len(entries[i]) - len(e.Payload) {
			if _, ok, err := store.ParseExported(keys[i], entries[i][:n]); !ok || err == nil {
				t.Fatalf("%d bytes of entry %d: got %v, error %v, want an error", n, i, ok, err)
			}
		}
		newer := bytes.Clone(entries[i])
		newer[0]++
		if _, ok, err := store.ParseExported(keys[i], newer); !ok || err == nil {
			t.Errorf("another version: got %v, error %v, want an error", ok, err)
		}
	}
	if _, ok, err := store.ParseExported("account/queue/a", entries[0]); ok || err != nil {
		t.Errorf("a record: got %v, error %v, want no entry", ok, err)
	}
}

// FuzzParseExported: whatever is in a file, an entry has a valid key and the
// bytes that are in it, or there is an error.
func FuzzParseExported(f *testing.F) {
	_, entries := exportedEntries(f)
	for _, e := range entries {
		f.Add(e)
	}
	f.Add([]byte("\x01\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok, err := store.ParseExported("queue/0", b)
		if !ok || err == nil && (!e.IsValid() || e.Attempts < 0) {
			t.Errorf("got %+v, %v", e, ok)
		}
		if !bytes.HasSuffix(b, e.Payload) {
			t.Errorf("payload: got %q, which is not in the input", e.Payload)
		}
	})
}
