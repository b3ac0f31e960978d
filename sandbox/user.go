package sandbox

import (
	"slices"
	"strconv"
)

// Every account has three followers, whose openids follow from its appid, and any other openid of the right form
// is somebody who follows it as well.
const followers = 3

func (s *WeChat) userList(c *call) answer {
	var all []string
	for i := range followers {
		all = append(all, c.account.openid(strconv.Itoa(i+1)))
	}
	next := c.arg("next_openid")
	page := all
	if next != "" {
		i := slices.Index(all, next)
		if i < 0 {
			return fail(40003)
		}
		page = all[i+1:]
	}
	f := fields{"total": followers, "count": len(page), "next_openid": ""}
	if len(page) > 0 { // an empty page has no data
		f["data"], f["next_openid"] = fields{"openid": page}, page[len(page)-1]
	}
	return reply(f)
}

func user(openid string) fields {
	return fields{
		"subscribe": 1, "openid": openid, "language": "zh_CN", "subscribe_time": 1_434_093_047, "unionid": unionid(openid),
		"remark": "", "groupid": 0, "tagid_list": []int{}, "subscribe_scene": "ADD_SCENE_QR_CODE", "qr_scene": 0, "qr_scene_str": "",
	}
}

func (s *WeChat) userInfo(c *call) answer {
	switch openid := c.arg("openid"); {
	case openid == "":
		return fail(41009)
	case !openidPattern.MatchString(openid):
		return fail(40003)
	default:
		return reply(user(openid))
	}
}

func (s *WeChat) userInfoBatch(c *call) answer {
	in, good := decode[struct {
		List []struct {
			OpenID string `json:"openid"`
		} `json:"user_list"`
	}](c)
	switch {
	case !good || len(in.List) == 0:
		return fail(47001)
	case len(in.List) > 100:
		return fail(40170)
	}
	var list []fields
	for _, u := range in.List {
		if !openidPattern.MatchString(u.OpenID) {
			return fail(40003)
		}
		list = append(list, user(u.OpenID))
	}
	return reply(fields{"user_info_list": list})
}

// tag is a label for followers.
type tag struct {
	ID    int    `json:"id"`
	Name  string `json:"name"`
	Count int    `json:"count"`
}

const maxTags = 100 // WeChat's own limit

func (s *WeChat) createTag(c *call) answer {
	in, good := decode[struct {
		Tag struct {
			Name string `json:"name"`
		} `json:"tag"`
	}](c)
	a := c.account
	switch {
	case !good:
		return fail(47001)
	case in.Tag.Name == "" || len([]rune(in.Tag.Name)) > 30 || slices.ContainsFunc(a.tags, func(t tag) bool { return t.Name == in.Tag.Name }):
		return fail(45157)
	case len(a.tags) >= maxTags:
		return fail(45056)
	}
	a.lastTag++
	t := tag{ID: 99 + a.lastTag, Name: in.Tag.Name} // the first hundred are WeChat's
	a.tags = append(a.tags, t)
	return reply(fields{"tag": fields{"id": t.ID, "name": t.Name}})
}

func (s *WeChat) getTags(c *call) answer {
	return reply(fields{"tags": append([]tag{}, c.account.tags...)})
}

func (s *WeChat) deleteTag(c *call) answer {
	in, good := decode[struct {
		Tag struct {
			ID int `json:"id"`
		} `json:"tag"`
	}](c)
	if !good {
		return fail(47001)
	}
	i := slices.IndexFunc(c.account.tags, func(t tag) bool { return t.ID == in.Tag.ID })
	if i < 0 {
		return fail(45157)
	}
	c.account.tags = slices.Delete(c.account.tags, i, i+1)
	return ok()
}
