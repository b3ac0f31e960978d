package console_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"wxproxy/console"
	"wxproxy/tokens/store/archive"
)

// TestExport × complete, an error before the first byte, an error in the
// middle: a response is complete, or says what is wrong, or breaks off.
func TestExport(t *testing.T) {
	failing := func(err error) console.Exporter {
		return func(context.Context, io.Writer) (archive.Summary, error) {
			return archive.Summary{}, err
		}
	}
	for name, c := range map[string]struct {
		export console.Exporter
		status int
		want   string // in the body
		retry  string
		breaks bool
	}{
		"complete": {func(_ context.Context, w io.Writer) (archive.Summary, error) {
			_, err := io.WriteString(w, "the records")
			return archive.Summary{Records: 1}, err
		}, 200, "the records", "", false},
		"breaks off": {func(_ context.Context, w io.Writer) (archive.Summary, error) {
			io.WriteString(w, strings.Repeat("r", 1<<16))
			return archive.Summary{}, errors.New("broken")
		}, 200, "rrr", "", true},
		"not sealed":      {failing(console.ErrNotSealed), 409, "not encrypted", "", false},
		"another runs":    {failing(console.ErrExporting), 429, "another export", "10", false},
		"store is broken": {failing(errors.New("secret")), 500, "internal error", "", false},
	} {
		config := newBackend().config()
		config.Export = c.export
		resp, err := http.Get("http://" + start(t, config) + "/api/store/export")
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.want) ||
			resp.Header.Get("Retry-After") != c.retry || (err != nil) != c.breaks {
			t.Errorf("%s: got %d %.100s, error %v, want %d %s", name, resp.StatusCode, body, err,
				c.status, c.want)
		}
		if strings.Contains(string(body), "secret") {
			t.Errorf("%s: the response contains the text of an unknown error", name)
		}
	}
	resp, err := http.Get("http://" + start(t, newBackend().config()) + "/api/store/export")
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("without Export: got %v, error %v, want 404", resp, err)
	}
}
