//go:build unix

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/sandbox"
)

// serveTLS makes the proxy listener speak TLS and accept client certificates.
// It must be called before start. It returns the roots for clients.
func (w *testEnv) serveTLS() *x509.CertPool {
	w.t.Helper()
	certificate, ca, err := sandbox.NewCertificate("127.0.0.1")
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		w.t.Fatal(err)
	}
	var chain bytes.Buffer
	for _, der := range certificate.Certificate {
		pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	w.extra += fmt.Sprintf("tls_cert_file = %q\ntls_key_file = %q\nclient_ca_file = %q\n",
		w.file("chain.pem", chain.String()),
		w.file("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))),
		w.file("ca.pem", string(ca)))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return roots
}

// TestUnauthenticatedBodiesNeedNoMemory checks that requests without a valid
// key cannot fill the memory for bodies, and that a caller with a key uploads
// 200 KB meanwhile. There are 25 connections with 32 MiB each, of which the
// last byte is held back, and then 3,000 with 64 KiB each, which are read. The
// parameters are plain TCP or TLS with client_ca_file × a request for a
// stand-in, a forwarded one, and one with a wrong key × announced, chunked, or
// with Expect.
func TestUnauthenticatedBodiesNeedNoMemory(t *testing.T) {
	const (
		large     = 32 << 20
		maxGrowth = 64 << 10 // KiB
	)
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			w := newTestEnv(t, sandbox.Config{})
			w.blocks = block("orders", ordersKey, "") + block("stock", stockKey, "")
			dial := func() (net.Conn, error) { return net.Dial("tcp", w.proxy) }
			if secure {
				conf := &tls.Config{RootCAs: w.serveTLS()}
				dial = func() (net.Conn, error) { return tls.Dial("tcp", w.proxy, conf) }
			}
			w.start().known(accountA)
			before := w.memory()
			check := func(what string, most int) {
				t.Helper()
				after := w.memory()
				t.Logf("%s: %d MiB of memory, %d MiB before", what, after>>10, before>>10)
				if after-before > most {
					t.Errorf("%s: got %d MiB of memory, %d MiB before, want %d MiB more at most",
						what, after>>10, before>>10, most>>10)
				}
				c, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				const path = "/" + accountA + "/cgi-bin/message/custom/send"
				resp, err := attack(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\n"+
					"X-Wxproxy-Key: "+ordersKey+"\r\nContent-Length: 200000\r\n\r\n", 200_000)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Errorf("%s: upload with a key: got %v, %v, want 200", what, resp, err)
				}
			}
			const standIn = "POST /cgi-bin/stable_token HTTP/1.1\r\nHost: x\r\n"
			const forwarded = "POST /" + accountA + "/cgi-bin/media/upload HTTP/1.1\r\nHost: x\r\n"
			for _, head := range []string{
				standIn, forwarded, forwarded + "X-Wxproxy-Key: wrong\r\n",
			} {
				for _, framing := range []string{
					"Content-Length: %d\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n%x\r\n",
					"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n",
				} {
					var attacks sync.WaitGroup
					for range 25 {
						attacks.Go(func() {
							c, err := dial()
							if err != nil {
								t.Error(err)
								return
							}
							t.Cleanup(func() { c.Close() })
							resp, err := attack(c, head+fmt.Sprintf(framing, large), large-1)
							if err != nil || resp.StatusCode < 400 {
								t.Errorf("%.60q, %q: got %v, %v", head, framing, resp, err)
							}
						})
					}
					attacks.Wait()
					check(fmt.Sprintf("%.60q, %q", head, framing), maxGrowth)
				}
			}
			n, form := connLimit(t, manyForms), strings.Repeat("a", 64<<10-1)
			for range n {
				c, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				io.WriteString(c, standIn+"Content-Length: 65536\r\n\r\n"+form)
			}
			check(fmt.Sprintf("%d forms", n), n*formConnMemory+maxGrowth)
		})
	}
}

const (
	manyForms      = 3000
	formConnMemory = 64 // KiB that a connection needs: for its buffers and goroutine, with TLS
)

// attack sends a request whose head announces more than size bytes, and size
// bytes, until the response arrives. The connection stays open.
func attack(c net.Conn, head string, size int) (*http.Response, error) {
	c.SetDeadline(time.Now().Add(proctest.Patience))
	if _, err := io.WriteString(c, head); err != nil {
		return nil, err
	}
	go func() {
		piece := make([]byte, 64<<10)
		for left := size; left > 0; left -= len(piece) {
			piece = piece[:min(len(piece), left)]
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		c.Close() // ends the sending
	}
	return resp, err
}

// known pushes a ticket, lets an account authorize the component, and waits
// until wxproxy knows it. Unlike authorized it works with callers and TLS.
func (w *testEnv) known(appid string) {
	w.t.Helper()
	if err := w.wx.PushTicket(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.wx.Authorize(w.t.Context(), appid); err != nil {
		w.t.Fatal(err)
	}
	proctest.Eventually(w.t, func() bool {
		status, _ := w.get(w.admin, "/api/accounts/"+appid)
		return status == http.StatusOK
	})
}
