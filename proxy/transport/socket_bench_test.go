package transport

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkSocket exchanges a request and a response: over package net and
// over both kinds of sockets. A deferred write includes the check for input.
// Run it with GOMAXPROCS=1. That is like a busy proxy, where some goroutine
// can always run meanwhile.
func BenchmarkSocket(b *testing.B) {
	request, response := bytes.Repeat([]byte("q"), 400), bytes.Repeat([]byte("a"), 300)
	for _, mode := range []string{"net", "fast", "plain, deferred", "fast, deferred"} {
		b.Run(mode, func(b *testing.B) {
			const pairs = 32
			var all sync.WaitGroup
			rounds := make(chan struct{}, pairs)
			for range pairs {
				local, peer := tcpPair(b)
				all.Go(func() {
					in := make([]byte, len(request))
					for {
						if _, err := io.ReadFull(peer, in); err != nil {
							return
						}
						peer.Write(response)
					}
				})
				all.Go(func() {
					defer local.Close()
					s := newSocket(local, mode != "plain, deferred")
					conn := net.Conn(s)
					if mode == "net" {
						conn = local
					}
					in := make([]byte, len(response))
					for range rounds {
						s.deferWrites(strings.HasSuffix(mode, "deferred"))
						conn.Write(request)
						if _, err := io.ReadFull(conn, in); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			for b.Loop() {
				rounds <- struct{}{}
			}
			close(rounds)
			all.Wait()
		})
	}
}

// busyClientsEnv is an environment variable. With an address in it, the test
// program is the clients of BenchmarkBusy.
const busyClientsEnv = "WXPROXY_TEST_BUSY"

func TestMain(m *testing.M) {
	if addr := os.Getenv(busyClientsEnv); addr != "" {
		runBusyClients(addr)
		return
	}
	os.Exit(m.Run())
}

const busyMessageSize = 300

// runBusyClients runs 64 clients that send the next request as soon as they
// have the response.
func runBusyClients(addr string) {
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return
			}
			for b := make([]byte, busyMessageSize); ; {
				conn.Write(b)
				if _, err := io.ReadFull(conn, b); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkBusy serves busy clients, which are a process of their own. A
// connection that yields before it reads finds the next request there more
// often than not. One that reads at once never does. Run it with GOMAXPROCS=1.
func BenchmarkBusy(b *testing.B) {
	for _, mode := range []string{"reads at once", "yields"} {
		b.Run(mode, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			clients := exec.Command(os.Args[0])
			clients.Env = append(os.Environ(), busyClientsEnv+"="+ln.Addr().String())
			if err := clients.Start(); err != nil {
				b.Fatal(err)
			}
			defer func() { clients.Process.Kill(); clients.Wait() }()
			var open atomic.Int64
			done := make(chan struct{}, 1024)
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					conn := newCallerConn(c.(*net.TCPConn), &open, time.Minute)
					go func() {
						defer conn.Close()
						for in := make([]byte, busyMessageSize); ; done <- struct{}{} {
							conn.yield = mode == "yields"
							if _, err := io.ReadFull(conn, in); err != nil {
								return
							}
							conn.Write(in)
						}
					}()
				}
			}()
			for b.Loop() {
				<-done
			}
			go func() {
				for range done { // until the clients are gone
				}
			}()
		})
	}
}
