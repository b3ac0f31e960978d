package sandbox

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// jsonType is spelt as WeChat spells it: encoding, not charset.
	jsonType = "application/json; encoding=utf-8"
	textType = "text/plain" // of JSON too, under /sns/
)

// fields is a JSON object that is made here.
type fields map[string]any

// answer is what a call comes to, before it is written.
type answer struct {
	status      int    // 0: 200
	contentType string // "": JSON, as the path has it
	disposition string // Content-disposition; "": none
	body        []byte
	stream      io.Reader // instead of body, of that length
	length      int64
	code        int    // errcode
	message     string // errmsg; "": WeChat's
	quoted      bool   // errcode is a string
	rid         string
}

func reply(f fields) answer { return answer{body: encode(f)} }

// ok is the usual success of an endpoint that has nothing to tell.
func ok() answer { return reply(fields{"errcode": 0, "errmsg": "ok"}) }

// okWith is a success that says so, and more.
func okWith(f fields) answer {
	f["errcode"], f["errmsg"] = 0, "ok"
	return reply(f)
}

func fail(code int) answer { return answer{code: code} }

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("BUG: an answer cannot be encoded: " + err.Error())
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// finish turns an errcode into the body that WeChat sends with it, and completes the rest.
func (a *answer) finish(c *call) {
	orElse(&a.status, http.StatusOK)
	sns := strings.HasPrefix(c.path, "/sns/")
	if a.code != 0 {
		// The first group of the number is the time of the call.
		a.rid = fmt.Sprintf("%08x-%s-%s", uint32(c.now.Unix()), randomHex(4), randomHex(4))
		orElse(&a.message, errmsg(a.code))
		var code any = a.code
		if a.quoted {
			code = strconv.Itoa(a.code)
		}
		a.body = encode(fields{"errcode": code, "errmsg": a.message + " rid: " + a.rid})
		a.contentType = ""
		if c.path == "/wxa/get_qrcode" {
			a.contentType = textType
		}
	}
	if a.contentType == "" {
		a.contentType = jsonType
		if sns {
			a.contentType = textType
		}
	}
	if a.stream == nil {
		a.length = int64(len(a.body))
	}
}

func (a *answer) isJSON() bool {
	return a.stream == nil && (strings.HasPrefix(a.contentType, "application/json") || strings.HasPrefix(a.contentType, textType)) &&
		bytes.HasPrefix(a.body, []byte("{"))
}

// write sends the answer, with what a fault does to it on the way. No lock is held.
func (a *answer) write(w http.ResponseWriter, c *call, compressed bool) {
	f := c.fault
	if f == nil {
		f = &Fault{}
	}
	if !f.wait(c.Context()) || f.Break == BreakBefore {
		panic(http.ErrAbortHandler) // closes the connection, says nothing
	}
	var body io.Reader = bytes.NewReader(a.body)
	if a.stream != nil {
		body = a.stream
	}
	h := w.Header()
	if (compressed || f.Gzip) && a.stream == nil {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(a.body)
		z.Close()
		body, a.length = &b, int64(b.Len())
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", a.contentType)
	if a.disposition != "" {
		// Spelt so at WeChat; net/http would write a capital D.
		h["Content-disposition"] = []string{a.disposition}
	}
	if a.code != 0 {
		h["LogicRet"] = []string{strconv.Itoa(a.code)} // seen in the wild, not documented
	}
	if !f.Chunked {
		h.Set("Content-Length", strconv.FormatInt(a.length, 10))
	}
	w.WriteHeader(a.status)
	flush := http.NewResponseController(w).Flush
	if f.Chunked || f.Break == BreakMiddle || f.Drip > 0 {
		_ = flush()
	}
	switch {
	case f.Break == BreakMiddle:
		_, _ = io.CopyN(w, body, a.length/2)
		_ = flush()
		panic(http.ErrAbortHandler)
	case f.Drip > 0:
		drip(c, w, body, a.length, time.Duration(f.Drip), flush)
	default:
		_, _ = io.Copy(w, body)
	}
}

// drip sends the body in sixteen pieces, with a pause before each.
func drip(c *call, w io.Writer, body io.Reader, length int64, pause time.Duration, flush func() error) {
	piece := length/16 + 1
	for sent := int64(0); sent < length; sent += piece {
		if !pauseFor(c.Context(), pause) {
			panic(http.ErrAbortHandler)
		}
		if _, err := io.CopyN(w, body, min(piece, length-sent)); err != nil {
			return // the client has left
		}
		_ = flush()
	}
}
