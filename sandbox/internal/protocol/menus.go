package protocol

import (
	"bytes"
	"encoding/json"
	"slices"

	"wxproxy/sandbox/internal/state"
)

// menuHandler serves the menu of an account.
type menuHandler struct {
	profiles *state.Profiles
}

func (h *menuHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/menu/create": {post, accountToken, plainJSON, h.create},
		"/cgi-bin/menu/get":    {get, accountToken, noBody, h.get},
		"/cgi-bin/menu/delete": {get, accountToken, noBody, h.delete},
	}
}

// create keeps the menu as it was sent. A menu has one to three buttons.
func (h *menuHandler) create(r *Request) Response {
	in, good := decode[struct {
		Button []json.RawMessage `json:"button"`
	}](r)
	switch {
	case !good || len(r.Body) > maxKept:
		return fail(47001)
	case len(in.Button) < 1 || len(in.Button) > 3:
		return fail(40016)
	}
	h.profiles.SetMenu(r.account.AppID, slices.Clone(bytes.TrimSpace(r.Body)))
	return ok()
}

// get returns the menu inside an object, byte for byte as it was created.
func (h *menuHandler) get(r *Request) Response {
	menu := h.profiles.Menu(r.account.AppID)
	if menu == nil {
		return fail(46003)
	}
	return reply(fields{"menu": menu})
}

// delete succeeds without a menu, too. The method is GET, as at WeChat.
func (h *menuHandler) delete(r *Request) Response {
	h.profiles.SetMenu(r.account.AppID, nil)
	return ok()
}
