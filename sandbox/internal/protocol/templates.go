package protocol

import (
	"strconv"

	"wxproxy/sandbox/internal/state"
)

// draftCount is the number of drafts that the library always has.
const draftCount = 2

// templateHandler serves the component's library of code templates
// (thirdparty-management/template-management).
type templateHandler struct {
	library *state.Templates
}

func (h *templateHandler) endpoints() endpoints {
	return endpoints{
		"/wxa/gettemplatedraftlist": {get, componentToken, noBody, h.drafts},
		"/wxa/gettemplatelist":      {get, componentToken, noBody, h.list},
		"/wxa/addtotemplate":        {post, componentToken, jsonBody, h.add},
		"/wxa/deletetemplate":       {post, componentToken, jsonBody, h.delete},
	}
}

// drafts returns drafts that never change.
func (h *templateHandler) drafts(*Request) Response {
	list := []fields{}
	for id := range draftCount {
		list = append(list, fields{
			"create_time": 1_488_965_944, "user_version": "1.0." +
				strconv.Itoa(id), "user_desc": "sandbox", "draft_id": id,
		})
	}
	return okWith(fields{"draft_list": list})
}

// list returns the templates of one type, or all.
func (h *templateHandler) list(r *Request) Response {
	kind, list := r.Arg("template_type"), []fields{}
	if kind != "" && kind != "0" && kind != "1" {
		return fail(40035)
	}
	for _, t := range h.library.All() {
		if kind == "" || kind == strconv.Itoa(t.Kind) {
			list = append(list, fields{
				"create_time": t.Created.Unix(), "user_version": "1.0", "user_desc": "sandbox",
				"template_id": t.ID, "template_type": t.Kind,
			})
		}
	}
	return okWith(fields{"template_list": list})
}

// add copies a draft to the library; the draft stays.
func (h *templateHandler) add(r *Request) Response {
	in, good := decode[struct {
		Draft *int `json:"draft_id"`
		Kind  int  `json:"template_type"`
	}](r)
	switch {
	case !good || in.Draft == nil || in.Kind < 0 || in.Kind > 1:
		return fail(47001)
	case *in.Draft < 0 || *in.Draft >= draftCount:
		return fail(85064)
	case !h.library.Add(in.Kind, r.Now):
		return fail(85065)
	}
	return ok()
}

// delete removes a template. IDs are not used again.
func (h *templateHandler) delete(r *Request) Response {
	in, good := decode[struct {
		ID *int `json:"template_id"`
	}](r)
	switch {
	case !good || in.ID == nil:
		return fail(47001)
	case !h.library.Delete(*in.ID):
		return fail(85064)
	}
	return ok()
}
