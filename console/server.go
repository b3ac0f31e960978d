package console

import (
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// NewServer gives h the limits of a listener that operators reach, and that strangers might.
// The caller serves, and shuts down. log takes what net/http has to say about broken connections;
// nil: nobody is told.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // bodies are of a few bytes, but for imports; see unhurried
		// A scrape of all series through a slow line; whoever serves something longer sets
		// the deadline of that answer by http.ResponseController.
		WriteTimeout:   30 * time.Second,
		IdleTimeout:    2 * time.Minute, // longer than the time between two scrapes
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// net/http would answer OPTIONS * by itself, without asking for the key.
		DisableGeneralOptionsHandler: true,
	}
}

// recorder knows whether an answer has begun.
type recorder struct {
	http.ResponseWriter
	begun bool
}

func (r *recorder) WriteHeader(status int) {
	r.begun = true
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.begun = true
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// survive is deferred around each request: a defect in one page must not take the listener
// along by which one would see it. The request is not logged, its headers hold the key.
func (s *state) survive(w *recorder, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler {
		panic(cause) // a handler's way to break off; net/http knows it
	}
	s.log.Error("BUG: panic in the admin listener", "panic", inWords(cause), "stack", string(debug.Stack()))
	if w.begun {
		// Half an answer must not be taken for a whole one.
		panic(http.ErrAbortHandler)
	}
	for _, name := range []string{"Content-Encoding", "Content-Length", "Allow", "Retry-After"} {
		w.Header().Del(name)
	}
	fail(w, r, &fault{status: http.StatusInternalServerError, msg: "a defect of wxproxy; its log says more"})
}

// inWords is what may be logged of a panic: our own sentences and the runtime's. Anything else can be a piece of a
// request, or of what is kept; the stack says where it was.
func inWords(cause any) string {
	switch c := cause.(type) {
	case relayed:
		return string(c)
	case runtime.Error:
		return c.Error()
	case string:
		if strings.HasPrefix(c, "BUG: ") {
			return c
		}
	}
	return "not the runtime's"
}

// relayed is what was said of a panic in another goroutine, to be panicked with again.
type relayed string
