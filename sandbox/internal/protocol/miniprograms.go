package protocol

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"strings"
	"unicode/utf8"

	"wxproxy/sandbox/internal/random"
	"wxproxy/sandbox/internal/state"
)

// miniProgramHandler serves mini programs: codes, content checks, releases
// (doc/oplatform/openApi/…/miniprogram-management).
type miniProgramHandler struct {
	profiles *state.Profiles
}

func (h *miniProgramHandler) endpoints() endpoints {
	return endpoints{
		"/wxa/getwxacodeunlimit":          {post, accountToken, jsonBody, h.codeForScene},
		"/wxa/getwxacode":                 {post, accountToken, jsonBody, h.codeForPath},
		"/cgi-bin/wxaapp/createwxaqrcode": {post, accountToken, jsonBody, h.codeForPath},
		"/wxa/get_qrcode":                 {get, accountToken, noBody, h.trialCode},
		"/wxa/msg_sec_check":              {post, accountToken, plainJSON, h.checkText},
		"/wxa/commit":                     {post, accountToken, jsonBody, h.commit},
		"/wxa/submit_audit":               {post, accountToken, jsonBody, h.submitAudit},
		"/wxa/get_latest_auditstatus":     {get, accountToken, noBody, h.latestAudit},
		"/wxa/release":                    {post, accountToken, jsonBody, h.release},
	}
}

// Limits of WeChat.
const (
	maxScene    = 32   // characters
	maxCodePath = 1024 // bytes
)

// codeForScene requires a scene of 1 to 32 characters.
func (h *miniProgramHandler) codeForScene(r *Request) Response {
	in, good := decode[struct {
		Scene *string `json:"scene"`
	}](r)
	if !good || in.Scene == nil || *in.Scene == "" || utf8.RuneCountInString(*in.Scene) > maxScene {
		return fail(40169)
	}
	return picture(*in.Scene)
}

// codeForPath requires a path of at most 1,024 bytes.
func (h *miniProgramHandler) codeForPath(r *Request) Response {
	p := r.Field("path")
	if p == "" || len(p) > maxCodePath {
		return fail(40035)
	}
	return picture(p)
}

// trialCode works only after a commit. Its errors have the type text/plain.
func (h *miniProgramHandler) trialCode(r *Request) Response {
	if !h.profiles.Committed(r.account.AppID) {
		return fail(85019)
	}
	return picture(r.Arg("path"))
}

// picture is a JPEG that looks a little like a code but is none: 8 by 8 fields,
// one for each bit of a hash of the text. Different texts give different
// pictures.
func picture(text string) Response {
	sum := sha256.Sum256([]byte(text))
	img := image.NewGray(image.Rect(0, 0, 64, 64))
	for y := range 64 {
		for x := range 64 {
			if sum[y/8]>>(x/8)&1 == 0 {
				img.SetGray(x, y, color.Gray{Y: 255})
			}
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		panic("BUG: encoding a picture of fixed size: " + err.Error())
	}
	return Response{ContentType: "image/jpeg", Body: b.Bytes()}
}

// checkText (文本内容安全识别) finds a risk only in text with "sandbox-risky"
// in it.
func (h *miniProgramHandler) checkText(r *Request) Response {
	content := r.Field("content")
	if content == "" {
		return fail(47001)
	}
	verdict := fields{"suggest": "pass", "label": 100}
	if strings.Contains(content, "sandbox-risky") {
		verdict = fields{"suggest": "risky", "label": 20001}
	}
	return okWith(fields{"result": verdict, "trace_id": random.Hex(16)})
}

// commit takes any code: the template does not have to be in the library.
// ext_json must be JSON inside a string.
func (h *miniProgramHandler) commit(r *Request) Response {
	in, good := decode[struct {
		TemplateID json.Number `json:"template_id"` // a number, or one in a string
		ExtJSON    *string     `json:"ext_json"`
		Version    string      `json:"user_version"`
		Desc       string      `json:"user_desc"`
	}](r)
	if !good || in.TemplateID == "" || in.ExtJSON == nil || in.Version == "" || !json.Valid([]byte(*in.ExtJSON)) {
		return fail(47001)
	}
	h.profiles.Commit(r.account.AppID)
	return ok()
}

// submitAudit requires a commit before it.
func (h *miniProgramHandler) submitAudit(r *Request) Response {
	id, committed := h.profiles.SubmitAudit(r.account.AppID)
	if !committed {
		return fail(85019)
	}
	return okWith(fields{"auditid": id})
}

// latestAudit reports success: every audit passes at once.
func (h *miniProgramHandler) latestAudit(r *Request) Response {
	id := h.profiles.LatestAudit(r.account.AppID)
	if id == 0 {
		return fail(85019)
	}
	return okWith(fields{"auditid": id, "status": 0, "reason": "", "ScreenShot": ""})
}

// release requires exactly the body {}. An empty body gets 44002, any other
// 47001.
func (h *miniProgramHandler) release(r *Request) Response {
	switch {
	case string(bytes.TrimSpace(r.Body)) != "{}":
		return fail(47001)
	case h.profiles.LatestAudit(r.account.AppID) == 0:
		return fail(85019)
	}
	return ok()
}
