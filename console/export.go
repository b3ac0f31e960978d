package console

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"wxproxy/tokens/store/archive"
)

// Errors that Config.Export returns before it has written anything.
var (
	// ErrNotSealed reports that the records are not encrypted.
	ErrNotSealed = errors.New("the store is not encrypted")
	// ErrExporting reports that another export runs.
	ErrExporting = errors.New("another export is running")
)

// exportStall is how long one write of an export may take. An export as a whole
// may take as long as it needs.
const exportStall = time.Minute

// serveExport is GET /api/store/export. A response that is complete has the end
// of an export: after an error the connection is closed.
func (s *state) serveExport(w http.ResponseWriter, r *http.Request) {
	// The context of a request ends at its read deadline.
	ctx, cancel := extendDeadlines(w, r, 24*time.Hour)
	defer cancel()
	out := &exportWriter{w: w, c: http.NewResponseController(w)}
	sum, err := s.export(ctx, out)
	switch {
	case err == nil:
		s.log.Info("store exported by operator", "records", sum.Records, "damaged", sum.Damaged,
			"bytes", out.n, "remote", r.RemoteAddr)
	case out.n > 0:
		s.log.Warn("export aborted", "error", err, "remote", r.RemoteAddr)
		panic(http.ErrAbortHandler)
	case errors.Is(err, ErrNotSealed):
		fail(w, r, &fault{status: http.StatusConflict, msg: ErrNotSealed.Error(),
			hint: "records in memory are not exported: use a file or Redis"})
	case errors.Is(err, ErrExporting):
		fail(w, r, &fault{status: http.StatusTooManyRequests, msg: ErrExporting.Error(),
			hint: "try again after the time in Retry-After", retryAfter: 10 * time.Second})
	default:
		fail(w, r, s.toFault(err, ""))
	}
}

// exportWriter writes the response of an export. It sends the header with the
// first bytes, and extends the deadline before each write.
type exportWriter struct {
	w http.ResponseWriter
	c *http.ResponseController
	n int64 // bytes written
}

// Write implements [io.Writer].
func (e *exportWriter) Write(b []byte) (int, error) {
	if e.n == 0 {
		h := e.w.Header()
		h.Set("Content-Type", archive.ContentType)
		h.Set("Content-Disposition", `attachment; filename="wxproxy.export"`)
	}
	_ = e.c.SetWriteDeadline(time.Now().Add(exportStall)) // cannot fail over TCP
	n, err := e.w.Write(b)
	e.n += int64(n)
	return n, err
}

// Exporter writes the records of the store to w, still encrypted, in the form
// of package archive. See [ErrNotSealed] and [ErrExporting] for errors before
// the first byte.
type Exporter = func(ctx context.Context, w io.Writer) (archive.Summary, error)
