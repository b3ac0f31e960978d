package callback

import (
	"bytes"
	"log"
	"log/slog"
	"net/http"
	"time"

	"wxproxy/wechat"
)

// NewServer gives h the limits of a listener that the internet reaches. The caller serves, and shuts
// down. logger takes what net/http has to say about connections; nil: nobody is told.
//
// The limits are for whoever sends slowly, or nothing: a push, which has less than 4 KiB, comes in
// one piece from WeChat, and is answered within 5 s or not at all.
func NewServer(h http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	// HTTP/1.1 only: what stands in front ends TLS, and WeChat speaks nothing else.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // pushes have a shorter one of their own
		WriteTimeout:      15 * time.Second, // from the end of the headers, so reading is in it
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(connectionLog{logger}, "", 0),
		// net/http would answer OPTIONS * by itself, with 200.
		DisableGeneralOptionsHandler: true,
	}
}

// connectionLog passes the first line on, cut short: what follows is the stack of a panic, and
// what a handler panics with may be a piece of a request.
type connectionLog struct{ log *slog.Logger }

func (c connectionLog) Write(b []byte) (int, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if bytes.Contains(line, []byte("panic")) {
		line = []byte("http: a handler panicked")
	}
	c.log.Warn("trouble on the callback listener", "what", wechat.Sanitize(string(line), lineLimit))
	return len(b), nil
}
