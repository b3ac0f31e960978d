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

const (
	// progressBytes is the number of bytes that have to reach the client within
	// the timeout. Then its deadline is extended.
	progressBytes = 64 << 10
	// slowAfter is how long a client can take for a response before the rest is
	// read ahead.
	slowAfter = 50 * time.Millisecond
)

// Stream is the body of a large response from WeChat. It is read while the
// response is written to the client, by the same goroutine (the reader).
//
// A client that is slower than WeChat would occupy the connection to WeChat for
// as long as it likes. So when the reader has not finished after slowAfter, a
// goroutine of its own (see readAhead) reads the rest into memory, and the
// connection is free as soon as WeChat has sent everything. A fast client is
// better off without: what is read and written at once is still in the CPU's
// cache, which halves the cost.
//
// Three goroutines meet here: the reader in Read and Close, the timer in
// startReadAhead, and the one that reads ahead. mu decides which of them reads
// src: the reader while ahead is nil, the goroutine of ahead from then on.
type Stream struct {
	// ReadAhead is what the memory for reading ahead counts against. Set it before
	// the first Read. nil: a share of its own, of the upstream's budget.
	ReadAhead *Share
	// OnUpstreamDone is called once, when the connection to WeChat is no longer
	// used. That can be long before the client has everything, and on another
	// goroutine. Set it before the first Read. nil: ignored.
	OnUpstreamDone func()
	// OnDone is called once, by Close. nil: ignored.
	OnDone func()

	conn    *upstreamConn
	client  net.Conn // the response is written to it
	br      *bufio.Reader
	timeout time.Duration
	memory  *Budget // for what is read ahead, see ReadAhead

	src       io.Reader // the body, from br
	delimited bool      // src knows where the body ends, so the connection can be used again
	prefix    []byte    // the inspected beginning, which was taken from src and is delivered first
	filtered  io.Reader // what is delivered in place of src; nil: src
	end       time.Time // when the body must have arrived; zero: no limit
	delivered int       // bytes since the client's deadline was extended
	slow      *time.Timer

	mu     sync.Mutex
	ahead  *readAhead // nil: the client is not slow so far
	noMore bool       // src must not be read any more

	done     func(wholeBody bool) // gives the connection back
	doneOnce sync.Once
}

var inspectBuffers = sync.Pool{New: func() any { b := make([]byte, 0, InspectLimit+1); return &b }}

// read reads the beginning of the body and makes the stream the body of resp. A
// body of unknown length that turns out to be short becomes a plain body. After
// an error done has not been called.
func (s *Stream) read(resp *fasthttp.Response) error {
	// fasthttp has negative lengths for unknown ones: -1 for a chunked body, -2
	// for one that ends with the connection.
	n := resp.Header.ContentLength()
	switch {
	case n >= 0:
		s.src, s.delimited = &io.LimitedReader{R: s.br, N: int64(n)}, true
	case n == -1:
		s.src, s.delimited = &chunkedBody{r: httputil.NewChunkedReader(s.br), br: s.br}, true
	default:
		s.src = s.br
	}
	buf := inspectBuffers.Get().(*[]byte)
	defer inspectBuffers.Put(buf)
	b, err := readFull(s.src, (*buf)[:InspectLimit+1])
	switch {
	case errors.Is(err, io.EOF) && n < 0:
		s.releaseUpstream(s.delimited)
		resp.Header.SetContentLength(len(b))
		resp.SetBody(b)
		return nil
	case err != nil:
		return err
	}
	s.prefix = bytes.Clone(b)
	resp.SetBodyStream(s, max(n, -1))
	return nil
}

// readFull reads until b is full. Its error is the reader's, unlike that of
// io.ReadFull: io.EOF always means that the end was reached.
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

// BodyPrefix returns the beginning of the body of a response that
// [Upstream.Exchange] has read: all of a short body, or more than InspectLimit
// bytes of a Stream. It must be called before the Stream is read.
func BodyPrefix(resp *fasthttp.Response) []byte {
	switch s, streamed := resp.BodyStream().(*Stream); {
	case streamed:
		return s.prefix
	case resp.IsBodyStream(), resp.SkipBody:
		return nil
	}
	return resp.Body()
}

// Filter makes the stream deliver what filter reads from the body. Call it
// before the first Read.
func (s *Stream) Filter(filter func(body io.Reader) io.Reader) {
	s.filtered = filter(unfiltered{s})
}

// unfiltered reads the body of a stream past its filter.
type unfiltered struct{ *Stream }

func (u unfiltered) Read(p []byte) (int, error) { return u.readBody(p) }

// Read implements [io.Reader]. While bytes flow, it extends the deadlines of both
// connections. A transfer that stalls for the timeout fails.
func (s *Stream) Read(p []byte) (int, error) {
	if s.filtered != nil {
		return s.filtered.Read(p)
	}
	return s.readBody(p)
}

// readBody reads the prefix and what follows it.
func (s *Stream) readBody(p []byte) (int, error) {
	if len(s.prefix) > 0 {
		n := copy(p, s.prefix)
		s.prefix = s.prefix[n:]
		s.progress(n)
		return n, nil
	}
	if s.slow == nil {
		s.prefix = nil
		s.slow = time.AfterFunc(slowAfter, s.startReadAhead)
	}
	n, err := s.readRest(p)
	s.progress(n)
	return n, err
}

// readRest reads what follows the prefix.
func (s *Stream) readRest(p []byte) (int, error) {
	s.mu.Lock()
	if ahead := s.ahead; ahead != nil {
		s.mu.Unlock()
		return ahead.Read(p)
	}
	// mu is held while WeChat is waited for, so that reading ahead does not begin
	// in the middle of a read.
	defer s.mu.Unlock()
	s.extendUpstreamDeadline()
	n, err := s.readSrc(p)
	if err != nil {
		s.noMore = true
		s.releaseUpstream(err == io.EOF && s.delimited)
	}
	return n, err
}

// startReadAhead is called by the timer. The reader may be in readSrc; then this
// waits. Usually it is not: it waits for the client.
func (s *Stream) startReadAhead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noMore { // the end was reached meanwhile, or the stream closed
		return
	}
	share := s.ReadAhead
	if share == nil {
		share = s.memory.NewShare()
	}
	s.ahead = newReadAhead(s.readSrc, share, s.extendUpstreamDeadline, func(err error) {
		s.releaseUpstream(err == io.EOF && s.delimited)
	})
}

// progress extends the client's deadline when enough bytes were delivered since
// the last time.
func (s *Stream) progress(n int) {
	if s.delivered += n; s.delivered >= progressBytes {
		s.delivered = 0
		s.client.SetWriteDeadline(time.Now().Add(s.timeout))
	}
}

func (s *Stream) extendUpstreamDeadline() {
	deadline := time.Now().Add(s.timeout)
	if !s.end.IsZero() && deadline.After(s.end) {
		deadline = s.end
	}
	s.conn.extendDeadline(deadline, s.timeout)
}

// readSrc reads from WeChat. A body that is cut short ends with
// io.ErrUnexpectedEOF, so that the client does not take it for the whole.
func (s *Stream) readSrc(p []byte) (int, error) {
	n, err := s.src.Read(p)
	if err == io.EOF {
		if l, ok := s.src.(*io.LimitedReader); ok && l.N > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// Close ends the stream, whether or not all of it was read. If WeChat has not
// sent everything, the connection is closed.
func (s *Stream) Close() error {
	if s.slow != nil {
		// Stop does not wait for startReadAhead if that has begun; noMore keeps
		// it from doing anything then.
		s.slow.Stop()
	}
	s.mu.Lock()
	s.noMore = true
	ahead := s.ahead
	s.mu.Unlock()
	if ahead != nil {
		// The goroutine of ahead gives the connection back.
		ahead.stop(func() { s.conn.SetDeadline(time.Unix(1, 0)) })
	} else {
		l, limited := s.src.(*io.LimitedReader)
		s.releaseUpstream(limited && l.N == 0)
	}
	if onDone := s.OnDone; onDone != nil {
		s.OnDone = nil
		onDone()
	}
	return nil
}

// releaseUpstream gives the connection to WeChat back, the first time that it is
// called.
func (s *Stream) releaseUpstream(wholeBody bool) {
	s.doneOnce.Do(func() {
		s.done(wholeBody)
		if s.OnUpstreamDone != nil {
			s.OnUpstreamDone()
		}
	})
}
