package config

import (
	"fmt"
	"strings"

	"wxproxy/wechat"
)

// routes checks the [[route]] blocks, which are counted from 1.
func (v *validator) routes() {
	for i, r := range v.cfg.Routes {
		block := fmt.Sprintf("route[%d]", i+1)
		key := block + ".path"
		if r.Path == "" {
			v.empty(key, `write a path such as "/cgi-bin/new/call", or a prefix such as "/cgi-bin/new/*"`)
		} else if problem := routePathProblem(r.Path); problem != "" {
			v.fault(key, "%s", problem)
		} else {
			v.unreachableRoute(i, key)
		}
		v.oneOf(block+".token", r.Token, "component", "account", "none", "refuse")
		v.oneOf(block+".parameter", r.Parameter, wechat.AccessToken, wechat.ComponentAccessToken)
	}
}

// unreachableRoute reports if an earlier block matches everything that the
// block with index i matches. The first match decides, so that block has no
// effect. key is its path.
func (v *validator) unreachableRoute(i int, key string) {
	path := v.cfg.Routes[i].Path
	for j, earlier := range v.cfg.Routes[:i] {
		switch {
		case earlier.Path == path:
			v.fault(key, "is the same as in route[%d]; remove one of the blocks", j+1)
			return
		case wechat.Covers(earlier.Path, path):
			v.warn(key, "is never used: route[%d] comes first and matches it; "+
				"move this block before it, or remove it", j+1)
			return
		}
	}
}

// routePathProblem returns why path cannot be the path of a rule, or "". The
// proxy compares rules with decoded paths, and rejects requests with "//" or
// dot segments. A rule with one of these would never match, and the operator
// would rely on it.
func routePathProblem(path string) string {
	if !strings.HasPrefix(path, "/") {
		return `does not start with a slash; write it without WeChat's host, such as "/cgi-bin/new/*"`
	}
	star := strings.IndexByte(path, '*')
	if star >= 0 && star < len(path)-1 {
		return "has a * that is not its last character; * stands for any rest of the path"
	}
	for i := range len(path) {
		if ch := path[i]; ch <= ' ' || ch == 0x7f || strings.IndexByte(`%?#\;`, ch) >= 0 {
			return "contains a space or one of % ? # ; \\; write the path without query and escapes"
		}
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		switch {
		case s == "." || s == "..":
			return "has a segment of dots; write the path that it stands for"
		case s == "" && i < len(segments)-1:
			return "contains //; write the path with single slashes"
		}
	}
	return ""
}
