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

// newReadAheadBudget returns a budget as proxies have it.
func newReadAheadBudget() *Budget {
	b := new(Budget)
	b.SetLimit(ReadAheadLimit)
	return b
}

// startReadAhead starts to read src. done gets the error with which that ends.
func startReadAhead(t *testing.T, src io.Reader, budget *Budget) (a *readAhead, done chan error) {
	t.Helper()
	done = make(chan error, 1)
	a = newReadAhead(src.Read, budget.NewShare(), func() {}, func(err error) { done <- err })
	t.Cleanup(func() { a.stop(func() {}) })
	return a, done
}

// waitForChunks waits until there are n chunks, and a moment longer, to see that
// there are not more.
func waitForChunks(t *testing.T, a *readAhead, n int) {
	t.Helper()
	chunks := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.chunks)
	}
	for end := time.Now().Add(testTimeout); chunks() < n && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if got := chunks(); got != n {
		t.Errorf("got %d chunks read ahead, want %d", got, n)
	}
}

// All data arrives in order, in whatever pieces it is read from the source and
// from the buffer, and then the source's error.
func TestReadAheadReturnsEverything(t *testing.T) {
	broken := errors.New("broken")
	r := rand.New(rand.NewPCG(1, 2))
	const chunk = readAheadChunk
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 3<<20 + 7} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(r.Uint32())
		}
		for name, c := range map[string]struct {
			src io.Reader
			end error // of the source
		}{
			"plain":         {bytes.NewReader(want), io.EOF},
			"half reads":    {iotest.HalfReader(bytes.NewReader(want)), io.EOF},
			"EOF with data": {iotest.DataErrReader(bytes.NewReader(want)), io.EOF},
			"broken":        {io.MultiReader(bytes.NewReader(want), iotest.ErrReader(broken)), broken},
		} {
			budget := newReadAheadBudget()
			a, done := startReadAhead(t, c.src, budget)
			got, err := io.ReadAll(iotest.HalfReader(a))
			if err == nil {
				err = io.EOF // which ReadAll does not return
			}
			if !bytes.Equal(got, want) || err != c.end {
				t.Fatalf("%d bytes, %s: got %d bytes, %v, want %v",
					size, name, len(got), err, c.end)
			}
			if err := <-done; err != c.end {
				t.Errorf("%d bytes, %s: done got %v, want %v", size, name, err, c.end)
			}
			if n := budget.Used(); n != 0 {
				t.Errorf("%d bytes, %s: got %d bytes in use at the end, want 0", size, name, n)
			}
		}
	}
}

// What is buffered is bounded, for one stream and for all together. What is read
// makes room for more, and a stream for which there is no room goes on.
func TestReadAheadBounds(t *testing.T) {
	budget := newReadAheadBudget()
	var read atomic.Int64
	endless := readerFunc(func(p []byte) (int, error) { read.Add(int64(len(p))); return len(p), nil })
	a, doneA := startReadAhead(t, endless, budget)
	waitForChunks(t, a, maxReadAhead/readAheadChunk)
	if n := budget.Used(); n != maxReadAhead {
		t.Errorf("got %d bytes of the budget in use, want %d", n, maxReadAhead)
	}
	if _, err := io.CopyN(io.Discard, a, 1<<20); err != nil {
		t.Fatal(err)
	}
	waitForChunks(t, a, maxReadAhead/readAheadChunk)
	if n := read.Load(); n != maxReadAhead+1<<20 {
		t.Errorf("got %d bytes read from the source, want %d", n, maxReadAhead+1<<20)
	}

	const others = ReadAheadLimit - 2*readAheadChunk
	budget.used.Store(others)
	b, doneB := startReadAhead(t, endless, budget)
	waitForChunks(t, b, 2) // there is room for two
	c, doneC := startReadAhead(t, endless, budget)
	waitForChunks(t, c, 1) // there is none
	for _, r := range []*readAhead{b, c} {
		if n, err := io.CopyN(io.Discard, r, 10<<20); err != nil {
			t.Fatalf("stream without room: got %d bytes, %v", n, err)
		}
	}

	for _, r := range []*readAhead{b, c, a} {
		r.stop(func() {})
		r.stop(func() {}) // does nothing
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != errStopped {
			t.Errorf("Read after stop: got %d bytes, %v, want %v", n, err, errStopped)
		}
	}
	for _, done := range []chan error{doneA, doneB, doneC} {
		if err := <-done; err != errStopped {
			t.Errorf("done got %v, want %v", err, errStopped)
		}
	}
	if n, want := budget.Used(), int64(others-maxReadAhead); n != want {
		t.Errorf("got %d bytes of the budget in use at the end, want %d", n, want)
	}
}

// A read that is in progress when the stream is closed is interrupted.
func TestReadAheadStopInterruptsRead(t *testing.T) {
	r, w := io.Pipe()
	a, done := startReadAhead(t, r, newReadAheadBudget())
	w.Write([]byte("something"))
	waitForChunks(t, a, 1)
	a.stop(func() { r.Close() })
	if err := <-done; err != errStopped {
		t.Errorf("done got %v, want %v", err, errStopped)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
