package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// bodyResult is what a test's server read of one request.
type bodyResult struct {
	size, capacity int
	reserved       int64
	err            error
}

// serveBodies serves requests with fasthttp, configured as package proxy does
// it. It reads each body with Body.Read and sends the result to a channel.
func serveBodies(t *testing.T, limit int, budget *Budget) (*Listener, chan bodyResult) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewListener(ln, ListenerConfig{MaxConns: 1000, IdleTimeout: testTimeout})
	results := make(chan bodyResult, 100)
	share := budget.NewShare()
	s := &fasthttp.Server{
		StreamRequestBody: true, MaxRequestBodySize: PrereadBody,
		DisablePreParseMultipartForm: true,
		Handler: func(ctx *fasthttp.RequestCtx) {
			var body Body
			err := body.Read(ctx, limit, share, time.Now())
			if err != nil {
				ctx.SetConnectionClose()
				ConnOf(ctx.Conn()).LingerOnClose()
			}
			b := body.Bytes()
			fmt.Fprint(ctx, len(b))
			result := bodyResult{len(b), cap(b), budget.Used(), err}
			body.Release()
			results <- result
		},
		// fasthttp itself reads the first bytes of a body.
		ErrorHandler: func(_ *fasthttp.RequestCtx, err error) { results <- bodyResult{err: err} },
	}
	go s.Serve(l)
	t.Cleanup(func() { s.Shutdown() })
	return l, results
}

const bodyHead = "POST /a HTTP/1.1\r\nHost: x\r\n"

func TestReadBody(t *testing.T) {
	const limit, chunked = 150_000, "Transfer-Encoding: chunked\r\n\r\n"
	large := strings.Repeat("a", 100_000)
	chunk := func(body string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(body), body) }
	budget := new(Budget)
	budget.SetLimit(1 << 30)
	l, results := serveBodies(t, limit, budget)
	for _, c := range []struct {
		raw  string
		size int // of the body, if want is nil
		want error
	}{
		{"\r\n", 0, nil},
		{"Content-Length: 0\r\n\r\n", 0, nil},
		{"Content-Length: 5\r\n\r\nhello", 5, nil},
		{"Content-Length: 8193\r\n\r\n" + large[:8193], 8193, nil},
		{"Content-Length: 100000\r\n\r\n" + large, 100_000, nil},
		{chunked + "0\r\n\r\n", 0, nil},
		{chunked + chunk("hi") + "0\r\nX-A: b\r\n\r\n", 2, nil},
		{chunked + chunk(large) + chunk("a") + "0\r\n\r\n", 100_001, nil},

		{"Content-Length: 5\r\n\r\nhell", 0, io.ErrUnexpectedEOF},
		{"Content-Length: 8192\r\n\r\n" + large[:8191], 0, io.ErrUnexpectedEOF},
		{"Content-Length: 120000\r\n\r\n" + large, 0, io.ErrUnexpectedEOF},
		{chunked, 0, io.ErrUnexpectedEOF},
		{chunked + chunk("hi"), 0, io.ErrUnexpectedEOF},
		{chunked + chunk("hi") + "0\r\n", 0, io.ErrUnexpectedEOF},
		{chunked + chunk(large), 0, io.ErrUnexpectedEOF},

		{"Content-Length: 150001\r\n\r\n" + large, 0, fasthttp.ErrBodyTooLarge}, // before the rest arrives
		{chunked + chunk(large) + chunk(large), 0, fasthttp.ErrBodyTooLarge},
		{chunked + chunk(large) + chunk(large[:50_001]) + "0\r\n\r\n", 0, fasthttp.ErrBodyTooLarge},
	} {
		client := dial(t, l)
		go func() {
			io.WriteString(client, bodyHead+c.raw)
			client.(*net.TCPConn).CloseWrite()
		}()
		got := <-results
		switch {
		case c.want == nil && got.err == nil && got.size == c.size:
		case c.want == io.ErrUnexpectedEOF && got.err != nil: // or fasthttp's error
		case c.want != nil && errors.Is(got.err, c.want):
		default:
			t.Errorf("%.60q: got %d bytes, %v, want %d, %v",
				c.raw, got.size, got.err, c.size, c.want)
		}
	}
	if n := budget.Used(); n != 0 {
		t.Errorf("got %d bytes of the budget in use at the end, want 0", n)
	}
}

// Several bodies on one connection: each ends where it should.
func TestReadBodyKeepsConnectionInStep(t *testing.T) {
	budget := new(Budget)
	budget.SetLimit(1 << 30)
	l, results := serveBodies(t, 1<<20, budget)
	client := dial(t, l)
	br := bufio.NewReader(client)
	for n := range 200 {
		size := n * 1000
		if n%2 == 0 {
			go fmt.Fprintf(client, "%sContent-Length: %d\r\n\r\n%s",
				bodyHead, size, strings.Repeat("a", size))
		} else {
			go fmt.Fprintf(client, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n",
				bodyHead, size, strings.Repeat("a", size))
		}
		if got := <-results; got.size != size || got.err != nil {
			t.Fatalf("request %d: got %d bytes, %v, want %d", n, got.size, got.err, size)
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
	}
}

// The buffer, and what counts against the budget, follows the bytes that arrive
// and not the ones that are announced.
func TestReadBodyGrowsWithData(t *testing.T) {
	const announced = 32 << 20
	for _, sent := range []int{1, 20_000, 100_000, 1 << 20} {
		budget := new(Budget)
		budget.SetLimit(1 << 30)
		l, results := serveBodies(t, announced, budget)
		client := dial(t, l)
		fmt.Fprintf(client, "%sContent-Length: %d\r\n\r\n%s",
			bodyHead, announced, strings.Repeat("a", sent))
		client.(*net.TCPConn).CloseWrite()
		got := <-results
		if got.err == nil || got.size != sent {
			t.Errorf("got %d bytes, %v, want %d and an error", got.size, got.err, sent)
		}
		most := max(uncountedBody, bodyGrowthFactor*sent)
		if got.capacity > most || got.reserved > int64(most) {
			t.Errorf("%d of %d bytes sent: got a buffer of %d and %d reserved, want %d at most",
				sent, announced, got.capacity, got.reserved, most)
		}
	}
}

func TestReadBodyKeepsToBudget(t *testing.T) {
	budget := new(Budget)
	budget.SetLimit(1_000_000)
	l, results := serveBodies(t, 1<<20, budget)
	// Two slow bodies hold nearly all of it.
	const large = 390_000
	var clients []net.Conn
	for range 2 {
		c := dial(t, l)
		fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n%s",
			bodyHead, large, strings.Repeat("a", large-1))
		clients = append(clients, c)
	}
	for end := time.Now().Add(testTimeout); budget.Used() < 2*large; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got %d bytes of the budget in use, want %d", budget.Used(), 2*large)
		}
	}
	send := func(n int) bodyResult {
		c := dial(t, l)
		go fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n%s", bodyHead, n, strings.Repeat("a", n))
		return <-results
	}
	for range 5 {
		if got := send(large); !errors.Is(got.err, ErrBodyBudget) {
			t.Errorf("third large body: got %d bytes, %v, want %v",
				got.size, got.err, ErrBodyBudget)
		}
		if got := send(60_000); got.err != nil {
			t.Errorf("small body: got %v", got.err)
		}
	}
	var all sync.WaitGroup
	for _, c := range clients {
		all.Go(func() { io.WriteString(c, "a") })
	}
	for range clients {
		if got := <-results; got.size != large || got.err != nil {
			t.Errorf("slow body: got %d bytes, %v, want %d", got.size, got.err, large)
		}
	}
	all.Wait()
	if n := budget.Used(); n != 0 {
		t.Errorf("got %d bytes of the budget in use at the end, want 0", n)
	}
	if got := send(large); got.err != nil {
		t.Errorf("large body, with nothing else: got %v", got.err)
	}
}

// trickledBody is a body as fasthttp delivers it: its first byte, the rest as
// it has arrived, and io.EOF with the last byte.
type trickledBody struct {
	left  int
	first bool
}

func (r *trickledBody) Read(p []byte) (int, error) {
	if r.first {
		r.first, p = false, p[:1]
	}
	n := min(len(p), r.left)
	if r.left -= n; r.left == 0 {
		return n, io.EOF
	}
	return n, nil
}

// Bodies up to maxPooledBody need no allocation.
func TestReadBodyAlloc(t *testing.T) {
	budget := new(Budget)
	budget.SetLimit(1 << 20)
	share := budget.NewShare()
	for _, size := range []int{1, 200, uncountedBody, uncountedBody + 1, mediumBody, maxPooledBody} {
		var ctx fasthttp.RequestCtx
		ctx.Init2(clientConn{}, nil, false)
		body, source := new(Body), new(trickledBody)
		ctx.Request.SetBodyStream(source, size)
		now := time.Now()
		if n := testing.AllocsPerRun(100, func() {
			*source = trickledBody{left: size, first: true}
			if err := body.Read(&ctx, 1<<20, share, now); err != nil || len(body.Bytes()) != size {
				t.Fatalf("%d bytes: got %d, %v", size, len(body.Bytes()), err)
			}
			body.Release()
		}); n != 0 {
			t.Errorf("%d bytes: got %v allocations, want 0", size, n)
		}
	}
}

// The memory of a body that is held is that of the body alone, and is released
// with it. Nothing else keeps the body.
func TestHoldBody(t *testing.T) {
	budget := new(Budget)
	budget.SetLimit(4 << 20)
	for _, size := range []int{100, InspectLimit, 1 << 20} {
		resp, body := new(fasthttp.Response), make([]byte, size)
		resp.SwapBody(make([]byte, 2*size))
		memory := budget.NewShare().Reserve()
		if size > InspectLimit {
			memory.Resize(2 * size)
		}
		HoldBody(resp, body, memory, clientConn{}, time.Minute)
		want := int64(0)
		if size > InspectLimit {
			want = int64(size)
		}
		if n := budget.Used(); n != want {
			t.Errorf("%d bytes: got %d reserved, want %d", size, n, want)
		}
		var w bytes.Buffer
		if _, err := resp.WriteTo(&w); err != nil || w.Len() < size {
			t.Errorf("%d bytes: got %d, %v", size, w.Len(), err)
		}
		resp.Reset()
		if n := budget.Used(); n != 0 {
			t.Errorf("%d bytes: got %d reserved at the end, want 0", size, n)
		}
		if n := cap(resp.SwapBody(nil)); n > 2*size || size > InspectLimit && n != 0 {
			t.Errorf("%d bytes: got a buffer of %d kept", size, n)
		}
	}
}
