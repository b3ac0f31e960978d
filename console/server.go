package console

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"wxproxy/internal/recovery"
)

// NewServer returns a server for h with the limits of a listener that operators
// use, and that others may reach. The caller serves and shuts it down. log
// receives net/http's messages about broken connections; nil discards them.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		// Bodies have a few bytes. Imports extend it, see extendDeadlines.
		ReadTimeout: 10 * time.Second,
		// Enough for a scrape of all series over a slow line. Longer responses
		// extend it, see extendDeadlines.
		WriteTimeout:   30 * time.Second,
		IdleTimeout:    2 * time.Minute, // longer than the time between two scrapes
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		// net/http would answer OPTIONS * without asking for the key.
		DisableGeneralOptionsHandler: true,
	}
}

// reportPanic logs a panic. The request is not logged, because its headers hold
// the key.
func (s *state) reportPanic(cause any) {
	s.log.Error("BUG: panic", "where", "admin listener",
		"panic", describePanic(cause), "stack", string(debug.Stack()))
}

// failAfterPanic responds after a panic. A defect in one page must not take
// down the listener that would show it.
func failAfterPanic(w http.ResponseWriter, r *http.Request) {
	for _, name := range []string{"Content-Encoding", "Content-Length", "Allow", "Retry-After"} {
		w.Header().Del(name)
	}
	fail(w, r, &fault{status: http.StatusInternalServerError,
		msg: "internal error; the log of wxproxy has the details"})
}

// describePanic returns what may be logged of a panic: what was already
// described in another goroutine, and otherwise what [recovery.Describe]
// returns.
func describePanic(cause any) string {
	if c, ok := cause.(relayed); ok {
		return string(c)
	}
	return recovery.Describe(cause)
}

// relayed describes a panic of another goroutine, to be raised again.
type relayed string
