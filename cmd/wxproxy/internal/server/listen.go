package server

import (
	"errors"
	"fmt"
	"net"
)

// Listen listens on addr, HOST:PORT. Its error starts with key, the name of the
// setting that addr comes from.
func Listen(key, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w", key, addr, NetCause(err))
	}
	return ln, nil
}

// NetCause returns the cause of a network error without the address, for
// messages that name the address already. Other errors are returned as they
// are.
func NetCause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
