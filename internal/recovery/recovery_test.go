package recovery_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"wxproxy/internal/recovery"
)

// serve runs a handler below Serve. It returns the response, the reported
// causes, and the panic that was passed on.
func serve(handler func(*recovery.ResponseWriter)) (resp *httptest.ResponseRecorder, reported []any, passedOn any) {
	resp = httptest.NewRecorder()
	defer func() { passedOn = recover() }()
	recovery.Serve(resp, handler,
		func(cause any) { reported = append(reported, cause) },
		func(w http.ResponseWriter) { http.Error(w, "failed", http.StatusInternalServerError) })
	return
}

func TestServe(t *testing.T) {
	abort := http.ErrAbortHandler
	for name, tc := range map[string]struct {
		handler            func(*recovery.ResponseWriter)
		status             int
		reported, passedOn any
	}{
		"no panic":           {func(w *recovery.ResponseWriter) { w.WriteHeader(204) }, 204, nil, nil},
		"panic":              {func(*recovery.ResponseWriter) { panic("x") }, 500, "x", nil},
		"panic after status": {func(w *recovery.ResponseWriter) { w.WriteHeader(204); panic("x") }, 204, "x", abort},
		"panic after body":   {func(w *recovery.ResponseWriter) { _, _ = w.Write(nil); panic("x") }, 200, "x", abort},
		"abort":              {func(*recovery.ResponseWriter) { panic(abort) }, 200, nil, abort},
	} {
		t.Run(name, func(t *testing.T) {
			resp, reported, passedOn := serve(tc.handler)
			if resp.Code != tc.status || passedOn != tc.passedOn {
				t.Errorf("got status %d and panic %v, want %d and %v",
					resp.Code, passedOn, tc.status, tc.passedOn)
			}
			if tc.reported == nil && len(reported) > 0 || tc.reported != nil && (len(reported) != 1 ||
				reported[0] != tc.reported) {
				t.Errorf("reported %v, want %v", reported, tc.reported)
			}
		})
	}
}

func TestResponseControllerReachesTheConnection(t *testing.T) {
	resp := httptest.NewRecorder()
	recovery.Serve(resp, func(w *recovery.ResponseWriter) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("flushing: %v", err)
		}
	}, func(any) {}, func(http.ResponseWriter) {})
	if !resp.Flushed {
		t.Error("the response was not flushed")
	}
}

func TestDescribe(t *testing.T) {
	index := func() (cause any) {
		defer func() { cause = recover() }()
		return strings.Fields("SECRET")[len("SECRET")]
	}()
	for _, tc := range []struct {
		cause any
		want  string
	}{
		{index, "index out of range"},
		{"BUG: no endpoint", "BUG: no endpoint"},
		{"SECRET", "not logged"},
		{errors.New("SECRET"), "not logged"},
		{42, "not logged"},
	} {
		if got := recovery.Describe(tc.cause); !strings.Contains(got, tc.want) ||
			strings.Contains(got, "SECRET") {
			t.Errorf("Describe(%#v): got %q, want %q in it", tc.cause, got, tc.want)
		}
	}
}
