package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http/httputil"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/wechat"
)

// answerBody reads the body of one answer of WeChat's, and is the stream of what is too large to be held.
type answerBody struct {
	conn    *upstreamConn
	client  net.Conn // to the caller
	br      *bufio.Reader
	timeout time.Duration

	src    io.Reader // the rest of the body
	prefix []byte    // what was read to look for an errcode, sent first
	moved  int       // bytes since the deadlines were put off
	framed bool      // src tells by itself where the body ends, so the connection can serve again
	whole  bool      // src has been read to its end

	done  func(reusable bool)
	ended func() // when the stream is over: reports the call
	once  sync.Once
}

// stall is how many bytes have to flow within the timeout; then the deadlines are put off.
const stall = 64 << 10

var peekBuffers = sync.Pool{New: func() any { b := make([]byte, 0, peekSize+1); return &b }}

// read takes in a body of n bytes (-1: chunked, -2: until the connection ends), or as much of it as is held, and
// makes it resp's. After an error the connection is still the caller's to close.
func (a *answerBody) read(resp *fasthttp.Response, n int) error {
	switch {
	case n >= 0:
		a.src, a.framed = &io.LimitedReader{R: a.br, N: int64(n)}, true
	case n == -1:
		a.src, a.framed = &chunkedBody{r: httputil.NewChunkedReader(a.br), br: a.br}, true
	default:
		a.src = a.br
	}
	buf := peekBuffers.Get().(*[]byte)
	defer peekBuffers.Put(buf)
	b, err := readFull(a.src, (*buf)[:peekSize+1])
	switch {
	case errors.Is(err, io.EOF) && n < 0:
		a.whole = true
		a.finish(a.framed)
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

// head is the beginning of the body of resp, as far as it is at hand.
func answerHead(resp *fasthttp.Response) []byte {
	if !resp.IsBodyStream() {
		if resp.SkipBody {
			return nil
		}
		return resp.Body()
	}
	if a, ok := resp.BodyStream().(*answerBody); ok {
		return a.prefix
	}
	return nil
}

// Read gives the prefix first, then what comes from WeChat. As long as bytes flow, the deadlines
// of both connections move on; a transfer that stalls for the length of the timeout ends.
func (a *answerBody) Read(p []byte) (int, error) {
	if len(a.prefix) > 0 {
		n := copy(p, a.prefix)
		if a.prefix = a.prefix[n:]; len(a.prefix) == 0 {
			a.prefix = nil
			a.extend()
		}
		return n, nil
	}
	n, err := a.src.Read(p)
	if a.moved += n; a.moved >= stall {
		a.extend()
	}
	if err == io.EOF {
		if l, ok := a.src.(*io.LimitedReader); ok && l.N > 0 {
			return n, io.ErrUnexpectedEOF // cut short: the caller must not take it for whole
		}
		a.whole = true
	}
	return n, err
}

func (a *answerBody) extend() {
	a.moved = 0
	deadline := time.Now().Add(a.timeout)
	a.conn.within(deadline, a.timeout)
	a.client.SetWriteDeadline(deadline)
}

// Close ends the stream; a connection with an unread rest is not used again.
func (a *answerBody) Close() error {
	l, limited := a.src.(*io.LimitedReader)
	a.finish(a.framed && (a.whole || limited && l.N == 0))
	return nil
}

func (a *answerBody) finish(reusable bool) {
	a.once.Do(func() {
		a.done(reusable)
		if a.ended != nil {
			a.ended()
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

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	gzipMagic   = []byte{0x1f, 0x8b}
)

// errcodeOf finds the top-level errcode of an answer, compressed or not, 0 where there is none; and says whether the
// answer shows a credential of ours.
func (c *call) errcodeOf(resp *fasthttp.Response) (code int, echo bool) {
	b := answerHead(resp)
	if bytes.HasPrefix(b, gzipMagic) {
		buf := peekBuffers.Get().(*[]byte)
		defer peekBuffers.Put(buf)
		b = unzipHead((*buf)[:peekSize], b)
	}
	return wechat.FindErrCode(b), c.echoes(b)
}

// unzipHead undoes as much of the compression as there is room for in buf.
func unzipHead(buf, b []byte) []byte {
	z := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(z)
	if z.Reset(bytes.NewReader(b)) != nil {
		return nil
	}
	// A prefix of an answer ends in the middle: what could be read is what counts.
	plain, _ := readFull(z, buf)
	return plain
}
