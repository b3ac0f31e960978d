package protocol

import (
	"slices"
	"strconv"

	"wxproxy/sandbox/internal/state"
)

const (
	followerCount = 3   // followers of every account; their openids depend on its appid
	maxBatch      = 100 // WeChat's limit for user/info/batchget
)

// followerHandler serves the followers of an account and their tags. Any other
// openid of the right form is a follower as well.
type followerHandler struct {
	profiles *state.Profiles
}

func (h *followerHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/user/get":           {get, accountToken, noBody, h.list},
		"/cgi-bin/user/info":          {get, accountToken, noBody, h.info},
		"/cgi-bin/user/info/batchget": {post, accountToken, jsonBody, h.infoBatch},
		"/cgi-bin/tags/create":        {post, accountToken, plainJSON, h.createTag},
		"/cgi-bin/tags/get":           {get, accountToken, noBody, h.tags},
		"/cgi-bin/tags/delete":        {post, accountToken, jsonBody, h.deleteTag},
	}
}

// list pages through the followers: next_openid is the last one of the page
// before.
func (h *followerHandler) list(r *Request) Response {
	var page []string
	for i := range followerCount {
		page = append(page, r.account.OpenID(strconv.Itoa(i+1)))
	}
	if next := r.Arg("next_openid"); next != "" {
		i := slices.Index(page, next)
		if i < 0 {
			return fail(40003)
		}
		page = page[i+1:]
	}
	f := fields{"total": followerCount, "count": len(page), "next_openid": ""}
	if len(page) > 0 { // an empty page has no data
		f["data"], f["next_openid"] = fields{"openid": page}, page[len(page)-1]
	}
	return reply(f)
}

// follower returns what WeChat shows of a follower. Only the openid and the
// unionid differ between users.
func follower(openid string) fields {
	return fields{
		"subscribe": 1, "openid": openid, "unionid": state.UnionID(openid), "language": "zh_CN",
		"subscribe_time": 1_434_093_047, "remark": "", "groupid": 0, "tagid_list": []int{},
		"subscribe_scene": "ADD_SCENE_QR_CODE", "qr_scene": 0, "qr_scene_str": "",
	}
}

// info accepts any openid of the right form, because tests make up users.
func (h *followerHandler) info(r *Request) Response {
	switch openid := r.Arg("openid"); {
	case openid == "":
		return fail(41009)
	case !openidPattern.MatchString(openid):
		return fail(40003)
	default:
		return reply(follower(openid))
	}
}

// infoBatch does what info does, for at most 100 users. One bad openid fails
// the whole request.
func (h *followerHandler) infoBatch(r *Request) Response {
	in, good := decode[struct {
		List []struct {
			OpenID string `json:"openid"`
		} `json:"user_list"`
	}](r)
	switch {
	case !good || len(in.List) == 0:
		return fail(47001)
	case len(in.List) > maxBatch:
		return fail(40170)
	}
	var list []fields
	for _, u := range in.List {
		if !openidPattern.MatchString(u.OpenID) {
			return fail(40003)
		}
		list = append(list, follower(u.OpenID))
	}
	return reply(fields{"user_info_list": list})
}

// createTag ignores an ID in the request: WeChat assigns it.
func (h *followerHandler) createTag(r *Request) Response {
	in, good := decode[struct {
		Tag struct {
			Name string `json:"name"`
		} `json:"tag"`
	}](r)
	if !good {
		return fail(47001)
	}
	t, code := h.profiles.AddTag(r.account.AppID, in.Tag.Name)
	if code != 0 {
		return fail(code)
	}
	return reply(fields{"tag": fields{"id": t.ID, "name": t.Name}})
}

func (h *followerHandler) tags(r *Request) Response {
	return reply(fields{"tags": h.profiles.Tags(r.account.AppID)})
}

// deleteTag takes the ID, not the name.
func (h *followerHandler) deleteTag(r *Request) Response {
	in, good := decode[struct {
		Tag struct {
			ID int `json:"id"`
		} `json:"tag"`
	}](r)
	switch {
	case !good:
		return fail(47001)
	case !h.profiles.DeleteTag(r.account.AppID, in.Tag.ID):
		return fail(45157)
	}
	return ok()
}
