package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// Stream reads the body of one answer of WeChat's, and is the stream of what is too large to be held.
type Stream struct {
	conn    *upstreamConn
	client  net.Conn // to the caller
	br      *bufio.Reader
	timeout time.Duration
	room    *Budget // for what is read ahead

	src    io.Reader // the rest of the body
	prefix []byte    // what was read to look for an errcode, sent first
	framed bool      // src tells by itself where the body ends, so the connection can serve again
	moved  int       // bytes to the client since its deadline was put off

	slow  *time.Timer // until it is read ahead; nil: the reading of src has not begun
	mu    sync.Mutex  // of what follows, and of src as long as it is not read ahead
	ahead *readAhead  // reads src; nil: the client is not slow yet
	over  bool        // src is not to be read any more

	done func(reusable bool) // gives the connection back
	once sync.Once           // for done

	// OnUpstreamDone is called when the connection is free, which may be long before the caller has everything, by
	// any goroutine. nil: nobody asks.
	OnUpstreamDone func()
	// OnDone is called when the stream is over. nil: nobody asks.
	OnDone func()
}

// progressBytes is how many bytes have to flow within the timeout; then the deadlines are put off.
const progressBytes = 64 << 10

// slowAfter is how long a client may take for a large answer before it is read ahead of him.
const slowAfter = 50 * time.Millisecond

var inspectBuffers = sync.Pool{New: func() any { b := make([]byte, 0, InspectLimit+1); return &b }}

// read takes in a body of n bytes (-1: chunked, -2: until the connection ends), or as much of it as is held, and
// makes it resp's. After an error the connection is still the caller's to close.
func (a *Stream) read(resp *fasthttp.Response, n int) error {
	switch {
	case n >= 0:
		a.src, a.framed = &io.LimitedReader{R: a.br, N: int64(n)}, true
	case n == -1:
		a.src, a.framed = &chunkedBody{r: httputil.NewChunkedReader(a.br), br: a.br}, true
	default:
		a.src = a.br
	}
	buf := inspectBuffers.Get().(*[]byte)
	defer inspectBuffers.Put(buf)
	b, err := readFull(a.src, (*buf)[:InspectLimit+1])
	switch {
	case errors.Is(err, io.EOF) && n < 0:
		a.release(a.framed)
		resp.Header.SetContentLength(len(b))
		resp.SetBody(b)
		return nil
	case err != nil:
		return err
	}
	a.prefix = bytes.Clone(b)
	size := n
	if n < 0 {
		size = -1
	}
	resp.SetBodyStream(a, size)
	return nil
}

// readFull reads until b is full, or to the end, which is io.EOF.
func readFull(r io.Reader, b []byte) ([]byte, error) {
	n := 0
	for n < len(b) {
		m, err := r.Read(b[n:])
		n += m
		if err != nil {
			return b[:n], err
		}
	}
	return b, nil
}

// BodyPrefix is the beginning of the body of resp, as far as it is at hand.
func BodyPrefix(resp *fasthttp.Response) []byte {
	if !resp.IsBodyStream() {
		if resp.SkipBody {
			return nil
		}
		return resp.Body()
	}
	if a, ok := resp.BodyStream().(*Stream); ok {
		return a.prefix
	}
	return nil
}

// Read gives the prefix first, then what comes from WeChat. As long as bytes flow, the deadlines
// of both connections move on; a transfer that stalls for the length of the timeout ends.
func (a *Stream) Read(p []byte) (int, error) {
	if len(a.prefix) > 0 {
		n := copy(p, a.prefix)
		a.prefix = a.prefix[n:]
		a.progress(n)
		return n, nil
	}
	if a.slow == nil {
		a.prefix = nil
		a.slow = time.AfterFunc(slowAfter, a.readAhead)
	}
	n, err := a.readOn(p)
	a.progress(n)
	return n, err
}

func (a *Stream) readOn(p []byte) (int, error) {
	a.mu.Lock()
	if ahead := a.ahead; ahead != nil {
		a.mu.Unlock()
		return ahead.Read(p)
	}
	defer a.mu.Unlock()
	a.extendDeadline()
	n, err := a.readRest(p)
	if err != nil {
		a.over = true
		a.release(err == io.EOF && a.framed)
	}
	return n, err
}

// readAhead makes the rest come faster than the client takes it. Clients that keep up are better off without: what is read and
// written at once is still in the processor's cache, and costs half as much.
func (a *Stream) readAhead() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.ahead = newReadAhead(a.readRest, a.room, a.extendDeadline, func(err error) { a.release(err == io.EOF && a.framed) })
	}
}

// progress puts the client's deadline off.
func (a *Stream) progress(n int) {
	if a.moved += n; a.moved >= progressBytes {
		a.moved = 0
		a.client.SetWriteDeadline(time.Now().Add(a.timeout))
	}
}

// extendDeadline puts WeChat's deadline off.
func (a *Stream) extendDeadline() { a.conn.extendDeadline(time.Now().Add(a.timeout), a.timeout) }

func (a *Stream) readRest(p []byte) (int, error) {
	n, err := a.src.Read(p)
	if err == io.EOF {
		if l, ok := a.src.(*io.LimitedReader); ok && l.N > 0 {
			err = io.ErrUnexpectedEOF // cut short: the caller must not take it for whole
		}
	}
	return n, err
}

// Close ends the stream; a connection with an unread rest is not used again.
func (a *Stream) Close() error {
	if a.slow != nil {
		a.slow.Stop()
	}
	a.mu.Lock()
	a.over = true
	ahead := a.ahead
	a.mu.Unlock()
	if ahead != nil {
		ahead.stop(func() { a.conn.SetDeadline(time.Unix(1, 0)) })
	} else {
		l, limited := a.src.(*io.LimitedReader)
		a.release(limited && l.N == 0)
	}
	if onDone := a.OnDone; onDone != nil {
		a.OnDone = nil
		onDone()
	}
	return nil
}

func (a *Stream) release(reusable bool) {
	a.once.Do(func() {
		a.done(reusable)
		if a.OnUpstreamDone != nil {
			a.OnUpstreamDone()
		}
	})
}

// chunkedBody is a chunked body with what stands behind the last chunk: httputil leaves trailers
// and the empty line to its caller. Trailers are dropped.
type chunkedBody struct {
	r    io.Reader
	br   *bufio.Reader
	over bool
}

func (c *chunkedBody) Read(p []byte) (int, error) {
	if c.over {
		return 0, io.EOF
	}
	n, err := c.r.Read(p)
	if err != io.EOF {
		return n, err
	}
	c.over = true
	for range 64 {
		line, lineErr := c.br.ReadSlice('\n')
		if lineErr != nil {
			return n, io.ErrUnexpectedEOF
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return n, io.EOF
		}
	}
	return n, errors.New("too many trailers")
}
