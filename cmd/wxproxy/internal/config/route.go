package config

import (
	"fmt"
	"strings"

	"wxproxy/wechat"
)

// routes checks the operator's rules. Blocks are counted from 1; the first that fits a path
// decides, so that a block behind one that covers it is a mistake, though a harmless one.
func (c *checker) routes() {
	for i, r := range c.cfg.Routes {
		block := fmt.Sprintf("route[%d]", i+1)
		key := block + ".path"
		if r.Path == "" {
			c.empty(key, `write a path such as "/cgi-bin/new/call", or a prefix such as "/cgi-bin/new/*"`)
		} else if problem := badRoute(r.Path); problem != "" {
			c.fault(key, "%s", problem)
		} else {
			c.reached(i, key)
		}
		c.oneOf(block+".token", r.Token, "component", "account", "none", "refuse")
		c.oneOf(block+".parameter", r.Parameter, wechat.AccessToken, wechat.ComponentAccessToken)
	}
}

// reached looks for an earlier block that leaves nothing to the i-th, whose key is given.
func (c *checker) reached(i int, key string) {
	path := c.cfg.Routes[i].Path
	for j, earlier := range c.cfg.Routes[:i] {
		prefix, isPrefix := strings.CutSuffix(earlier.Path, "*")
		switch {
		case earlier.Path == path:
			c.fault(key, "is that of route[%d] too; remove one of the blocks", j+1)
			return
		case isPrefix && strings.HasPrefix(path, prefix):
			c.warnings = append(c.warnings, Warning{key, fmt.Sprintf("route[%d] covers it and comes first; put this block in front, or remove it", j+1)})
			return
		}
	}
}

// badRoute says why path can be no rule's, "" where it can. Rules are compared with paths whose
// escapes were undone and that hold neither "//" nor dot segments, because others are refused: one
// that does could never fit, and its writer would rely on it in vain.
func badRoute(path string) string {
	if !strings.HasPrefix(path, "/") {
		return `does not begin with a slash; write it as it stands behind WeChat's host, such as "/cgi-bin/new/*"`
	}
	star := strings.IndexByte(path, '*')
	if star >= 0 && star < len(path)-1 {
		return "has a * that is not its last character; * stands for any rest, and only there"
	}
	for i := range len(path) {
		if ch := path[i]; ch <= ' ' || ch == 0x7f || strings.IndexByte(`%?#\;`, ch) >= 0 {
			return "has a blank or one of % ? # ; \\ in it; write the plain path: no query, no escapes"
		}
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		switch {
		case s == "." || s == "..":
			return "has a segment of dots; write the path that is meant"
		case s == "" && i < len(segments)-1:
			return "has // in it; write the path with single slashes"
		}
	}
	return ""
}
