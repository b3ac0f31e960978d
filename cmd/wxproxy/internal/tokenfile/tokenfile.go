// Package tokenfile reads files of refresh tokens, which other programs export
// as CSV or as JSON lines.
package tokenfile

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
)

// Handler receives what a file contains. Lines are counted from 1.
type Handler struct {
	// Entry receives each entry. It must check the appid. An error ends Read.
	Entry func(line int, appid, refresh string) error
	// Fault receives why a line is not an entry. The problem quotes nothing of
	// the line, because it can contain a token.
	Fault func(line int, problem string)
}

// The names of the two fields, in the header of CSV and as keys of JSON.
const (
	fieldAppID   = "appid"
	fieldRefresh = "refresh_token"
)

// maxLine is the longest JSON line in bytes. The admin listener has the same
// limit.
const maxLine = 64 << 10

// Read reads CSV or JSON lines from r and passes each entry to h. A file that
// starts with { is JSON lines. It returns the errors of r and of h.Entry, and
// an error if the whole file cannot be understood.
func Read(r io.Reader, h Handler) error {
	br := bufio.NewReaderSize(r, maxLine)
	if b, _ := br.Peek(3); bytes.Equal(b, []byte("\ufeff")) {
		br.Discard(3) // a byte order mark, which spreadsheets write
	}
	line := 1
	for {
		b, err := br.ReadByte()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case b == '\n':
			line++
		case b == ' ' || b == '\t' || b == '\r':
		case b == '[':
			return errors.New("this is a JSON array, not JSON lines (jq -c '.[]' converts it)")
		default:
			br.UnreadByte()
			if b == '{' {
				return readJSONLines(br, line, h)
			}
			return readCSV(br, line, h)
		}
	}
}

// readJSONLines reads JSON objects, one in each line. line is the number of the
// first one.
func readJSONLines(br *bufio.Reader, line int, h Handler) error {
	for ; ; line++ {
		raw, err := br.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			return errors.New("a line is longer than 64 KiB")
		}
		if raw = bytes.TrimSpace(raw); len(raw) > 0 {
			appid, refresh, ok := parseJSON(raw)
			if !ok {
				h.Fault(line, `not of the form {"appid":"wx…","refresh_token":"…"}`)
			} else if err := h.Entry(line, appid, refresh); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// parseJSON returns the two fields of a JSON object. ok is false if one is
// missing or not a string.
func parseJSON(raw []byte) (appid, refresh string, ok bool) {
	var e map[string]json.RawMessage
	ok = json.Unmarshal(raw, &e) == nil &&
		json.Unmarshal(e[fieldAppID], &appid) == nil &&
		json.Unmarshal(e[fieldRefresh], &refresh) == nil
	return appid, refresh, ok
}

// readCSV reads rows of two columns, or a header with names and then rows of
// any number of columns. line is the number of the first row.
func readCSV(r io.Reader, line int, h Handler) error {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = -1 // any number: a bad row is a fault, not the end
	rows.TrimLeadingSpace = true
	rows.ReuseRecord = true
	appid, refresh, header := 0, 1, false // columns of the fields
	for first := true; ; first = false {
		row, err := rows.Read()
		var syntax *csv.ParseError
		switch {
		case err == io.EOF:
			return nil
		case errors.As(err, &syntax):
			h.Fault(line-1+syntax.StartLine, "the quotes do not match")
			continue
		case err != nil:
			return err
		}
		rowLine, _ := rows.FieldPos(0)
		rowLine += line - 1
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		if first && column(row, fieldAppID) >= 0 {
			header = true
			appid, refresh = column(row, fieldAppID), column(row, fieldRefresh)
			if refresh < 0 {
				return errors.New("the header has no column refresh_token")
			}
			continue
		}
		if len(row) <= max(appid, refresh) || !header && len(row) != 2 {
			h.Fault(rowLine, "not the columns appid and refresh_token, separated by a comma")
			continue
		}
		if err := h.Entry(rowLine, row[appid], row[refresh]); err != nil {
			return err
		}
	}
}

// column returns the number of the column with this name, or -1.
func column(header []string, name string) int {
	return slices.IndexFunc(header, func(s string) bool { return strings.EqualFold(s, name) })
}
