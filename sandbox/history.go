package sandbox

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	historySize    = 10_000
	violationsSize = 1_000
	// bodyKept is how much of a request's body is kept, answerKept of a JSON answer's, in bytes.
	bodyKept   = 4 << 10
	answerKept = 1 << 10
)

// Call is one request as it arrived, and what came of it. A call is noted before it is answered: who has the
// answer finds the call.
type Call struct {
	Time             time.Time
	Method           string
	Path             string // as received: neither decoded nor cleaned
	RawQuery         string // as received, token and all
	Host             string
	Header           http.Header // without Host, as net/http gives it
	Body             []byte      // its first 4 KiB
	BodySHA256       [32]byte    // of the whole
	Length           int64       // of the whole, in bytes
	TransferEncoding []string    // "chunked", which is refused
	Status           int         // the HTTP status; 0: broken off before any
	ErrCode          int         // 0 where there is none
	Appid            string      // whose token it was; "" without one that was ever given out
	TokenKind        TokenKind   // what token it was
	RID              string      // the number of the call in errmsg; "" where it succeeded
	Answer           []byte      // the first KiB of an answer in JSON, nil of others
	Fault            int         // the ID of the Fault that befell it, 0: none
}

// history is a ring of the last calls.
type history struct {
	mu         sync.Mutex
	calls      []Call
	next       int // where the ring is overwritten, once it is full
	total      int64
	violations []string
}

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

// last gives the newest n calls, the oldest first; n < 0: all.
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

// find gives the failed call of that number.
func (h *history) find(rid string) (Call, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.calls {
		if rid != "" && h.calls[i].RID == rid {
			return h.calls[i], true
		}
	}
	return Call{}, false
}

// History gives the calls since the start or the last ResetHistory, 10,000 at most, the oldest first. Pushes and the
// door under /sandbox/ are not in it. What the calls point to is shared and must not be changed.
func (s *WeChat) History() []Call { return s.history.last(-1) }

// ResetHistory forgets all calls. Violations stay, see [WeChat.ResetViolations].
func (s *WeChat) ResetHistory() {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	s.history.calls, s.history.next, s.history.total = nil, 0, 0
}

// Count gives the number of calls to exactly that path in the history.
func (s *WeChat) Count(path string) int {
	return s.CountFunc(func(c Call) bool { return c.Path == path })
}

// CountFunc gives the number of calls in the history of which want is true. want must not call the sandbox.
func (s *WeChat) CountFunc(want func(Call) bool) int {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	n := 0
	for i := range s.history.calls {
		if want(s.history.calls[i]) {
			n++
		}
	}
	return n
}

// Violations gives what no well-made client or proxy sends, in sentences without secrets, the last 1,000: two
// credentials in one call, credentials in headers or bodies, stand-ins and headers that were meant for a proxy,
// chunked bodies. A test of a proxy ends with a look at it.
func (s *WeChat) Violations() []string {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	return slices.Clone(s.history.violations)
}

// ResetViolations forgets them.
func (s *WeChat) ResetViolations() {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	s.history.violations = nil
}

func (s *WeChat) violate(c *call, format string, args ...any) {
	text := c.method + " " + shorten(c.path) + ": " + fmt.Sprintf(format, args...)
	h := &s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	h.violations = append(h.violations, text)
	if over := len(h.violations) - violationsSize; over > 0 {
		h.violations = slices.Delete(h.violations, 0, over)
	}
}
