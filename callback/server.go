package callback

import (
	"bytes"
	"log"
	"log/slog"
	"net/http"
	"time"

	"wxproxy/wechat"
)

// NewServer returns a server for h with the limits of a listener that the
// internet reaches. The caller serves with it and shuts it down. logger
// receives what net/http logs about connections; nil disables it.
//
// The limits are for clients that send slowly, or nothing. WeChat sends a push,
// which has less than 4 KiB, in one piece and waits 5 s for the response.
func NewServer(h http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	// HTTP/1.1 only: TLS is terminated in front of the listener, and WeChat
	// uses nothing else.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // pushes have a shorter one of their own
		WriteTimeout:      15 * time.Second, // from the end of the header, so it includes reading
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          log.New(connectionLog{logger}, "", 0),
		// net/http would answer "OPTIONS *" itself, with 200.
		DisableGeneralOptionsHandler: true,
	}
}

// connectionLog logs the first line of what net/http writes. The other lines
// are the stack of a panic, and its value can be a piece of a request.
type connectionLog struct{ log *slog.Logger }

func (c connectionLog) Write(b []byte) (int, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if bytes.Contains(line, []byte("panic")) {
		line = []byte("panic in a handler")
	}
	c.log.Warn("connection error on the callback listener",
		"error", wechat.Sanitize(line, maxLogLine))
	return len(b), nil
}
