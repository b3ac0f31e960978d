package transport

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

// ErrResponseBudget is returned by [ReadWhole] if the responses of other
// requests take all memory that there is for whole responses.
var ErrResponseBudget = errors.New("no memory for the response")

// heldBody is the body of a large response that is in memory, until the client
// has it.
type heldBody struct {
	left      []byte // what was not read
	memory    Reservation
	client    net.Conn
	timeout   time.Duration
	delivered int // bytes since the client's deadline was extended
}

// HoldBody makes body the body of resp. memory, which the caller must not use
// any more, is released when the client has the body, or is disconnected.
// client is its connection, whose deadline is extended while it reads: it can
// stall for timeout. A body without memory is set as it is.
func HoldBody(
	resp *fasthttp.Response, body []byte, memory Reservation, client net.Conn, timeout time.Duration,
) {
	if memory.Size() == 0 {
		resp.SwapBody(body)
		return
	}
	memory.Resize(min(memory.Size(), cap(body))) // a copy is not needed any more
	resp.SwapBody(nil)                           // it would keep the body
	h := &heldBody{left: body, memory: memory, client: client, timeout: timeout}
	resp.SetBodyStream(h, len(body))
}

// Read implements [io.Reader].
func (h *heldBody) Read(p []byte) (int, error) {
	if len(h.left) == 0 {
		return 0, io.EOF
	}
	n := copy(p, h.left)
	h.left = h.left[n:]
	if h.delivered += n; h.delivered >= progressBytes {
		h.delivered = 0
		h.client.SetWriteDeadline(time.Now().Add(h.timeout))
	}
	return n, nil
}

// Close implements [io.Closer]. It can be called again.
func (h *heldBody) Close() error {
	h.left = nil
	h.memory.Release()
	return nil
}
