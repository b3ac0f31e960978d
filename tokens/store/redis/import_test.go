//go:build unix

package redis_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
)

// fillWith returns a function that puts records, and then returns err.
func fillWith(records map[string]string, err error) func(func(string, []byte) error) error {
	return func(put func(string, []byte) error) error {
		for _, key := range slices.Sorted(maps.Keys(records)) {
			if err := put(key, []byte(records[key])); err != nil {
				return err
			}
		}
		return err
	}
}

func wantRecords(t *testing.T, name, url string, records map[string]string) {
	t.Helper()
	s, err := redis.Open(t.Context(), url, patient)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	defer s.Close()
	got := map[string]string{}
	err = s.List(t.Context(), "", "", func(key string, record []byte) bool {
		got[key] = string(record)
		return true
	})
	if err != nil || !maps.Equal(got, records) {
		t.Errorf("%s: got %d records, error %v, want %d", name, len(got), err, len(records))
	}
	for key, record := range records {
		if one, err := s.Load(t.Context(), key); err != nil || string(one) != record {
			t.Errorf("%s: Load(%s): got error %v", name, key, err)
		}
		break
	}
}

// wantUnfinished checks that a Redis is not opened because of an import.
func wantUnfinished(t *testing.T, url string) {
	t.Helper()
	_, err := redis.Open(t.Context(), url, patient)
	if !mentions(err, "import", "--force") {
		t.Errorf("Open: got error %v, want one about the import", err)
	}
}

// TestImport × an empty or a filled Redis × with and without replace × a source
// that fails at its end. After a failure the Redis is as it was, or no process
// opens it, and the next import repairs it.
func TestImport(t *testing.T) {
	r := start(t)
	records := map[string]string{"seal/check": "check"}
	for i := range 5000 { // several batches
		records[fmt.Sprintf("k%05d", i)] = strings.Repeat("r", 400)
	}
	present, broken := map[string]string{"old": "record", "older": "one"}, errors.New("broken")
	db := 0
	for name, c := range map[string]struct {
		before   map[string]string
		replace  bool
		fails    error
		want     error
		unusable bool
	}{
		"empty":                 {nil, false, nil, nil, false},
		"empty, fails":          {nil, false, broken, broken, false},
		"empty but for a check": {map[string]string{"seal/check": "other"}, false, nil, nil, false},
		"filled":                {present, false, nil, store.ErrNotEmpty, false},
		"filled, replace":       {present, true, nil, nil, false},
		"filled, replace fails": {present, true, broken, broken, true},
	} {
		db++
		url := fmt.Sprintf("%s/%d", r.url(), db)
		if c.before != nil {
			s := open(t, url, patient)
			for key, record := range c.before {
				put(t, s, key, record)
			}
			if first, err := s.Claim(t.Context(), "claim", inAnHour()); err != nil || !first {
				t.Fatalf("Claim: got %v, error %v", first, err)
			}
			s.Close()
		}
		err := redis.Import(t.Context(), url, c.replace, patient, fillWith(records, c.fails))
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: got error %v, want %v", name, err, c.want)
		}
		switch {
		case c.want == nil:
			wantRecords(t, name, url, records)
		case !c.unusable:
			wantRecords(t, name, url, c.before)
		default:
			wantUnfinished(t, url)
			again := redis.Import(t.Context(), url, false, patient, fillWith(records, nil))
			if !errors.Is(again, store.ErrNotEmpty) {
				t.Errorf("%s: without replace: got error %v, want ErrNotEmpty", name, again)
			}
			again = redis.Import(t.Context(), url, true, patient, fillWith(records, nil))
			if again != nil {
				t.Errorf("%s: the next import: %v", name, again)
			}
			wantRecords(t, name, url, records)
		}
	}
}

// A Redis to which another process is connected, also one that is idle, is not
// changed. Another database of the same server does not count.
func TestImportIntoRedisInUse(t *testing.T) {
	r := start(t)
	s := open(t, r.url()+"/1", patient)
	put(t, s, "a", "one")
	fill := fillWith(map[string]string{"b": "two"}, nil)
	err := redis.Import(t.Context(), r.url()+"/1", true, patient, fill)
	if !errors.Is(err, store.ErrInUse) || !mentions(err, "connected from 127.0.0.1:") {
		t.Errorf("got error %v, want ErrInUse with an address", err)
	}
	want(t, s, "a", "one")
	open(t, r.url()+"/1", patient) // its format is as before
	if err := redis.Import(t.Context(), r.url()+"/2", false, patient, fill); err != nil {
		t.Errorf("another database: %v", err)
	}
	s.Close()
	r.do("ACL SETUSER limited on >secret ~* &* +@all -client|list")
	var warned []string
	o := patient
	o.Warn = func(problem string) { warned = append(warned, problem) }
	url := strings.Replace(r.url(), "redis://", "redis://limited:secret@", 1)
	if err := redis.Import(t.Context(), url+"/3", false, o, fill); err != nil ||
		!strings.Contains(strings.Join(warned, "\n"), "CLIENT LIST") {
		t.Errorf("without CLIENT LIST: got error %v, warnings %q, want one", err, warned)
	}
}

// An import that is killed leaves a Redis that no process opens.
func TestKilledImport(t *testing.T) {
	r := start(t)
	s := open(t, r.url(), patient)
	put(t, s, "a", "one")
	s.Close()
	defer func() {
		if recover() == nil {
			t.Error("got no panic")
		}
		wantUnfinished(t, r.url())
	}()
	redis.Import(t.Context(), r.url(), true, patient, func(func(string, []byte) error) error {
		panic("killed")
	})
}

func inAnHour() time.Time { return time.Now().Add(time.Hour) }
