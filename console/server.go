package console

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"wxproxy/internal/recovery"
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

// reportPanic logs a panic. The request is not logged, because its headers hold
// the key.
func (s *state) reportPanic(cause any) {
	s.log.Error("BUG: panic", "where", "admin listener",
		"panic", describePanic(cause), "stack", string(debug.Stack()))
}

// failAfterPanic responds after a panic. A defect in one page must not take down
// the listener by which it would be noticed.
func failAfterPanic(w http.ResponseWriter, r *http.Request) {
	for _, name := range []string{"Content-Encoding", "Content-Length", "Allow", "Retry-After"} {
		w.Header().Del(name)
	}
	fail(w, r, &fault{status: http.StatusInternalServerError, msg: "a defect of wxproxy; its log says more"})
}

// describePanic returns what may be logged of a panic: what was already described
// in another goroutine, and otherwise what [recovery.Describe] returns.
func describePanic(cause any) string {
	if c, ok := cause.(relayed); ok {
		return string(c)
	}
	return recovery.Describe(cause)
}

// relayed is what was said of a panic in another goroutine, to be panicked with again.
type relayed string
