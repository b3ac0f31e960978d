//go:build !linux || !(amd64 || arm64)

package transport

// hasFastPath reports that there is nothing faster than package net.
const hasFastPath = false

// sendPending leaves sending to package net.
func (s *socket) sendPending(uintptr) bool { return false }

func (s *socket) write(b []byte) (int, error) { return s.TCPConn.Write(b) }

func (s *socket) trySend(uintptr) bool { return true }
