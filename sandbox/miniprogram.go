package sandbox

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"slices"
	"strings"
	"unicode/utf8"
)

// Mini programs: codes, content checks, releases (doc/oplatform/openApi/…/miniprogram-management).

// codeUnlimited draws a picture that depends on the scene.
func (s *WeChat) codeUnlimited(c *call) answer {
	in, good := decode[struct {
		Scene *string `json:"scene"`
	}](c)
	if !good || in.Scene == nil || *in.Scene == "" || utf8.RuneCountInString(*in.Scene) > 32 {
		return fail(40169)
	}
	return picture(*in.Scene)
}

func (s *WeChat) codeForPath(c *call) answer {
	p := c.field("path")
	if p == "" || len(p) > 1024 {
		return fail(40035)
	}
	return picture(p)
}

func (s *WeChat) trialCode(c *call) answer {
	if !c.account.committed {
		return fail(85019)
	}
	return picture(c.arg("path"))
}

// picture is a JPEG that looks a little like a code: 8 by 8 fields, one for each bit of a hash. It is not one.
func picture(text string) answer {
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
		panic("BUG: a picture of fixed size cannot be encoded: " + err.Error())
	}
	return answer{contentType: "image/jpeg", body: b.Bytes()}
}

// checkMessage (文本内容安全识别) finds risk in what contains "sandbox-risky" only.
func (s *WeChat) checkMessage(c *call) answer {
	content := c.field("content")
	if content == "" {
		return fail(47001)
	}
	result := fields{"suggest": "pass", "label": 100}
	if strings.Contains(content, "sandbox-risky") {
		result = fields{"suggest": "risky", "label": 20001}
	}
	return okWith(fields{"result": result, "trace_id": randomHex(16)})
}

func (s *WeChat) commit(c *call) answer {
	in, good := decode[struct {
		TemplateID json.Number `json:"template_id"` // a number, or one in a string
		ExtJSON    *string     `json:"ext_json"`
		Version    string      `json:"user_version"`
		Desc       string      `json:"user_desc"`
	}](c)
	if !good || in.TemplateID == "" || in.ExtJSON == nil || in.Version == "" || !json.Valid([]byte(*in.ExtJSON)) {
		return fail(47001)
	}
	c.account.committed = true
	return ok()
}

func (s *WeChat) submitAudit(c *call) answer {
	if !c.account.committed {
		return fail(85019)
	}
	if c.account.auditID == 0 {
		c.account.auditID = 400_000_000
	}
	c.account.auditID++
	return okWith(fields{"auditid": c.account.auditID})
}

// latestAudit: everything has passed at once.
func (s *WeChat) latestAudit(c *call) answer {
	if c.account.auditID == 0 {
		return fail(85019)
	}
	return okWith(fields{"auditid": c.account.auditID, "status": 0, "reason": "", "ScreenShot": ""})
}

// release wants the two bytes {}: an empty body is 44002, and more is not right either.
func (s *WeChat) release(c *call) answer {
	switch {
	case string(bytes.TrimSpace(c.body)) != "{}":
		return fail(47001)
	case c.account.auditID == 0:
		return fail(85019)
	}
	c.account.released = true
	return ok()
}

// libraryEntry is one template of the component's library (thirdparty-management/template-management).
type libraryEntry struct {
	created int64
	id      int
	kind    int // 0 ordinary, 1 standard
}

const maxTemplates = 200

// The library has two drafts that never go away.
const draftCount = 2

func (s *WeChat) templateDrafts(c *call) answer {
	list := []fields{}
	for id := range draftCount {
		list = append(list, fields{"create_time": 1_488_965_944, "user_version": "1.0." + string(rune('0'+id)), "user_desc": "sandbox", "draft_id": id})
	}
	return okWith(fields{"draft_list": list})
}

func (s *WeChat) templateList(c *call) answer {
	kind, list := c.arg("template_type"), []fields{}
	if kind != "" && kind != "0" && kind != "1" {
		return fail(40035)
	}
	for _, t := range s.templates {
		if kind == "" || int(kind[0]-'0') == t.kind {
			list = append(list, fields{"create_time": t.created, "user_version": "1.0", "user_desc": "sandbox", "template_id": t.id, "template_type": t.kind})
		}
	}
	return okWith(fields{"template_list": list})
}

func (s *WeChat) addTemplate(c *call) answer {
	in, good := decode[struct {
		Draft *int `json:"draft_id"`
		Kind  int  `json:"template_type"`
	}](c)
	switch {
	case !good || in.Draft == nil || in.Kind < 0 || in.Kind > 1:
		return fail(47001)
	case *in.Draft < 0 || *in.Draft >= draftCount:
		return fail(85064)
	case len(s.templates) >= maxTemplates:
		return fail(85065)
	}
	s.templates = append(s.templates, libraryEntry{created: c.now.Unix(), id: s.lastTemplate, kind: in.Kind})
	s.lastTemplate++
	return ok()
}

func (s *WeChat) deleteTemplate(c *call) answer {
	in, good := decode[struct {
		ID *int `json:"template_id"`
	}](c)
	if !good || in.ID == nil {
		return fail(47001)
	}
	i := slices.IndexFunc(s.templates, func(t libraryEntry) bool { return t.id == *in.ID })
	if i < 0 {
		return fail(85064)
	}
	s.templates = slices.Delete(s.templates, i, i+1)
	return ok()
}
