package redact

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"sync"
)

// window is how much of a stream is searched at a time, bytes.
const window = 32 << 10

// lookback is how much of what was delivered is searched again, bytes, since it
// can look like an escape that takes the beginning of a credential.
const lookback = 1 << 10

var windows = sync.Pool{New: func() any { return new([window]byte) }}

// A decompressor has up to a window of data ready at a time (the history of
// deflate). All of it has to fit behind what is kept: what it holds back was
// not searched, but its raw data was taken.
var gzipWindows = sync.Pool{New: func() any { return new([2 * window]byte) }}

// ErrFound ends a compressed stream that contains a credential.
var ErrFound = errors.New("response contains a credential")

// Reader reads a stream and overwrites known credentials with asterisks, so
// that its length stays the same. Bytes that can be the beginning of a
// credential are held back until it is clear that they are not: half a window
// at most, so a credential that takes more room in the stream, because of its
// escapes, can pass.
//
// A Reader is used by one goroutine.
type Reader struct {
	src    io.Reader
	values Values
	found  func() // called once, when a credential is found

	buf    *[window]byte // nil at the end
	pos    int           // what is before was delivered
	ready  int           // what is before was searched and can be delivered
	filled int           // what is before was read
	err    error         // of src; returned after all data
}

// NewReader returns a Reader of src, which calls found if it masks something.
func NewReader(src io.Reader, values Values, found func()) *Reader {
	return &Reader{src: src, values: values, found: found, buf: windows.Get().(*[window]byte)}
}

// Read implements [io.Reader].
func (r *Reader) Read(p []byte) (int, error) {
	for r.pos == r.ready {
		if r.err != nil {
			if r.buf != nil {
				windows.Put(r.buf)
				r.buf = nil
			}
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.buf[r.pos:r.ready])
	r.pos += n
	return n, nil
}

// fill reads and searches more.
func (r *Reader) fill() {
	from := max(0, r.ready-lookback)
	kept := copy(r.buf[:], r.buf[from:r.filled])
	n, err := r.src.Read(r.buf[kept:])
	r.pos, r.filled, r.err = r.ready-from, kept+n, err
	found, ready := r.values.star(r.buf[:r.filled], err != nil)
	r.ready = max(ready, r.pos)
	if found && r.found != nil {
		r.found()
		r.found = nil
	}
}

// star overwrites the credentials in b, which is a part of a stream. It returns
// how many bytes of b the next part cannot change: all of the last one.
func (v *Values) star(b []byte, last bool) (found bool, ready int) {
	s := scanners.Get().(*scanner)
	defer s.release()
	s.text.reset(b)
	v.findAll(&s.text, func(from, to int) {
		found = true
		star(b[from:to])
	})
	if last {
		return found, len(b)
	}
	if ready = v.unfinished(&s.text); len(b)-ready > window/2 {
		ready = len(b)
	}
	return found, ready
}

// unfinished returns where in the document of t a credential may begin that
// does not end in it, and the length of the document if there is no such place.
func (v *Values) unfinished(t *text) int {
	// An escape can be cut in two. What is before it is compared.
	end := len(t.plain)
	for i := end - 1; i >= 0 && i > end-maxEscape; i-- {
		if i+escapeLength[t.plain[i]] > end {
			end = i
		}
	}
	first := end
	for _, value := range v.all[:v.n] {
		for i := max(0, end-len(value)+1); i < first; i++ {
			begun := unsafeString(t.plain[i:end])
			if hasPrefix(value, begun) || hasPrefix(value[swallowed:], begun) {
				first = i
			}
		}
	}
	if first == len(t.plain) {
		return len(t.src)
	}
	var c cursor
	from, _ := c.span(t, first)
	return from
}

// hasPrefix is strings.HasPrefix for a prefix that rarely fits.
func hasPrefix(s, prefix string) bool {
	return len(prefix) <= len(s) && s[0] == prefix[0] && s[:len(prefix)] == prefix
}

// GzipReader reads a stream of gzip data and passes it on as it is, as long as
// what it decompresses to has no known credential. Otherwise it ends with
// ErrFound before the data that completes the credential. Data that is no gzip,
// or follows it, is passed on as by [Reader].
//
// A GzipReader is used by one goroutine.
type GzipReader struct {
	src    rawReader
	z      *gzip.Reader
	values Values
	found  func()

	plain  *[2 * window]byte // decompressed data
	kept   int               // how much of it is searched again with what follows
	ready  []byte            // raw data that can be delivered
	err    error
	onward *Reader // takes over from z
}

// NewGzipReader returns a GzipReader of src, which calls found if it finds a
// credential.
func NewGzipReader(src io.Reader, values Values, found func()) *GzipReader {
	return &GzipReader{src: rawReader{src: src}, values: values, found: found}
}

// Read implements [io.Reader].
func (r *GzipReader) Read(p []byte) (int, error) {
	for len(r.ready) == 0 {
		switch {
		case r.onward != nil:
			return r.onward.Read(p)
		case r.err != nil:
			if r.plain != nil {
				gzipWindows.Put(r.plain)
				r.plain = nil
			}
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// fill decompresses and searches more.
func (r *GzipReader) fill() {
	var err error
	if r.z == nil {
		r.plain = gzipWindows.Get().(*[2 * window]byte)
		r.z, err = gzip.NewReader(&r.src)
	}
	n := 0
	if err == nil {
		n, err = r.z.Read(r.plain[r.kept:])
	}
	b := r.plain[:r.kept+n]
	found, ready := r.values.star(b, err != nil)
	switch {
	case found:
		r.err = ErrFound
		r.found()
		return
	case err == io.EOF, err != nil && r.src.err != nil && r.src.err != io.EOF:
		r.ready, r.err = r.src.take(), err
	case err != nil:
		r.src.forget = true
		rest := io.MultiReader(bytes.NewReader(r.src.take()), &r.src)
		r.onward = NewReader(rest, r.values, r.found)
	case ready == len(b):
		r.ready = r.src.take()
	}
	r.kept = copy(r.plain[:], b[max(0, ready-lookback):])
}

// maxTaken bounds compressed data that decompresses to nothing, bytes.
const maxTaken = 256 << 10

var errNoProgress = errors.New("compressed data without contents")

// rawReader is a reader that remembers what was read from it. It reads ahead,
// but hands out single bytes, as the decompressor wants them.
type rawReader struct {
	src    io.Reader
	ahead  [4096]byte
	pos    int // what is before was read
	end    int
	err    error  // of src
	taken  []byte // what was read since the last take
	given  []byte // what the last take returned; its memory is used again
	forget bool   // taken is not needed any more
}

// ReadByte implements [io.ByteReader].
func (r *rawReader) ReadByte() (byte, error) {
	if r.pos == r.end {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	ch := r.ahead[r.pos]
	r.pos++
	r.taken = append(r.taken, ch)
	return ch, nil
}

// Read implements [io.Reader].
func (r *rawReader) Read(p []byte) (int, error) {
	if r.pos == r.end {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.ahead[r.pos:r.end])
	r.pos += n
	if !r.forget {
		r.taken = append(r.taken, p[:n]...)
	}
	return n, nil
}

// fill reads ahead until there is a byte or an error.
func (r *rawReader) fill() error {
	if len(r.taken) > maxTaken && !r.forget && r.err == nil {
		r.err = errNoProgress
	}
	r.pos, r.end = 0, 0
	for r.end == 0 && r.err == nil {
		r.end, r.err = r.src.Read(r.ahead[:])
	}
	if r.end > 0 {
		return nil
	}
	return r.err
}

// take returns what was read since the last call. The result is valid until the
// next call.
func (r *rawReader) take() []byte {
	r.taken, r.given = r.given[:0], r.taken
	return r.given
}
