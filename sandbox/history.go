package sandbox

import (
	"net/http"
	"sync"
	"time"

	"wxproxy/sandbox/internal/protocol"
)

const (
	historySize  = 10_000  // requests
	keptBody     = 4 << 10 // bytes of a request body
	keptResponse = 1 << 10 // bytes of a JSON response
)

// Call is one request as it arrived, and the response to it.
type Call struct {
	Time             time.Time
	Method           string
	Path             string // as received, neither decoded nor cleaned
	RawQuery         string // as received, with the token
	Host             string
	Header           http.Header // without Host, as net/http has it
	Body             []byte      // the first 4 KiB
	BodySHA256       [32]byte    // of the whole body
	Length           int64       // of the whole body, in bytes
	TransferEncoding []string    // "chunked", which WeChat refuses
	Status           int         // the HTTP status, 0 if the connection was closed before any
	ErrCode          int         // 0 if there is none
	Appid            string      // owner of the token, "" without a known token
	TokenKind        TokenKind   // kind of the token
	RID              string      // the request's number in errmsg, "" if it succeeded
	Response         []byte      // the first KiB of a JSON response, nil for others
	Fault            int         // ID of the Fault that applied, 0 for none
}

// History returns the requests since the start or the last
// [WeChat.ResetHistory], at most 10,000, oldest first. Pushes and requests
// below /sandbox/ are not in it. What the calls point to is shared and must not
// be changed.
func (s *WeChat) History() []Call { return s.history.last(-1) }

// ResetHistory forgets all requests. Violations stay, see
// [WeChat.ResetViolations].
func (s *WeChat) ResetHistory() { s.history.reset() }

// Count returns the number of requests in the history to exactly that path.
func (s *WeChat) Count(path string) int {
	return s.CountFunc(func(c Call) bool { return c.Path == path })
}

// CountFunc returns the number of requests in the history for which match
// returns true. match must not call the sandbox.
func (s *WeChat) CountFunc(match func(Call) bool) int { return s.history.count(match) }

// history is a ring of the last requests. The zero value is empty. It is safe
// for concurrent use.
type history struct {
	mu    sync.Mutex // guards everything below
	calls []Call
	next  int   // where a full ring is overwritten: its oldest request
	total int64 // requests since the last reset
}

// add records a request. A full ring loses its oldest one.
func (h *history) add(c Call) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.total++
	if len(h.calls) < historySize {
		h.calls = append(h.calls, c)
		return
	}
	h.calls[h.next] = c
	h.next = (h.next + 1) % historySize
}

func (h *history) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls, h.next, h.total = nil, 0, 0
}

// size returns the number of requests since the last reset, which can be more
// than the ring holds.
func (h *history) size() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.total
}

// last returns the newest n requests, oldest first; all if n is negative.
func (h *history) last(n int) []Call {
	h.mu.Lock()
	defer h.mu.Unlock()
	size := len(h.calls)
	if n < 0 || n > size {
		n = size
	}
	out := make([]Call, 0, n)
	for i := size - n; i < size; i++ {
		out = append(out, h.calls[(h.next+i)%size])
	}
	return out
}

// count calls match with the lock held, once for each request.
func (h *history) count(match func(Call) bool) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for i := range h.calls {
		if match(h.calls[i]) {
			n++
		}
	}
	return n
}

// failed returns the failed request of that number, for openapi/rid/get.
func (h *history) failed(rid string) (protocol.FailedRequest, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.calls {
		if c := &h.calls[i]; rid != "" && c.RID == rid {
			return protocol.FailedRequest{
				Time: c.Time, AppID: c.Appid, Query: c.RawQuery, Body: c.Body, Response: c.Response,
			}, true
		}
	}
	return protocol.FailedRequest{}, false
}
