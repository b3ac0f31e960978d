// Package recovery turns panics in HTTP handlers into responses.
//
// Without it, net/http logs the value of the panic, which can be a piece of a
// request, and closes the connection without a response.
package recovery

import (
	"net/http"
	"runtime"
	"strings"
)

// ResponseWriter is an [http.ResponseWriter] that records whether a response
// was started. Like every ResponseWriter, it is used by one goroutine at a time.
type ResponseWriter struct {
	http.ResponseWriter
	started bool
}

// WriteHeader implements [http.ResponseWriter].
func (w *ResponseWriter) WriteHeader(status int) {
	w.started = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *ResponseWriter) Write(b []byte) (int, error) {
	w.started = true
	return w.ResponseWriter.Write(b)
}

// Unwrap returns the underlying writer for [http.ResponseController].
func (w *ResponseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Serve calls serve with a ResponseWriter around w. If serve panics, Serve
// calls report with the cause, and then respond, which writes the error
// response.
//
// If a response was started before the panic, Serve closes the connection
// instead of calling respond: the client must not take half a response for a
// whole one. [http.ErrAbortHandler] is passed on and not reported, as net/http
// does.
func Serve(
	w http.ResponseWriter, serve func(*ResponseWriter),
	report func(cause any), respond func(http.ResponseWriter),
) {
	out := &ResponseWriter{ResponseWriter: w}
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if cause == http.ErrAbortHandler {
			panic(cause)
		}
		report(cause)
		if out.started {
			panic(http.ErrAbortHandler)
		}
		respond(out)
	}()
	serve(out)
}

// Describe returns what may be logged of the cause of a panic: the text of
// errors of the Go runtime, and of strings that begin with "BUG: ", with which
// wxproxy itself panics. Every other cause can be a piece of a request or a
// secret, so Describe only says that it is not logged. The stack trace shows
// where the panic happened.
func Describe(cause any) string {
	switch c := cause.(type) {
	case runtime.Error:
		return c.Error()
	case string:
		if strings.HasPrefix(c, "BUG: ") {
			return c
		}
	}
	return "not logged, as it can be a secret"
}
