package server

import (
	"errors"
	"fmt"
	"net"
)

// Listen listens on addr, HOST:PORT. Its error starts with key, the name of the
// setting that addr comes from. It contains no name of a host, which can be a
// secret that was written in the wrong place.
func Listen(key, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		return ln, nil
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return nil, fmt.Errorf("%s: cannot listen: the host has no address here: %s", key, dns.Err)
	}
	if host, port, _ := net.SplitHostPort(addr); net.ParseIP(host) == nil && host != "" {
		addr = "port " + port
	}
	return nil, fmt.Errorf("%s: cannot listen on %s: %w", key, addr, NetCause(err))
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
