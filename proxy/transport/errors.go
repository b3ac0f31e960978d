package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/valyala/fasthttp"
)

// Errors of [Upstream.Exchange]. They tell whether WeChat may have executed the
// request, which decides whether a caller may repeat it.
var (
	// ErrUnreachable means that nothing was sent.
	ErrUnreachable = errors.New("not connected")
	// ErrBroken means that the connection failed after something was sent.
	// WeChat may have executed the request.
	ErrBroken = errors.New("connection lost")
	// ErrTimeout means that the deadline passed after something was sent.
	// WeChat may have executed the request.
	ErrTimeout = errors.New("timeout")
)

// errUnfitDials is the reason if every new connection is unfit.
var errUnfitDials = errors.New("new connections are closed, or send something, before a request")

// errInterim is the error of a response that never becomes final.
var errInterim = errors.New("too many interim (1xx) responses")

// transferError returns ErrTimeout or ErrBroken for an error of a connection to
// which something may have been sent.
func transferError(err error) error {
	var t interface{ Timeout() bool }
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout() {
		return ErrTimeout
	}
	return fmt.Errorf("%w: %w", ErrBroken, sanitizeError(err))
}

// dialError returns ErrUnreachable with the reason why there is no connection,
// and no more than an operator needs: without addresses and fasthttp's
// wording.
func dialError(err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, fasthttp.ErrNoFreeConns):
		err = errors.New("all connections are in use")
	case errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, fasthttp.ErrDialTimeout), errors.Is(err, fasthttp.ErrTimeout):
		err = errors.New("connecting took too long")
	case errors.As(err, &op) && op.Err != nil:
		err = op.Err
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// sanitizeError returns the kind of a transport error. The errors of fasthttp
// quote what they read, which can hold credentials.
func sanitizeError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return syscall.ECONNRESET
	case err.Error() == "EOF", errors.Is(err, fasthttp.ErrConnectionClosed):
		return errors.New("closed before the response")
	case errors.Is(err, errInterim):
		return errInterim
	}
	return errors.New("malformed or incomplete response")
}
