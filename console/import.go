package console

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// Limits of an import.
const (
	maxImport = 16 << 20 // bytes of the body
	maxLine   = 64 << 10 // bytes of a line
	maxFaults = 1000     // faults that are reported; all are counted
	maxToken  = 1024     // bytes; the longest refresh tokens seen are below 200
)

// lineFault reports what is wrong with one entry. It quotes nothing of the
// entry, which contains a secret.
type lineFault struct {
	Line  int    `json:"line"` // from 1; the number of the element in an array
	AppID string `json:"appid,omitempty"`
	Error string `json:"error"`
}

// importer imports entries and counts the outcomes. It is also the response.
type importer struct {
	Read   int         `json:"read"`
	Added  int         `json:"added"`
	Kept   int         `json:"kept"` // there was a refresh token already
	Failed int         `json:"failed"`
	Faults []lineFault `json:"faults"` // the first 1000

	// Error is the reason why the rest was not read. Earlier entries stay
	// imported.
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`

	// store imports one refresh token; see [Accounts].
	store func(appid string, refresh wechat.Secret) (bool, error)
}

// serveImport is POST /api/accounts/import. The body is JSON lines or a JSON
// array of objects with appid and refresh_token. Entries are imported as they
// arrive, and importing one again changes nothing, so after a failure the whole
// body can be sent again.
func (s *state) serveImport(w http.ResponseWriter, r *http.Request) {
	if s.stats.Component() == "" {
		fail(w, r, noComponent)
		return
	}
	ctx, cancel := extendDeadlines(w, r, importTimeout)
	defer cancel()
	in := &importer{
		Faults: []lineFault{},
		store: func(appid string, refresh wechat.Secret) (bool, error) {
			return s.accounts.Import(ctx, appid, refresh)
		},
	}
	err := in.run(http.MaxBytesReader(w, r.Body, maxImport))
	s.log.Info("accounts imported by operator", "read", in.Read, "added", in.Added, "kept", in.Kept,
		"failed", in.Failed, "remote", r.RemoteAddr)
	if err == nil {
		replyJSON(w, http.StatusOK, in)
		return
	}
	f := s.importFault(err)
	in.Error, in.Hint = f.msg, f.hint
	f.setRetryAfter(w)
	replyJSON(w, f.status, in)
}

// importFault returns the response to an error that ended an import.
func (s *state) importFault(err error) *fault {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &fault{status: http.StatusRequestEntityTooLarge, msg: "body larger than 16 MiB",
			hint: "send it in parts"}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded):
		return &fault{status: http.StatusBadRequest, msg: "body incomplete",
			hint: "send it again; imported entries stay"}
	case errors.Is(err, bufio.ErrTooLong):
		return &fault{status: http.StatusBadRequest, msg: "line longer than 64 KiB",
			hint: "send JSON lines, or a JSON array"}
	case errors.Is(err, errEntries):
		return &fault{status: http.StatusBadRequest, msg: err.Error(),
			hint: `send entries such as {"appid":"wx…","refresh_token":"…"}`}
	}
	return s.toFault(err, "")
}

// errEntries takes the place of the decoder's errors, which quote the input.
var errEntries = errors.New("invalid JSON array after this entry")

// run reads entries to the end, or until an error makes the rest useless. It
// recognizes the form by the first character.
func (in *importer) run(body io.Reader) error {
	br := bufio.NewReader(body)
	for {
		b, err := br.Peek(1)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(b)) > 0 {
			if b[0] == '[' {
				return in.array(br)
			}
			return in.lines(br)
		}
		if b[0] == '\n' {
			// Count blank lines, so that reported numbers match the sender's.
			return in.lines(br)
		}
		br.Discard(1)
	}
}

// lines reads JSON lines.
func (in *importer) lines(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
			if err := in.entry(n, line); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// array reads a JSON array, one element at a time.
func (in *importer) array(r io.Reader) error {
	dec := json.NewDecoder(r)
	if _, err := dec.Token(); err != nil {
		return hideDecodeError(err)
	}
	for n := 1; dec.More(); n++ {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return hideDecodeError(err)
		}
		if err := in.entry(n, raw); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return hideDecodeError(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return hideDecodeError(err)
	}
	return nil
}

// hideDecodeError returns errors of the connection as they are, and errEntries
// for those of the decoder.
func hideDecodeError(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return errEntries
}

// entry imports one entry. It returns an error only if the rest would fail as
// well: the store is unavailable, or wxproxy stops.
func (in *importer) entry(n int, raw []byte) error {
	in.Read++
	var e struct {
		AppID        string        `json:"appid"`
		RefreshToken wechat.Secret `json:"refresh_token"`
	}
	switch err := json.Unmarshal(raw, &e); {
	case err != nil:
		in.fault(n, "", `not a JSON object such as {"appid":"wx…","refresh_token":"…"}`)
		return nil
	case !wechat.IsAppID(e.AppID):
		in.fault(n, "", "invalid appid: want wx and 16 lower-case letters or digits")
		return nil
	case e.RefreshToken.IsEmpty():
		in.fault(n, e.AppID, "no refresh_token")
		return nil
	case !isToken(e.RefreshToken.Reveal()):
		in.fault(n, e.AppID, "invalid refresh_token: too long, or characters that tokens do not have")
		return nil
	}
	added, err := in.store(e.AppID, e.RefreshToken)
	switch {
	case err == nil && added:
		in.Added++
	case err == nil:
		in.Kept++
	case errors.Is(err, tokens.ErrUnavailable), errors.Is(err, tokens.ErrClosed),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		in.Read-- // it was not imported
		return err
	default:
		in.fault(n, e.AppID, err.Error())
	}
	return nil
}

// fault counts a failed entry and reports it if there are not too many.
func (in *importer) fault(n int, appid, what string) {
	in.Failed++
	if len(in.Faults) < maxFaults {
		in.Faults = append(in.Faults, lineFault{n, appid, what})
	}
}

// isToken reports whether s consists of visible ASCII characters, as all of
// WeChat's tokens do, and is not too long for one.
func isToken(s string) bool {
	for _, ch := range []byte(s) {
		if ch <= ' ' || ch >= 0x7f {
			return false
		}
	}
	return len(s) <= maxToken
}
