package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"wxproxy/tokens/store/archive"
)

var header = archive.Header{Created: time.Unix(1_800_000_000, 0).UTC(), Version: "v1"}

// export returns an export of records.
func export(t testing.TB, records map[string]string, damaged int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := archive.NewWriter(&b, header)
	for _, key := range slices.Sorted(maps.Keys(records)) {
		if err == nil {
			err = w.Put(key, []byte(records[key]))
		}
	}
	if err == nil {
		_, err = w.Close(damaged)
	}
	if err != nil {
		t.Fatalf("export: %v", err)
	}
	return b.Bytes()
}

// readAll returns what Read finds in r.
func readAll(
	r io.Reader,
) (records map[string]string, h archive.Header, s archive.Summary, err error) {
	records = map[string]string{}
	h, s, err = archive.Read(context.Background(), r, func(key string, record []byte) error {
		records[key] = string(record)
		return nil
	})
	return records, h, s, err
}

func someRecords() map[string]string {
	records := map[string]string{
		"a": "", "seal/check": "check", "zero\x00": "\x00", strings.Repeat("k", 4096): "long key",
		"large": strings.Repeat("r", 1<<20),
	}
	for i := range 200 {
		records[fmt.Sprintf("account/wx%016d", i)] = strings.Repeat("x", i)
	}
	return records
}

func TestWriteAndRead(t *testing.T) {
	for name, want := range map[string]map[string]string{"none": {}, "some": someRecords()} {
		b := export(t, want, 3)
		for how, r := range map[string]io.Reader{
			"at once": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b)),
		} {
			got, h, s, err := readAll(r)
			if err != nil || !maps.Equal(got, want) || h != header ||
				s != (archive.Summary{Records: len(want), Damaged: 3}) {
				t.Errorf("%s, %s: got %d records, %+v, %+v, error %v",
					name, how, len(got), h, s, err)
			}
		}
	}
}

// Files of users have this form.
func TestFormatDoesNotChange(t *testing.T) {
	const want = "wxproxy export 1\n" +
		`{"created":"2027-01-15T08:00:00Z","version":"v1"}` + "\n" +
		"\x01a\x03one" + "\x01b\x03two" + "\x00\x02\x03"
	got := export(t, map[string]string{"a": "one", "b": "two"}, 3)
	if len(got) != len(want)+32 || string(got[:len(want)]) != want {
		t.Errorf("got %q, want %q and a checksum", got, want)
	}
}

// TestDamageIsDetected cuts an export at every length, and flips each bit of it.
func TestDamageIsDetected(t *testing.T) {
	whole := export(t, map[string]string{"a": "one", "account/wx": strings.Repeat("r", 300)}, 0)
	for n := range whole {
		_, _, _, err := readAll(bytes.NewReader(whole[:n]))
		if !errors.Is(err, archive.ErrInvalid) {
			t.Fatalf("%d of %d bytes: got error %v, want ErrInvalid", n, len(whole), err)
		}
		for bit := range 8 {
			flipped := bytes.Clone(whole)
			flipped[n] ^= 1 << bit
			_, _, _, err := readAll(bytes.NewReader(flipped))
			if !errors.Is(err, archive.ErrInvalid) {
				t.Fatalf("bit %d of byte %d: got error %v, want ErrInvalid", bit, n, err)
			}
		}
	}
	more := append(bytes.Clone(whole), 0)
	if _, _, _, err := readAll(bytes.NewReader(more)); !errors.Is(err, archive.ErrInvalid) {
		t.Errorf("a byte after the end: got error %v, want ErrInvalid", err)
	}
}

// Files that are something else, announce too much, or come from a later
// version, are rejected with a reason.
func TestHostileFiles(t *testing.T) {
	const begin = "wxproxy export 1\n"
	for text, want := range map[string]string{
		"":                                                   "does not begin like one",
		"\x1f\x8b\x08 a gzip file":                           "does not begin like one",
		"wxproxy export 2\n{}\n\x00":                         "a newer wxproxy made it",
		begin + "{}":                                         "truncated",
		begin + "not JSON\n":                                 "header is damaged",
		begin + strings.Repeat("{", 5000) + "\n":             "header is too long",
		begin + strings.Repeat("{", 1<<20):                   "header is too long",
		begin + "{}\n\xff\xff\xff\xff\x0f":                   "too large",
		begin + "{}\n" + strings.Repeat("\xff", 20):          "too large",
		begin + "{}\n\x01a\xff\xff\xff\x7f":                  "too large",
		begin + "{}\n\x01b\x01x\x01a\x01x":                   "out of order",
		begin + "{}\n\x01b\x01x\x01b\x01x":                   "out of order",
		begin + "{}\n\x00\x05\x00" + strings.Repeat("s", 32): "checksum is wrong",
	} {
		_, _, _, err := readAll(strings.NewReader(text))
		if !errors.Is(err, archive.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got error %v, want ErrInvalid with %q", text, err, want)
		}
	}
}

func TestErrorsArePassedOn(t *testing.T) {
	b, broken := export(t, someRecords(), 0), errors.New("broken")
	r := io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(broken))
	if _, _, _, err := readAll(r); !errors.Is(err, broken) {
		t.Errorf("reader: got error %v, want its own", err)
	}
	n := 0
	_, _, err := archive.Read(t.Context(), bytes.NewReader(b), func(string, []byte) error {
		n++
		return broken
	})
	if !errors.Is(err, broken) || n != 1 {
		t.Errorf("yield: got error %v after %d records, want its own after 1", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = archive.Read(ctx, bytes.NewReader(b), func(string, []byte) error { return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("context: got error %v, want its own", err)
	}
}

func TestWriterRejects(t *testing.T) {
	w, err := archive.NewWriter(io.Discard, header)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Put("b", nil); err != nil {
		t.Error(err)
	}
	for key, size := range map[string]int{
		"a": 1, "b": 1, "": 1, "c": 4<<20 + 1, strings.Repeat("d", 4097): 1,
	} {
		if err := w.Put(key, make([]byte, size)); err == nil {
			t.Errorf("Put(%.20q, %d bytes): got no error", key, size)
		}
	}
}

// TestCreate: a file has its content as a whole or not at all, and mode 0600.
func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	for _, text := range []string{"one", "two"} {
		err := archive.Create(path, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Fatalf("got error %v, %v, %v, want mode 0600", err, statErr, info)
		}
	}
	broken := errors.New("broken")
	err := archive.Create(path, func(w io.Writer) error {
		io.WriteString(w, "three")
		return broken
	})
	got, _ := os.ReadFile(path)
	entries, _ := os.ReadDir(filepath.Dir(path))
	if !errors.Is(err, broken) || string(got) != "two" || len(entries) != 1 {
		t.Errorf("got error %v, %q, files %v, want the file as it was", err, got, entries)
	}
}

// FuzzRead reads any bytes. What is accepted is written again, and is read as
// the same; and memory does not grow with what is announced.
func FuzzRead(f *testing.F) {
	f.Add(export(f, map[string]string{"a": "one", "seal/check": "x"}, 1))
	f.Add(export(f, map[string]string{}, 0))
	f.Add([]byte("wxproxy export 1\n{}\n\x01a\xff\xff\x3f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, h, s, err := readAll(bytes.NewReader(b))
		if err != nil {
			return
		}
		var out bytes.Buffer
		w, err := archive.NewWriter(&out, h)
		for _, key := range slices.Sorted(maps.Keys(records)) {
			if err == nil {
				err = w.Put(key, []byte(records[key]))
			}
		}
		if err == nil {
			_, err = w.Close(s.Damaged)
		}
		if err != nil {
			t.Skip(err) // a year beyond 9999 in the header
		}
		again, _, s2, err := readAll(&out)
		if err != nil || s2 != s || !maps.Equal(again, records) {
			t.Errorf("written again: got %+v, error %v, want %+v", s2, err, s)
		}
	})
}
