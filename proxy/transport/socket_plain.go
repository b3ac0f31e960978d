package transport

import "net"

// plainSocket implements deferringConn with package net alone, for the systems
// that have no faster implementation.
type plainSocket struct {
	*net.TCPConn
	deferWrite bool   // what is written waits for the next Read
	pending    []byte // what waits
}

func newPlainSocket(c *net.TCPConn) *plainSocket { return &plainSocket{TCPConn: c} }

func (s *plainSocket) setDeferWrite(on bool) { s.deferWrite = on }

// hasPending reports whether bytes that were written have not been sent.
func (s *plainSocket) hasPending() bool { return len(s.pending) > 0 }

// Read sends what is pending and then reads. It returns the error of sending, if
// there is one.
func (s *plainSocket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.deferWrite = false
	if err := s.flush(); err != nil {
		return 0, err
	}
	return s.TCPConn.Read(b)
}

// Write sends all of b. If writes are deferred and b is short enough, it keeps a
// copy of b instead, and the next Read returns the error of sending.
func (s *plainSocket) Write(b []byte) (int, error) {
	if s.deferWrite && len(s.pending)+len(b) <= maxPending {
		s.pending = append(s.pending, b...)
		return len(b), nil
	}
	s.deferWrite = false
	if err := s.flush(); err != nil {
		return 0, err
	}
	return s.TCPConn.Write(b)
}

// flush sends what is pending. What could not be sent stays pending.
func (s *plainSocket) flush() error {
	if len(s.pending) == 0 {
		return nil
	}
	n, err := s.TCPConn.Write(s.pending)
	s.pending = s.pending[:copy(s.pending, s.pending[n:])]
	return err
}
