package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// connPair returns a client and the CallerConn that was accepted for it.
func connPair(t *testing.T, idleTimeout time.Duration) (client net.Conn, c *CallerConn) {
	t.Helper()
	l, conns := startListener(t, ListenerConfig{MaxConns: 10, IdleTimeout: idleTimeout})
	client = dial(t, l)
	accepted := <-conns
	t.Cleanup(func() { accepted.Close() })
	return client, ConnOf(accepted)
}

func TestConnOfForeignConnection(t *testing.T) {
	local, _ := tcpPair(t)
	c := ConnOf(local)
	if c != nil {
		t.Fatalf("got %v, want nil", c)
	}
	c.ExtendDeadline(time.Now())
	c.LingerOnClose()
	if name := c.CertificateName(); name != "" {
		t.Errorf("CertificateName: got %q, want none", name)
	}
	if sawEOF(local) {
		t.Error("sawEOF: got true, want false")
	}
}

// A deadline that is good enough is not set again, and one that is not is never
// more than deadlineSlack too late.
func TestExtendDeadline(t *testing.T) {
	_, c := connPair(t, time.Minute)
	now := time.Now()
	for _, step := range []struct {
		exactly time.Duration // of SetWriteDeadline before, if not 0
		after   time.Duration // of ExtendDeadline
		want    time.Duration // the deadline, from now
	}{
		{time.Hour, 0, time.Minute + deadlineSlack},
		{0, deadlineSlack / 2, time.Minute + deadlineSlack},
		{0, deadlineSlack, time.Minute + deadlineSlack},
		{0, deadlineSlack + 1, time.Minute + 2*deadlineSlack + 1},
		{time.Minute, 0, time.Minute + deadlineSlack},
	} {
		if step.exactly != 0 {
			c.SetWriteDeadline(now.Add(step.exactly))
		}
		c.ExtendDeadline(now.Add(step.after))
		if got := c.deadline.Sub(now); got != step.want {
			t.Errorf("%+v: got a deadline in %v", step, got)
		}
	}
}

func TestIdleConnectionTimesOut(t *testing.T) {
	_, c := connPair(t, 10*time.Millisecond)
	began := time.Now()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a timeout", err)
	}
	if took := time.Since(began); took > testTimeout {
		t.Errorf("got a timeout after %v", took)
	}
}

// waitForClose waits until a connection that lingers no longer counts.
func waitForClose(c *CallerConn) error {
	tick, end := time.NewTicker(time.Millisecond), time.After(testTimeout)
	defer tick.Stop()
	for c.open.Load() != 0 {
		select {
		case <-tick.C:
		case <-end:
			return fmt.Errorf("got %d open connections at the end, want 0", c.open.Load())
		}
	}
	return nil
}

func TestSawEOF(t *testing.T) {
	client, c := connPair(t, testTimeout)
	io.WriteString(client, "a")
	client.(*net.TCPConn).CloseWrite()
	b := make([]byte, 1)
	c.Read(b)
	if sawEOF(c) {
		t.Error("before the end was read: got true")
	}
	c.Read(b)
	if !sawEOF(c) {
		t.Error("after the end was read: got false")
	}
}

// A response to a request that was not read to its end reaches the client, even
// if that goes on sending. Without lingering, the kernel would reset the
// connection.
func TestLingeringCloseDeliversResponse(t *testing.T) {
	for {
		began := time.Now()
		err := closeWhileClientSends(t)
		if err == nil {
			return
		}
		if time.Since(began) < lingerTime {
			t.Fatal(err)
		}
		// The server lingered as long as it does, and the client was slower: the
		// machine is busy.
		t.Log(err)
	}
}

func closeWhileClientSends(t *testing.T) error {
	const response = "HTTP/1.1 413 Too Large\r\n\r\n"
	client, c := connPair(t, testTimeout)
	// More than the buffers hold, so the client is still sending when the server
	// closes the connection.
	const size = 16 << 20
	sent := make(chan error, 1)
	go func() {
		_, err := client.Write(make([]byte, size))
		sent <- errors.Join(err, client.(*net.TCPConn).CloseWrite())
	}()
	io.ReadFull(c, make([]byte, 1000))
	io.WriteString(c, response)
	c.LingerOnClose()
	if err := c.Close(); err != nil {
		return fmt.Errorf("Close: got %w", err)
	}
	// The connection counts as long as it lingers.
	if n := c.open.Load(); n != 1 {
		return fmt.Errorf("got %d open connections while one lingers, want 1", n)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("client, sending: got %w", err)
	}
	if b, err := io.ReadAll(client); string(b) != response {
		return fmt.Errorf("client: got %q, %v, want %q", b, err, response)
	}
	client.Close()
	return waitForClose(c)
}
