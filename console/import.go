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

// What an import may bring.
const (
	mostImport = 16 << 20 // bytes of a body
	mostLine   = 64 << 10 // bytes of a line
	mostFaults = 1000     // that are told; all are counted
	// The longest refresh tokens seen have below 200 characters.
	mostToken = 1024
)

// lineFault says what is wrong with one entry, and quotes nothing of it: it holds a secret.
type lineFault struct {
	Line  int    `json:"line"` // from 1; in an array, the number of the element
	AppID string `json:"appid,omitempty"`
	Error string `json:"error"`
}

// importer reads entries and counts what became of them.
type importer struct {
	Read   int         `json:"read"`
	Added  int         `json:"added"`
	Kept   int         `json:"kept"` // a refresh token was at hand already
	Failed int         `json:"failed"`
	Faults []lineFault `json:"faults"` // the first 1000
	// Error says why the rest was not read; what came before it is imported.
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`

	take func(appid string, refresh wechat.Secret) (bool, error)
}

// serveImport is POST /api/accounts/import: JSON lines, or a JSON array, of objects with appid and
// refresh_token. Entries are imported as they arrive, and importing one again changes
// nothing: whatever went wrong in the middle, the whole may be sent again.
func (s *state) serveImport(w http.ResponseWriter, r *http.Request) {
	if s.gauges.Component() == "" {
		fail(w, r, noComponent)
		return
	}
	ctx, cancel := unhurried(w, r, importTime)
	defer cancel()
	in := &importer{Faults: []lineFault{}, take: func(appid string, refresh wechat.Secret) (bool, error) {
		return s.accounts.Import(ctx, appid, refresh)
	}}
	err := in.run(http.MaxBytesReader(w, r.Body, mostImport))
	s.log.Info("an operator imported accounts", "read", in.Read, "added", in.Added, "kept", in.Kept, "failed", in.Failed, "remote", r.RemoteAddr)
	if err == nil {
		replyJSON(w, http.StatusOK, in)
		return
	}
	f := s.importFault(err)
	in.Error, in.Hint = f.msg, f.hint
	f.comeBack(w)
	replyJSON(w, f.status, in)
}

func (s *state) importFault(err error) *fault {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &fault{status: http.StatusRequestEntityTooLarge, msg: "the body is over 16 MiB", hint: "send it in parts"}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, os.ErrDeadlineExceeded):
		return &fault{status: http.StatusBadRequest, msg: "the body broke off", hint: "send it again; what is imported already stays"}
	case errors.Is(err, bufio.ErrTooLong):
		return &fault{status: http.StatusBadRequest, msg: "a line is over 64 KiB", hint: "send JSON lines, or a JSON array"}
	case errors.Is(err, errEntries):
		return &fault{status: http.StatusBadRequest, msg: err.Error(), hint: `each entry looks like {"appid":"wx…","refresh_token":"…"}`}
	}
	return s.faultOf(err, "")
}

var errEntries = errors.New("the array cannot be read beyond this entry")

// run reads to the end, or until nothing more makes sense.
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
			// Blank lines are lines: the numbers that are told must be the sender's.
			return in.lines(br)
		}
		br.Discard(1)
	}
}

func (in *importer) lines(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, mostLine)
	for n := 1; lines.Scan(); n++ {
		if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
			if err := in.entry(n, line); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

func (in *importer) array(r io.Reader) error {
	dec := json.NewDecoder(r)
	if _, err := dec.Token(); err != nil {
		return entriesOr(err)
	}
	for n := 1; dec.More(); n++ {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return entriesOr(err)
		}
		if err := in.entry(n, raw); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return entriesOr(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return entriesOr(err)
	}
	return nil
}

// entriesOr keeps errors of the connection, and hides those of the decoder, which quote.
func entriesOr(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return errEntries
}

// entry imports one. Its error ends the whole: the store, or wxproxy, is not there any more.
func (in *importer) entry(n int, raw []byte) error {
	in.Read++
	var e struct {
		AppID        string        `json:"appid"`
		RefreshToken wechat.Secret `json:"refresh_token"`
	}
	switch err := json.Unmarshal(raw, &e); {
	case err != nil:
		in.fault(n, "", `this is no {"appid":"wx…","refresh_token":"…"}`)
		return nil
	case !wechat.IsAppID(e.AppID):
		in.fault(n, "", "its appid is not wx and 16 lower-case letters or digits")
		return nil
	case e.RefreshToken.IsEmpty():
		in.fault(n, e.AppID, "it has no refresh_token")
		return nil
	case !isToken(e.RefreshToken.Reveal()):
		in.fault(n, e.AppID, "its refresh_token is none: it is too long, or has other characters than tokens have")
		return nil
	}
	added, err := in.take(e.AppID, e.RefreshToken)
	switch {
	case err == nil && added:
		in.Added++
	case err == nil:
		in.Kept++
	case errors.Is(err, tokens.ErrUnavailable), errors.Is(err, tokens.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		in.Read-- // it was not
		return err
	default:
		in.fault(n, e.AppID, err.Error())
	}
	return nil
}

func (in *importer) fault(n int, appid, what string) {
	in.Failed++
	if len(in.Faults) < mostFaults {
		in.Faults = append(in.Faults, lineFault{n, appid, what})
	}
}

// isToken: visible ASCII, as all of WeChat's tokens are.
func isToken(s string) bool {
	for _, ch := range []byte(s) {
		if ch <= ' ' || ch >= 0x7f {
			return false
		}
	}
	return len(s) <= mostToken
}
