package transport

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

func filled(t *testing.T, src io.Reader, all *Budget) (a *readAhead, over chan error) {
	t.Helper()
	over = make(chan error, 1)
	a = newReadAhead(src.Read, all, func() {}, func(err error) { over <- err })
	t.Cleanup(func() { a.stop(func() {}) })
	return a, over
}

// settles waits until nothing more is read, and gives what is held.
func settles(a *readAhead) (chunks int) {
	for last, same := -1, 0; same < 20; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		chunks = len(a.chunks)
		a.mu.Unlock()
		if same++; chunks != last {
			last, same = chunks, 0
		}
	}
	return chunks
}

// All of it comes, in its order, whatever the pieces in which it is read and taken, and then its error.
func TestAheadWhole(t *testing.T) {
	broken := errors.New("broken")
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, readAheadChunk - 1, readAheadChunk, readAheadChunk + 1, 3<<20 + 7} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(r.Uint32())
		}
		for name, src := range map[string]func() io.Reader{
			"as it is":  func() io.Reader { return bytes.NewReader(want) },
			"by halves": func() io.Reader { return iotest.HalfReader(bytes.NewReader(want)) },
			"with EOF":  func() io.Reader { return iotest.DataErrReader(bytes.NewReader(want)) },
			"broken":    func() io.Reader { return io.MultiReader(bytes.NewReader(want), iotest.ErrReader(broken)) },
		} {
			all := newBudget()
			a, over := filled(t, src(), all)
			got, err := io.ReadAll(iotest.HalfReader(a))
			if !bytes.Equal(got, want) || (err != nil) != (name == "broken") || err != nil && err != broken {
				t.Fatalf("%d bytes, %s: %d bytes and %v", size, name, len(got), err)
			}
			if err := <-over; err != io.EOF && err != broken {
				t.Errorf("%v", err)
			}
			if n := all.Used(); n != 0 {
				t.Errorf("%d bytes, %s: %d bytes are held", size, name, n)
			}
		}
	}
}

// What nobody takes is bounded, and what is taken makes room.
func TestAheadBounds(t *testing.T) {
	all := newBudget()
	var read atomic.Int64
	endless := readerFunc(func(p []byte) (int, error) { read.Add(int64(len(p))); return len(p), nil })
	a, over := filled(t, endless, all)
	if n := settles(a) * readAheadChunk; n != maxReadAhead || all.Used() != maxReadAhead {
		t.Errorf("%d bytes are read ahead, and %d count", n, all.Used())
	}
	if _, err := io.CopyN(io.Discard, a, 1<<20); err != nil {
		t.Fatal(err)
	}
	if n := settles(a) * readAheadChunk; n != maxReadAhead || read.Load() != maxReadAhead+1<<20 {
		t.Errorf("%d bytes are read ahead, of %d", n, read.Load())
	}
	// Others find less room, down to none, and flow all the same.
	all.used.Store(ReadAheadLimit - 2*readAheadChunk)
	b, overB := filled(t, endless, all)
	if n := settles(b); n != 2 {
		t.Errorf("%d chunks are read ahead with room for 2", n)
	}
	c, overC := filled(t, endless, all)
	if n := settles(c); n != 1 {
		t.Errorf("%d chunks are read ahead without room", n)
	}
	for _, r := range []*readAhead{b, c} {
		if n, err := io.CopyN(io.Discard, r, 10<<20); err != nil {
			t.Fatal(n, err)
		}
	}
	for _, r := range []*readAhead{b, c, a} {
		r.stop(func() {})
		r.stop(func() {})
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes after the end, %v", n, err)
		}
	}
	for _, over := range []chan error{over, overB, overC} {
		if err := <-over; err != errStopped {
			t.Error(err)
		}
	}
	if n := all.Used(); n != ReadAheadLimit-2*readAheadChunk-maxReadAhead {
		t.Errorf("%d bytes are still held", n-(ReadAheadLimit-2*readAheadChunk-maxReadAhead))
	}
}

// A read that is under way when nobody wants it any more is interrupted.
func TestAheadInterrupted(t *testing.T) {
	r, w := io.Pipe()
	all := newBudget()
	a, over := filled(t, r, all)
	w.Write([]byte("something"))
	settles(a)
	a.stop(func() { r.Close() })
	if err := <-over; err != errStopped {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func newBudget() *Budget {
	b := new(Budget)
	b.SetLimit(ReadAheadLimit)
	return b
}
