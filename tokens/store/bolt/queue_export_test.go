package bolt_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/archive"
	"wxproxy/tokens/store/bolt"
	"wxproxy/tokens/store/storetest"
)

// TestExportHasTheQueue exports a sealed store with records before and behind
// the entries of the queue: waiting, failed, dead, of no byte and of 2 MiB, and
// one that is damaged. The import has all of it but the damaged one, with the
// lanes in their order, and opens with the key. A store with events and no
// record is not empty.
func TestExportHasTheQueue(t *testing.T) {
	key, dir := make([]byte, store.KeySize), t.TempDir()
	s := openFile(t, filepath.Join(dir, "a.db"), key)
	for _, k := range []string{"account/a", "platform/p", "zero", "queue", "queue0"} {
		put(t, s, k, "record of "+k)
	}
	sealed, _ := store.As[store.Queuer](s)
	q := sealed.Queue()
	storetest.FillQueue(t, q)
	damaged := event("z", "1")
	damaged.Payload = []byte("not sealed")
	addEvents(t, store.Innermost(s).(*bolt.Store), damaged)

	var file bytes.Buffer
	w, err := archive.NewWriter(&file, archive.Header{Created: time.Unix(1, 0), Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	exporter, _ := store.As[store.Exporter](s)
	lost, err := exporter.Export(t.Context(), w.Put)
	if err != nil || lost != 1 {
		t.Fatalf("export: got %d damaged, error %v, want 1", lost, err)
	}
	if _, err := w.Close(lost); err != nil {
		t.Fatal(err)
	}
	opener, err := store.NewOpener(key)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(put func(string, []byte) error) error {
		_, _, err := archive.Read(t.Context(), bytes.NewReader(file.Bytes()),
			func(key string, record []byte) error {
				if err := opener.Check(key, record); err != nil {
					t.Errorf("check of %s: %v", key, err)
				}
				return put(key, record)
			})
		return err
	}
	path := filepath.Join(dir, "b.db")
	if err := bolt.Import(t.Context(), path, false, fill); err != nil {
		t.Fatal(err)
	}
	copied := openFile(t, path, key)
	for _, k := range []string{"account/a", "platform/p", "zero", "queue", "queue0"} {
		want(t, copied, k, "record of "+k)
	}
	copiedQueue, _ := store.As[store.Queuer](copied)
	if err := q.Drop(t.Context(), damaged.QueueKey); err != nil {
		t.Fatal(err)
	}
	storetest.SameQueue(t, copiedQueue.Queue(), q)

	events := open(t, filepath.Join(dir, "c.db"))
	addEvents(t, events, event("a", "1"))
	mustClose(t, events)
	err = bolt.Import(t.Context(), filepath.Join(dir, "c.db"), false, fill)
	if !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("a file with events: got error %v, want ErrNotEmpty", err)
	}
}
