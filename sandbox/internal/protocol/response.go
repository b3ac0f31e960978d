package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"wxproxy/sandbox/internal/random"
)

const (
	jsonType = "application/json; encoding=utf-8" // WeChat writes encoding, not charset
	textType = "text/plain"                       // WeChat's type for JSON under /sns/
)

// fields is a JSON object to be encoded.
type fields map[string]any

// Response is what WeChat answers to a request, before it is written. The zero
// value is an empty response with status 200.
type Response struct {
	Status      int    // default: 200
	ContentType string // default: that of JSON on this path
	Disposition string // value of Content-disposition, "" for none
	Body        []byte
	Stream      io.Reader // replaces Body if it is set; Length bytes are read
	Length      int64     // of Stream; Complete sets it from Body otherwise

	ErrCode       int    // if it is not 0, Complete makes the body from it
	ErrMsg        string // default: WeChat's text for ErrCode
	ErrCodeString bool   // write the errcode as a string
	RID           string // the number of a failed request, set by Complete
}

// reply is a response with that object as its body.
func reply(f fields) Response { return Response{Body: encode(f)} }

// ok is the response of an endpoint that has nothing to return.
func ok() Response { return reply(fields{"errcode": 0, "errmsg": "ok"}) }

// okWith is a response with errcode 0 and the fields of f.
func okWith(f fields) Response {
	f["errcode"], f["errmsg"] = 0, "ok"
	return reply(f)
}

// fail is a response with that errcode.
func fail(code int) Response { return Response{ErrCode: code} }

// result is fail(code), or ok() if code is 0.
func result(code int) Response {
	if code != 0 {
		return fail(code)
	}
	return ok()
}

// encode returns v as JSON without the HTML escapes of json.Marshal, which
// WeChat does not use.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("BUG: encoding a response: " + err.Error())
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

// Complete makes the body that WeChat sends with an errcode, and sets the
// fields that have a default.
func (a *Response) Complete(r *Request) {
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	if a.ErrCode != 0 {
		a.completeError(r)
	}
	if a.ContentType == "" {
		a.ContentType = jsonType
		if strings.HasPrefix(r.Path, "/sns/") {
			a.ContentType = textType
		}
	}
	if a.Stream == nil {
		a.Length = int64(len(a.Body))
	}
}

// completeError replaces the body by the errcode, its text and a new RID.
func (a *Response) completeError(r *Request) {
	// The first group of the number is the time of the request.
	a.RID = fmt.Sprintf("%08x-%s-%s", uint32(r.Now.Unix()), random.Hex(4), random.Hex(4))
	if a.ErrMsg == "" {
		a.ErrMsg = errmsg(a.ErrCode)
	}
	var code any = a.ErrCode
	if a.ErrCodeString {
		code = strconv.Itoa(a.ErrCode)
	}
	a.Body = encode(fields{"errcode": code, "errmsg": a.ErrMsg + " rid: " + a.RID})
	a.ContentType = ""
	if r.Path == "/wxa/get_qrcode" {
		a.ContentType = textType
	}
}

// IsJSON reports whether the response is a JSON object, whatever its type says.
func (a *Response) IsJSON() bool {
	if !strings.HasPrefix(a.ContentType, "application/json") && !strings.HasPrefix(a.ContentType, textType) {
		return false
	}
	return a.Stream == nil && bytes.HasPrefix(a.Body, []byte("{"))
}
