package transport

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// MaxCoalesced is the size up to which the body of a request should be part
	// of [Request.Head], bytes, head included. Such a request is sent with one
	// system call, as part of starting to wait for the response.
	MaxCoalesced = 8 << 10
	// InspectLimit is the number of bytes of a response that are buffered. Up
	// to this size the whole body is, so that its errcode can be read. A
	// larger one is a [Stream], of which [BodyPrefix] returns this much.
	InspectLimit = 64 << 10
	// maxInterim bounds the 1xx responses before the final one.
	maxInterim = 8
)

// Request is one request to WeChat. All fields but Body are required.
type Request struct {
	Head   []byte // request line, headers, empty line, and a short body; see MaxCoalesced
	Body   []byte // a body that is not part of Head
	IsHead bool   // the method is HEAD, so the response has no body

	// Client is the connection that a large response is written to. Its write
	// deadline is extended while that makes progress.
	Client net.Conn
	// Timeout is how long a large response may make no progress, on either
	// connection.
	Timeout time.Duration
	// Now is the current time. The proxy has read the clock already, and
	// reading it again would cost a measurable part of a request.
	Now time.Time
	// Deadline is when Exchange has to return. The body of a large response can
	// take longer.
	Deadline time.Time
}

// Exchange sends a request and reads the response into resp. The body of a
// large response is a [Stream]. The error is ErrUnreachable if nothing was
// sent, and ErrBroken or ErrTimeout if WeChat may have executed the request.
// Nothing is ever sent twice.
//
// A connection that is not fit is replaced, since nothing was sent. All idle
// ones may be unfit, because WeChat closes many at once. New ones are bounded
// by maxUnfitDials.
//
// r and its buffers can be used again when Exchange returns.
func (u *Upstream) Exchange(r *Request, resp *fasthttp.Response) error {
	// fasthttp does not export the type of cc. So it cannot be passed to a
	// function, and what needs it is in this one.
	unfitDials := 0
	for now := r.Now; ; now = time.Now() {
		left := r.Deadline.Sub(now)
		if left <= 0 { // fasthttp would take it for no limit
			return dialError(fasthttp.ErrTimeout)
		}
		cc, err := u.pool.AcquireConn(left, false)
		if err != nil {
			return dialError(err)
		}
		conn := cc.Conn().(*upstreamConn)
		isNew := !conn.used
		br := u.pool.AcquireReader(conn)
		err = conn.exchangeHeads(r, br, resp)
		if conn.unfit {
			u.pool.ReleaseReader(br)
			u.pool.CloseConn(cc)
			if isNew {
				unfitDials++
			}
			if unfitDials == maxUnfitDials {
				return fmt.Errorf("%w: %w", ErrUnreachable, errUnfitDials)
			}
			continue
		}
		reusable := false
		switch {
		case err != nil:
			// Returned below.
		case isStreamed(r, resp):
			// Copies for the closure. If it captured cc itself, every request
			// would pay an allocation for cc.
			cc, reusable := cc, !resp.Header.ConnectionClose()
			return u.stream(r, resp, conn, br, func(wholeBody bool) {
				// Bytes after a response would be taken for the next one.
				reusable := reusable && wholeBody && br.Buffered() == 0
				u.pool.ReleaseReader(br)
				if reusable {
					u.pool.ReleaseConn(cc)
				} else {
					u.pool.CloseConn(cc)
				}
			})
		default:
			reusable, err = readShortBody(r, br, resp)
		}
		u.pool.ReleaseReader(br)
		if reusable {
			u.pool.ReleaseConn(cc)
			return nil
		}
		u.pool.CloseConn(cc)
		if err != nil {
			return transferError(err)
		}
		return nil
	}
}

// exchangeHeads sends the request and reads the header of the response. If
// nothing was sent because the connection is not fit, it sets unfit.
func (c *upstreamConn) exchangeHeads(r *Request, br *bufio.Reader, resp *fasthttp.Response) error {
	if err := c.send(r); err != nil {
		return err
	}
	return readHeader(br, resp)
}

// readHeader reads the header of the final response.
func readHeader(br *bufio.Reader, resp *fasthttp.Response) error {
	for range maxInterim {
		if err := resp.Header.Read(br); err != nil {
			return err
		}
		if s := resp.Header.StatusCode(); s >= 200 || s == http.StatusSwitchingProtocols {
			return nil
		}
	}
	return errInterim
}

// hasNoBody reports whether HTTP allows the response no body.
func hasNoBody(r *Request, resp *fasthttp.Response) bool {
	status := resp.StatusCode()
	return r.IsHead || status == http.StatusNoContent || status == http.StatusNotModified || status < 200
}

// isStreamed reports whether the body is not known to be short. Nearly all are.
func isStreamed(r *Request, resp *fasthttp.Response) bool {
	n := resp.Header.ContentLength() // negative: see Stream.read
	return !hasNoBody(r, resp) && (n < 0 || n > InspectLimit)
}

// readShortBody reads a body of known length, or none, and reports whether the
// connection can be used again.
func readShortBody(r *Request, br *bufio.Reader, resp *fasthttp.Response) (reusable bool, err error) {
	if hasNoBody(r, resp) {
		// A server that sends a body nevertheless, at any time later, would
		// have it taken for the next response.
		resp.SkipBody = true
		return false, nil
	}
	reusable = !resp.Header.ConnectionClose()
	if err := resp.ReadBody(br, InspectLimit); err != nil {
		return false, err
	}
	// Bytes after a response would be taken for the next one.
	return reusable && br.Buffered() == 0, nil
}

// stream reads the beginning of a long body. The rest is read while resp is
// written. done gets the connection back, here after an error.
func (u *Upstream) stream(
	r *Request, resp *fasthttp.Response, conn *upstreamConn, br *bufio.Reader, done func(wholeBody bool),
) error {
	s := &Stream{conn: conn, client: r.Client, br: br, timeout: r.Timeout, memory: u.readAhead, done: done}
	if err := s.read(resp); err != nil {
		done(false)
		return transferError(err)
	}
	return nil
}
