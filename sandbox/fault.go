package sandbox

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Where a Fault breaks an answer off.
const (
	BreakBefore = "before" // the connection is closed, nothing was answered
	BreakMiddle = "middle" // half of the body was sent
)

// Fault is something that goes wrong because it was asked for. It befalls calls to WeChat's paths, also to those
// that the sandbox does not know. The zero value of a field is that nothing happens.
//
// ErrCode, Status, Empty and Body take the place of the answer: the call is not carried out, and its token not
// looked at. At most one of them, but Status and Body go together. All others befall an answer, the real one or
// that: they can be combined, and the call was carried out: an answer that breaks off leaves a token renewed of
// which the client knows nothing.
type Fault struct {
	ID    int    `json:"id"`    // given by AddFault
	Path  string `json:"path"`  // prefix of the path; "": all
	Appid string `json:"appid"` // the account whose token it is, or that the query (appid) or body (authorizer_appid) names; "": all
	Times int    `json:"times"` // calls left; 0: until it is removed

	ErrCode   int    `json:"errcode"`     // with WeChat's words: -1 is busy, 45009 the end of the quota
	ErrMsg    string `json:"errmsg"`      // instead of WeChat's words
	ErrString bool   `json:"errstring"`   // the errcode is a string, as some endpoints have it
	Status    int    `json:"status"`      // HTTP status, with an HTML body as front servers send it unless Body is set; 200 to 599
	Empty     bool   `json:"empty"`       // 200, and nothing
	Body      string `json:"body"`        // verbatim
	BodyType  string `json:"contenttype"` // of Body; "": JSON's
	Gzip      bool   `json:"gzip"`        // compressed, asked for or not
	Chunked   bool   `json:"chunked"`     // without Content-Length
	Delay     Span   `json:"delay"`       // before the answer begins
	Drip      Span   `json:"drip"`        // the body in sixteen pieces, that time before each
	Break     string `json:"break"`       // BreakBefore, BreakMiddle
	// Hold keeps the answer back until the channel is closed, or the client leaves: what a test uses in place of
	// sleeping. nil: no.
	Hold <-chan struct{} `json:"-"`
}

// Span is a duration that JSON writes as "300ms".
type Span time.Duration

// MarshalText and UnmarshalText are the form of time.Duration.
func (d Span) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText refuses negative spans.
func (d *Span) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return errors.New(`a duration is like "300ms" or "2s"`)
	}
	*d = Span(v)
	return nil
}

// maxFaults bounds the list that every call goes through.
const maxFaults = 1_000

type faults struct {
	mu   sync.Mutex
	list []*Fault
	last int
}

// AddFault sets f up, behind those that are there: a call suffers the first that fits. The ID is for RemoveFault.
// The error says what does not go together.
func (s *WeChat) AddFault(f Fault) (id int, err error) {
	replaced := 0
	for _, is := range []bool{f.ErrCode != 0, f.Status != 0 || f.Body != "", f.Empty} {
		if is {
			replaced++
		}
	}
	switch {
	case replaced > 1:
		return 0, errors.New("sandbox: errcode, empty, and status or body exclude each other")
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return 0, errors.New("sandbox: status must be 200 to 599")
	case f.Break != "" && f.Break != BreakBefore && f.Break != BreakMiddle:
		return 0, errors.New(`sandbox: break must be "before" or "middle"`)
	case f.Times < 0 || f.Delay < 0 || f.Drip < 0:
		return 0, errors.New("sandbox: times, delay and drip must not be negative")
	case (f.ErrMsg != "" || f.ErrString) && f.ErrCode == 0:
		return 0, errors.New("sandbox: errmsg and errstring need an errcode")
	case replaced == 0 && !f.Gzip && !f.Chunked && f.Delay == 0 && f.Drip == 0 && f.Break == "" && f.Hold == nil:
		return 0, errors.New("sandbox: a fault without anything that goes wrong")
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	if len(s.faults.list) >= maxFaults {
		return 0, errors.New("sandbox: too many faults")
	}
	s.faults.last++
	f.ID = s.faults.last
	s.faults.list = append(s.faults.list, &f)
	return f.ID, nil
}

// Faults gives those that are set up, with the calls that they have left.
func (s *WeChat) Faults() []Fault {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	out := make([]Fault, len(s.faults.list))
	for i, f := range s.faults.list {
		out[i] = *f
	}
	return out
}

// RemoveFault reports whether there was one of that ID. Calls that it has befallen already suffer it to the end.
func (s *WeChat) RemoveFault(id int) bool {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	n := len(s.faults.list)
	s.faults.list = slices.DeleteFunc(s.faults.list, func(f *Fault) bool { return f.ID == id })
	return len(s.faults.list) < n
}

// ClearFaults removes all.
func (s *WeChat) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.list = nil
}

// take gives the fault that befalls a call, and counts it; nil: none. concerns says whether the call has to do
// with an appid; it is asked only if a fault wants to know.
func (l *faults) take(path string, concerns func(appid string) bool) *Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, f := range l.list {
		if !strings.HasPrefix(path, f.Path) || f.Appid != "" && !concerns(f.Appid) {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				l.list = slices.Delete(l.list, i, i+1)
			}
		}
		taken := *f
		return &taken
	}
	return nil
}

// answer gives what stands in place of the real answer; false: nothing does.
func (f *Fault) answer() (answer, bool) {
	switch {
	case f.ErrCode != 0:
		return answer{code: f.ErrCode, message: f.ErrMsg, quoted: f.ErrString}, true
	case f.Body != "":
		return answer{status: f.Status, contentType: f.BodyType, body: []byte(f.Body)}, true
	case f.Status != 0:
		html := "<html>\r\n<head><title>" + http.StatusText(f.Status) + "</title></head>\r\n<body><center><h1>" + http.StatusText(f.Status) + "</h1></center></body>\r\n</html>\r\n"
		if f.Status == http.StatusNoContent || f.Status == http.StatusNotModified {
			html = ""
		}
		return answer{status: f.Status, contentType: "text/html", body: []byte(html)}, true
	case f.Empty:
		return answer{}, true
	}
	return answer{}, false
}

// wait is Delay and Hold; false: the client has left.
func (f *Fault) wait(ctx context.Context) bool {
	if f.Delay > 0 && !pauseFor(ctx, time.Duration(f.Delay)) {
		return false
	}
	if f.Hold == nil {
		return true
	}
	select {
	case <-f.Hold:
		return true
	case <-ctx.Done():
		return false
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
