package transport

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/internal/tcptest"
)

// tls13Sender makes the records of a TLS 1.3 server itself, because crypto/tls
// cannot send session tickets or key updates after the handshake. The cipher
// suite is TLS_AES_128_GCM_SHA256.
type tls13Sender struct {
	secret []byte // SERVER_TRAFFIC_SECRET_n
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// newTLS13Sender reads the secret from the lines of a
// [tls.Config.KeyLogWriter]. Nothing may have been sent with it: no ticket by
// crypto/tls.
func newTLS13Sender(keyLog string) (*tls13Sender, error) {
	_, line, _ := strings.Cut(keyLog, "SERVER_TRAFFIC_SECRET_0 ")
	line, _, _ = strings.Cut(line, "\n")
	_, text, _ := strings.Cut(line, " ")
	secret, err := hex.DecodeString(text)
	if err != nil || len(secret) != sha256.Size {
		return nil, fmt.Errorf("got secret %q, want 32 bytes", text)
	}
	s := &tls13Sender{secret: secret}
	return s, s.setKeys()
}

// setKeys derives the keys from the secret.
func (s *tls13Sender) setKeys() error {
	key, err := expandLabel(s.secret, "key", 16)
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		return err
	}
	s.iv, err = expandLabel(s.secret, "iv", 12)
	s.seq = 0
	return err
}

// expandLabel is HKDF-Expand-Label of RFC 8446, 7.1, without a context.
func expandLabel(secret []byte, label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := append([]byte{byte(n >> 8), byte(n), byte(len(label))}, label...)
	return hkdf.Expand(func() hash.Hash { return sha256.New() }, secret, string(append(info, 0)), n)
}

const (
	recordHandshake       = 22
	recordApplicationData = 23
)

// record returns an encrypted record.
func (s *tls13Sender) record(kind byte, content string) []byte {
	n := len(content) + 1 + s.aead.Overhead()
	b := []byte{recordApplicationData, 3, 3, byte(n >> 8), byte(n)}
	nonce := append([]byte(nil), s.iv...)
	for i, c := range binary.BigEndian.AppendUint64(nil, s.seq) {
		nonce[len(nonce)-8+i] ^= c
	}
	s.seq++
	return s.aead.Seal(b, nonce, append([]byte(content), kind), b[:recordHeader])
}

// ticket returns a record with a NewSessionTicket.
func (s *tls13Sender) ticket() []byte {
	return s.record(recordHandshake, "\x04\x00\x00\x15"+"\x00\x00\x0e\x10"+"agee"+"\x00"+"\x00\x08ticketed"+"\x00\x00")
}

// keyUpdate returns a record with a KeyUpdate that requests one, and changes
// the keys.
func (s *tls13Sender) keyUpdate(t *testing.T) []byte {
	b := s.record(recordHandshake, "\x18\x00\x00\x01\x01")
	var err error
	if s.secret, err = expandLabel(s.secret, "traffic upd", sha256.Size); err == nil {
		err = s.setKeys()
	}
	if err != nil {
		t.Error(err)
	}
	return b
}

// Session tickets and key updates are no unsolicited input: after three
// tickets on a new connection, and three or a key update after each response,
// the connection is used for the next request, without a body or with 9 KB. It
// is not if a response follows them, or a part of a ticket.
func TestTicketsAndKeyUpdatesLeaveConnectionUsable(t *testing.T) {
	for _, c := range []struct {
		name    string
		between func(s *tls13Sender) []byte
		fit     bool
	}{
		{"tickets", func(s *tls13Sender) []byte {
			return slices.Concat(s.ticket(), s.ticket(), s.ticket())
		}, true},
		{"key update", func(s *tls13Sender) []byte { return s.keyUpdate(t) }, true},
		{"ticket, key update, ticket", func(s *tls13Sender) []byte {
			return slices.Concat(s.ticket(), s.keyUpdate(t), s.ticket())
		}, true},
		{"ticket, response", func(s *tls13Sender) []byte {
			return append(s.ticket(), s.record(recordApplicationData, foreignResponse)...)
		}, false},
		{"ticket, cut ticket", func(s *tls13Sender) []byte { return append(s.ticket(), s.ticket()[:9]...) }, false},
		{"more tickets than TLS takes", func(s *tls13Sender) (b []byte) {
			for range 100 {
				b = append(b, s.ticket()...)
			}
			return b
		}, false},
	} {
		for _, delay := range []time.Duration{sentTogether, 0, 20 * time.Millisecond} {
			for _, body := range []int{0, 9000} {
				t.Run(fmt.Sprintf("%s, delay %v, body %d B", c.name, delay, body), func(t *testing.T) {
					t.Parallel()
					testTickets(t, c.between, delay, body, c.fit)
				})
			}
		}
	}
}

func testTickets(t *testing.T, between func(*tls13Sender) []byte, delay time.Duration, body int, fit bool) {
	const rounds = 3
	certificate, roots := testCertificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	delivered := make(chan error, 2*rounds)
	var connections atomic.Int32
	serve := func(c net.Conn) error {
		defer c.Close()
		var keyLog bytes.Buffer
		secure := tls.Server(c, &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13,
			SessionTicketsDisabled: true, KeyLogWriter: &keyLog,
		})
		if err := secure.Handshake(); err != nil {
			return err
		}
		s, err := newTLS13Sender(keyLog.String())
		if err != nil {
			return err
		}
		c.Write(slices.Concat(s.ticket(), s.ticket(), s.ticket()))
		delivered <- tcptest.WaitDelivered(c.(*net.TCPConn))
		for br := bufio.NewReader(secure); ; {
			r, err := http.ReadRequest(br)
			if err != nil {
				return nil
			}
			io.Copy(io.Discard, r.Body)
			response := s.record(recordApplicationData, respond("mine"))
			if delay == sentTogether {
				c.Write(append(response, between(s)...))
			} else {
				c.Write(response)
				<-time.After(delay)
				c.Write(between(s))
			}
			delivered <- tcptest.WaitDelivered(c.(*net.TCPConn))
		}
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				if err := serve(c); err != nil {
					delivered <- err
				}
			}()
		}
	}()
	u, err := NewUpstream(UpstreamConfig{URL: "https://" + ln.Addr().String(), Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	wait := func() {
		if err := <-delivered; err != nil {
			t.Error(err)
		}
	}
	dial := u.pool.DialTimeout
	u.pool.DialTimeout = func(addr string, timeout time.Duration) (net.Conn, error) {
		c, err := dial(addr, timeout)
		if err == nil {
			wait() // for the tickets
		}
		return c, err
	}
	for n := range rounds {
		if got, err := exchangeBody(u, "/", body); got != "mine" || err != nil {
			t.Fatalf("exchange %d: got %q, %v, want the response", n, got, err)
		}
		wait()
	}
	want := rounds
	if fit {
		want = 1
	}
	if n := connections.Load(); n != int32(want) {
		t.Errorf("got %d connections, want %d", n, want)
	}
}
