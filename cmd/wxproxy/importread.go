package main

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

// entryReader is told what a file of refresh tokens holds. Faults quote nothing of the file.
type entryReader struct {
	entry func(line int, appid, refresh string) error // its error ends the reading
	fault func(line int, what string)
}

// Names of the columns, in CSV and in JSON.
const (
	columnAppID   = "appid"
	columnRefresh = "refresh_token"
)

// longestLine bounds a line of JSON; the admin listener has the same limit.
const longestLine = 64 << 10

// readEntries reads CSV or JSON lines, whichever r begins with.
func readEntries(r io.Reader, to entryReader) error {
	br := bufio.NewReaderSize(r, longestLine)
	if b, _ := br.Peek(3); bytes.Equal(b, []byte("\ufeff")) {
		br.Discard(3) // spreadsheets put it in front
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
			return errors.New("this is a JSON array; import takes JSON lines, one object a line (jq -c '.[]' makes them)")
		default:
			br.UnreadByte()
			if b == '{' {
				return readJSONLines(br, line, to)
			}
			return readCSV(br, line, to)
		}
	}
}

func readJSONLines(br *bufio.Reader, line int, to entryReader) error {
	for ; ; line++ {
		raw, err := br.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			return errors.New("a line is over 64 KiB")
		}
		if raw = bytes.TrimSpace(raw); len(raw) > 0 {
			var e map[string]json.RawMessage
			appid, okA, refresh, okR := "", false, "", false
			if json.Unmarshal(raw, &e) == nil {
				okA = json.Unmarshal(e[columnAppID], &appid) == nil
				okR = json.Unmarshal(e[columnRefresh], &refresh) == nil
			}
			if !okA || !okR {
				to.fault(line, `this is no {"appid":"wx…","refresh_token":"…"}`)
			} else if err := to.entry(line, appid, refresh); err != nil {
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

func readCSV(r io.Reader, line int, to entryReader) error {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = -1
	rows.TrimLeadingSpace = true
	rows.ReuseRecord = true
	appid, refresh, header := 0, 1, false
	for first := true; ; first = false {
		row, err := rows.Read()
		var syntax *csv.ParseError
		switch {
		case err == io.EOF:
			return nil
		case errors.As(err, &syntax):
			to.fault(line-1+syntax.StartLine, "the quotes of this line do not match")
			continue
		case err != nil:
			return err
		}
		at, _ := rows.FieldPos(0)
		at += line - 1
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		if first && slices.ContainsFunc(row, func(s string) bool { return strings.EqualFold(s, columnAppID) }) {
			header = true
			appid, refresh = column(row, columnAppID), column(row, columnRefresh)
			if refresh < 0 {
				return errors.New("the header names no column refresh_token")
			}
			continue
		}
		if len(row) <= max(appid, refresh) || !header && len(row) != 2 {
			to.fault(at, "this line has not the columns appid and refresh_token, separated by a comma")
			continue
		}
		if err := to.entry(at, row[appid], row[refresh]); err != nil {
			return err
		}
	}
}

// column finds a column by its name; -1: there is none.
func column(header []string, name string) int {
	return slices.IndexFunc(header, func(s string) bool { return strings.EqualFold(s, name) })
}
