package redact_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"wxproxy/internal/redact"
)

// slowReader returns a random number of bytes at a time.
type slowReader struct {
	data []byte
	r    *rand.Rand
	err  error // at the end; nil: io.EOF
}

func (s *slowReader) Read(p []byte) (int, error) {
	if len(s.data) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 1+s.r.IntN(100))], s.data)
	s.data = s.data[n:]
	return n, nil
}

func readAll(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("got error %v, want none", err)
	}
	return string(b)
}

func gzipped(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.Bytes()
}

// TestStreamsAreMasked checks a token in a stream: each distance to the end of
// a window, and at random boundaries of reads, in three spellings.
func TestStreamsAreMasked(t *testing.T) {
	var v redact.Values
	v.Add(token)
	r := rand.New(rand.NewPCG(1, 2))
	const window = 32 << 10
	for _, spelling := range []string{
		token, strings.ReplaceAll(token, "_", "%255F"), encode(r, token, "unicode", 1),
	} {
		for before := window - 2*len(spelling); before < window+10; before++ {
			x, y := strings.Repeat("x", before), strings.Repeat("y", 1000)
			in, want := x+spelling+y, x+strings.Repeat("*", len(spelling))+y
			var src io.Reader = strings.NewReader(in)
			if before%64 == 0 {
				src = &slowReader{data: []byte(in), r: r}
			}
			found := 0
			got := readAll(t, redact.NewReader(src, v, func() { found++ }))
			if got != want || found != 1 {
				t.Fatalf("%d bytes and %.20s: got %d bytes, %d times found, want the token masked",
					before, spelling, len(got), found)
			}
		}
	}
}

// TestStreamsAreNotDelayed checks that what was read is delivered at once,
// except for the beginning of a credential or of an escape.
func TestStreamsAreNotDelayed(t *testing.T) {
	var v redact.Values
	v.Add(token)
	for in, want := range map[string]string{
		"abc":                      "abc",
		"abc" + token[:40]:         "abc",
		"abc%":                     "abc",
		"abc%zzzzzz":               "abc%zzzzzz",
		token:                      strings.Repeat("*", len(token)),
		"abc" + token[:40] + "\\u": "abc",
	} {
		src, w := io.Pipe()
		r := redact.NewReader(src, v, nil)
		go func() {
			io.WriteString(w, in)
			w.CloseWithError(io.ErrUnexpectedEOF)
		}()
		b := make([]byte, 1000)
		n, err := r.Read(b)
		if string(b[:n]) != want || err != nil {
			t.Errorf("%q: got %q, error %v, want %q at once", in, b[:n], err, want)
		}
		rest, err := io.ReadAll(r)
		masked, whole := want[0] == '*', string(b[:n])+string(rest) == in
		if !masked && !whole || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: got %q and error %v at the end, want the rest and %v",
				in, rest, err, io.ErrUnexpectedEOF)
		}
	}
}

// TestGzipStreams checks that a gzip stream with a token ends before it, and
// that any other passes as it is: without a token, damaged, no gzip at all,
// with members and with other data behind it.
func TestGzipStreams(t *testing.T) {
	var v redact.Values
	v.Add(token)
	r := rand.New(rand.NewPCG(1, 2))
	noise := encode(r, strings.Repeat("x", 200_000), "percent", 0.5)
	clean := gzipped(noise)
	escaped := strings.ReplaceAll(token, "_", `\u005f`)
	secret := gzipped(noise + token + noise)
	for name, c := range map[string]struct {
		in  []byte
		err error
	}{
		"clean":               {clean, nil},
		"members":             {append(bytes.Clone(clean), clean...), nil},
		"token":               {secret, redact.ErrFound},
		"token, second part":  {append(bytes.Clone(clean), secret...), redact.ErrFound},
		"escaped token":       {gzipped(noise + escaped), redact.ErrFound},
		"cut short":           {clean[:len(clean)/2], nil},
		"damaged":             {slices.Concat(clean[:5000], []byte("damaged"), clean[5000:]), nil},
		"something behind it": {append(bytes.Clone(clean), "and more"...), nil},
		"no gzip":             {[]byte("\x1f\x8bno gzip"), nil},
		"empty":               {nil, nil},
	} {
		found := 0
		src := &slowReader{data: c.in, r: r}
		got, err := io.ReadAll(redact.NewGzipReader(src, v, func() { found++ }))
		whole := err != nil || bytes.Equal(got, c.in)
		whole = whole && bytes.HasPrefix(c.in, got)
		if !errors.Is(err, c.err) || !whole || found == 1 != (c.err != nil) {
			t.Errorf("%s: got %d of %d bytes, error %v, found %d times, want error %v",
				name, len(got), len(c.in), err, found, c.err)
		}
		z, err := gzip.NewReader(bytes.NewReader(got))
		if err == nil {
			if plain, _ := io.ReadAll(z); bytes.Contains(plain, []byte(token)) {
				t.Errorf("%s: got the token", name)
			}
		}
	}
	// What follows compressed data is searched as it is.
	in := append(bytes.Clone(clean), token...)
	got := readAll(t, redact.NewGzipReader(bytes.NewReader(in), v, func() {}))
	if strings.Contains(got, token) {
		t.Errorf("token behind gzip data: got it, want it masked")
	}
	src := &slowReader{clean[:9000], r, io.ErrClosedPipe}
	if _, err := io.ReadAll(redact.NewGzipReader(src, v, nil)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("source that fails: got error %v, want %v", err, io.ErrClosedPipe)
	}
}

// emptyBlocks is gzip data that has no end and no contents.
type emptyBlocks struct{ read int }

func (e *emptyBlocks) Read(b []byte) (int, error) {
	const header, block = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff", "\x00\x00\x00\xff\xff"
	for i := range b {
		if at := e.read + i; at < len(header) {
			b[i] = header[at]
		} else {
			b[i] = block[(at-len(header))%len(block)]
		}
	}
	e.read += len(b)
	return len(b), nil
}

// Compressed data that decompresses to nothing cannot be searched, and is kept
// until it can. So there is a limit.
func TestGzipStreamWithoutContentsEnds(t *testing.T) {
	src := new(emptyBlocks)
	_, err := io.Copy(io.Discard, redact.NewGzipReader(src, redact.Values{}, func() {}))
	if err == nil || src.read > 1<<20 {
		t.Errorf("got error %v after %d bytes, want one within 1 MiB", err, src.read)
	}
}

// BenchmarkReader measures the search in streams.
func BenchmarkReader(b *testing.B) {
	var v redact.Values
	v.Add(token)
	text := strings.Repeat(`{"openid":"oABCDEFGHIJKLMNOPQRSTUVWXYZ"},`, 100_000)
	random := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	for name, data := range map[string][]byte{
		"media":   random,
		"text":    []byte(text),
		"gzip":    gzipped(text),
		"escapes": []byte(strings.Repeat(withEscapes, 50_000)),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if name == "gzip" {
					io.Copy(io.Discard, redact.NewGzipReader(bytes.NewReader(data), v, nil))
				} else {
					io.Copy(io.Discard, redact.NewReader(bytes.NewReader(data), v, nil))
				}
			}
		})
	}
}
