package sandbox

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"wxproxy/sandbox/internal/protocol"
)

// Values of [Fault].Break.
const (
	BreakBefore = "before" // close the connection without a response
	BreakMiddle = "middle" // close it after half of the body
)

// Fault is something that goes wrong because a test asked for it. It applies to
// requests to WeChat's API, also on paths that the sandbox does not know. The
// zero value of a field means that it does not apply.
//
// ErrCode, Status, Empty and Body replace the response: the request is not
// carried out, and its token is not checked. At most one of them can be set,
// except that Status and Body go together. All other fields apply to the
// response, real or replaced, and can be combined. Then the request is carried
// out: a response that breaks off can leave a token renewed without the
// client's knowledge.
//
// A request is about the account that owns its token, and about the one that
// its query (appid) or its body (authorizer_appid) names.
type Fault struct {
	ID    int    `json:"id"`    // set by AddFault
	Path  string `json:"path"`  // prefix of the path, "" for all
	Appid string `json:"appid"` // the account that the request is about, see above; "" for all
	Times int    `json:"times"` // requests left, 0 for all until it is removed

	ErrCode   int    `json:"errcode"`     // with WeChat's text: -1 is busy, 45009 an exhausted quota
	ErrMsg    string `json:"errmsg"`      // replaces WeChat's text
	ErrString bool   `json:"errstring"`   // write the errcode as a string, as some endpoints do
	Status    int    `json:"status"`      // HTTP status, 200 to 599, with an HTML body unless Body is set
	Empty     bool   `json:"empty"`       // status 200 with an empty body
	Body      string `json:"body"`        // verbatim
	BodyType  string `json:"contenttype"` // content type of Body; default: that of JSON
	Gzip      bool   `json:"gzip"`        // compress, whether the request accepts it or not
	Chunked   bool   `json:"chunked"`     // no Content-Length
	Delay     Span   `json:"delay"`       // before the response begins
	Drip      Span   `json:"drip"`        // send the body in sixteen parts, with this delay before each
	Break     string `json:"break"`       // BreakBefore or BreakMiddle
	// Hold delays the response until the channel is closed or the client is
	// gone. Tests use it instead of sleeping.
	Hold <-chan struct{} `json:"-"`
}

// Span is a duration that JSON contains as a string such as "300ms".
type Span time.Duration

// MarshalText returns the span in the form of [time.Duration].
func (d Span) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText parses what [time.ParseDuration] does, except negative spans.
func (d *Span) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return errors.New(`malformed duration: want one like "300ms" or "2s"`)
	}
	*d = Span(v)
	return nil
}

// maxFaults bounds the list, which every request goes through.
const maxFaults = 1_000

// AddFault adds f after the faults that are there. The first that matches a
// request applies to it. The ID is for [WeChat.RemoveFault]. It returns an
// error if fields of f exclude each other or are out of range.
func (s *WeChat) AddFault(f Fault) (id int, err error) {
	if err := f.check(); err != nil {
		return 0, err
	}
	return s.faults.add(f)
}

// Faults returns the faults in force, with the number of requests they have
// left.
func (s *WeChat) Faults() []Fault { return s.faults.all() }

// RemoveFault removes a fault and reports whether there was one of that ID. It
// still applies to requests that have begun.
func (s *WeChat) RemoveFault(id int) bool { return s.faults.remove(id) }

// ClearFaults removes all faults.
func (s *WeChat) ClearFaults() { s.faults.clear() }

// check returns an error if f is no fault that can be carried out.
func (f *Fault) check() error {
	replacements := 0
	for _, set := range []bool{f.ErrCode != 0, f.Status != 0 || f.Body != "", f.Empty} {
		if set {
			replacements++
		}
	}
	switch {
	case replacements > 1:
		return errors.New("sandbox: errcode, empty, and status or body exclude each other")
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return errors.New("sandbox: status out of range 200 to 599")
	case f.Break != "" && f.Break != BreakBefore && f.Break != BreakMiddle:
		return errors.New(`sandbox: unknown break: want "before" or "middle"`)
	case f.Times < 0 || f.Delay < 0 || f.Drip < 0:
		return errors.New("sandbox: negative times, delay or drip")
	case (f.ErrMsg != "" || f.ErrString) && f.ErrCode == 0:
		return errors.New("sandbox: errmsg and errstring without an errcode")
	case replacements == 0 && !f.changesDelivery():
		return errors.New("sandbox: fault without any effect")
	}
	return nil
}

// changesDelivery reports whether f changes how a response is sent, or when.
func (f *Fault) changesDelivery() bool {
	return f.Gzip || f.Chunked || f.Break != "" || f.Delay != 0 || f.Drip != 0 || f.Hold != nil
}

// response returns what replaces the real response; replaced is false if
// nothing does.
func (f *Fault) response() (resp protocol.Response, replaced bool) {
	switch {
	case f.ErrCode != 0:
		return protocol.Response{ErrCode: f.ErrCode, ErrMsg: f.ErrMsg, ErrCodeString: f.ErrString}, true
	case f.Body != "":
		return protocol.Response{Status: f.Status, ContentType: f.BodyType, Body: []byte(f.Body)}, true
	case f.Status == http.StatusNoContent || f.Status == http.StatusNotModified:
		return protocol.Response{Status: f.Status, ContentType: "text/html"}, true // these have no body
	case f.Status != 0:
		text := http.StatusText(f.Status)
		html := "<html>\r\n<head><title>" + text + "</title></head>\r\n" +
			"<body><center><h1>" + text + "</h1></center></body>\r\n</html>\r\n"
		return protocol.Response{Status: f.Status, ContentType: "text/html", Body: []byte(html)}, true
	case f.Empty:
		return protocol.Response{}, true
	}
	return protocol.Response{}, false
}

// faultList holds the faults in force. The zero value is empty. It is safe for
// concurrent use.
type faultList struct {
	mu     sync.Mutex // guards everything below, Times of the faults included
	list   []*Fault   // in the order in which they were added
	lastID int
}

// add adds a fault that check has accepted, and returns its ID.
func (l *faultList) add(f Fault) (id int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) >= maxFaults {
		return 0, errors.New("sandbox: too many faults")
	}
	l.lastID++
	f.ID = l.lastID
	l.list = append(l.list, &f)
	return f.ID, nil
}

// all returns copies of the faults.
func (l *faultList) all() []Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Fault, len(l.list))
	for i, f := range l.list {
		out[i] = *f
	}
	return out
}

func (l *faultList) remove(id int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.list)
	l.list = slices.DeleteFunc(l.list, func(f *Fault) bool { return f.ID == id })
	return len(l.list) < n
}

func (l *faultList) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = nil
}

// take returns a copy of the first fault that matches a request, and counts the
// request; nil if none does. concerns reports whether the request has to do
// with an account. It is called only for faults that name one, because it may
// have to parse the body.
func (l *faultList) take(path string, concerns func(appid string) bool) *Fault {
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
