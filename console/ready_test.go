package console_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/console"
)

func TestReadyzShowsReasons(t *testing.T) {
	one := errors.New("the store does not answer: i/o timeout")
	two := errors.New("no component_verify_ticket: WeChat pushes one to 授权事件接收URL <b>&amp;")
	for name, c := range map[string]struct {
		err  error
		body string
	}{
		"one":      {one, one.Error() + "\n"},
		"joined":   {errors.Join(one, nil, two), one.Error() + "\n" + two.Error() + "\n"},
		"wrapped":  {fmt.Errorf("%w", errors.Join(two, one)), two.Error() + "\n" + one.Error() + "\n"},
		"nil only": {errors.Join(nil, nil), "ready"},
	} {
		address := start(t, console.Config{Ready: func(context.Context) error { return c.err }})
		want := http.StatusServiceUnavailable
		if c.err == nil {
			want = http.StatusOK
		}
		got := get(t, address, "/readyz")
		if got.status != want || got.body != c.body {
			t.Errorf("%s: got %d %q, want %d %q", name, got.status, got.body, want, c.body)
		}
		if got.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s: got Content-Type %s", name, got.header.Get("Content-Type"))
		}
		if got := send(t, address, "HEAD /readyz HTTP/1.1"); got.status != want || got.body != "" {
			t.Errorf("%s, HEAD: got %d %q, want %d without a body", name, got.status, got.body, want)
		}
	}
}

// A liveness check must not depend on the store.
func TestHealthzDoesNotCheckReadiness(t *testing.T) {
	address := start(t, console.Config{Ready: func(context.Context) error {
		t.Error("Ready was called by /healthz")
		return nil
	}})
	if got := get(t, address, "/healthz"); got.status != 200 {
		t.Errorf("healthz: got %d, want 200", got.status)
	}
}

func ready(h http.Handler, ctx context.Context) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil).WithContext(ctx))
	return w
}

const late = "unknown: the check timed out after 2 s\n"

// The tests below use the fake clock of synctest, so two seconds pass at once.

func TestReadyTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := console.New(console.Config{Ready: func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("the store: %w", context.Cause(ctx))
		}})
		began := time.Now()
		w := ready(h, t.Context())
		// Both happen at the same moment: the context of Ready, and the
		// timeout.
		if body := w.Body.String(); w.Code != 503 || body != late && body != "the store: context deadline exceeded\n" {
			t.Errorf("got %d %q, want 503 with one of the two reasons", w.Code, body)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("took %v, want 2s", took)
		}
		synctest.Wait()
	})
}

// A check that ignores its context does not delay the response, and no second
// check starts beside it.
func TestHangingReadyRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		release := make(chan struct{})
		h := console.New(console.Config{Ready: func(context.Context) error {
			if checks.Add(1) == 1 {
				<-release
			}
			return nil
		}})
		began := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if w := ready(h, t.Context()); w.Code != 503 || w.Body.String() != late {
					t.Errorf("while it hangs: got %d %q, want 503 %q", w.Code, w.Body, late)
				}
			})
		}
		all.Wait()
		if w := ready(h, t.Context()); w.Code != 503 {
			t.Errorf("one more request while it hangs: got %d, want 503", w.Code)
		}
		if took, n := time.Since(began), checks.Load(); took != 2*time.Second || n != 1 {
			t.Errorf("took %v with %d checks, want 2s with one", took, n)
		}
		close(release)
		synctest.Wait()
		if w := ready(h, t.Context()); w.Code != 200 || checks.Load() != 2 {
			t.Errorf("after it returned: got %d with %d checks, want 200 with two", w.Code, checks.Load())
		}
	})
}

// The client that started a check can leave; the others get the result.
func TestReadyOutlivesItsFirstClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := console.New(console.Config{Ready: func(ctx context.Context) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		first, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { ready(h, first) })
		synctest.Wait()
		all.Go(func() {
			if w := ready(h, t.Context()); w.Code != 200 {
				t.Errorf("the second client: got %d %q, want 200", w.Code, w.Body)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		all.Wait()
	})
}
