//go:build unix

package redis_test

import (
	"errors"
	"testing"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
	"wxproxy/tokens/store/storetest"
)

// TestImportHasTheQueue imports the export of another store into a Redis × that
// is empty × whose queue has other events × whose own queue is in the export:
// its queue is the exported one, and opens with the key. Without replace, a
// Redis with events and no records is not changed.
func TestImportHasTheQueue(t *testing.T) {
	r, key := start(t), make([]byte, store.KeySize)
	from, err := store.Seal(t.Context(), store.NewMemory(), key)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := store.As[store.Queuer](from)
	storetest.FillQueue(t, want.Queue())
	exporter, _ := store.As[store.Exporter](from)
	fill := func(put func(string, []byte) error) error {
		_, err := exporter.Export(t.Context(), put)
		return err
	}
	url := r.url() + "/1"
	for range 2 { // the second time into what it has written
		if err := redis.Import(t.Context(), url, true, patient, fill); err != nil {
			t.Fatal(err)
		}
		raw := open(t, url, patient)
		s, err := store.Seal(t.Context(), raw, key)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := store.As[store.Queuer](s)
		storetest.SameQueue(t, got.Queue(), want.Queue())
		raw.Close()
	}
	other := open(t, r.url()+"/2", patient)
	storetest.FillQueue(t, other.Queue())
	other.Close()
	err = redis.Import(t.Context(), r.url()+"/2", false, patient, fill)
	if !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("a Redis with events: got error %v, want ErrNotEmpty", err)
	}
	if err := redis.Import(t.Context(), r.url()+"/2", true, patient, fill); err != nil {
		t.Fatal(err)
	}
	s, err := store.Seal(t.Context(), open(t, r.url()+"/2", patient), key)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := store.As[store.Queuer](s)
	storetest.SameQueue(t, got.Queue(), want.Queue())
}
