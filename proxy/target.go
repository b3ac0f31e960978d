package proxy

import (
	"bytes"
	"net/http"
	"unicode/utf8"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

// target is what the request line says, before any rule is applied. All slices point into it.
type target struct {
	prefix []byte // appid in front of the path
	path   []byte // as it goes to WeChat, escapes and all
	plain  []byte // path with its escapes undone: what the rules are applied to
	query  []byte // without the question mark
}

// hosts that WeChat's API answers on (Basic_Information/Interface_field_description).
var hosts = map[string]bool{
	"api.weixin.qq.com": true, "api2.weixin.qq.com": true,
	"sh.api.weixin.qq.com": true, "sz.api.weixin.qq.com": true, "hk.api.weixin.qq.com": true,
}

// readTarget takes the request target apart. It cleans nothing: what might be read in two ways is refused.
func readTarget(uri []byte) (t target, p *problem) {
	if len(uri) == 0 || uri[0] != '/' {
		var ok bool
		if uri, ok = absoluteForm(uri); !ok {
			return t, errForeignHost
		}
	}
	t.path = uri
	if i := bytes.IndexByte(uri, '?'); i >= 0 {
		t.path, t.query = uri[:i], uri[i+1:]
	}
	// Base URLs end in a slash, and SDKs put one in front of the path.
	t.path = joinSlash(t.path)
	if len(t.path) > 18 && isAppID(t.path[1:19]) && (len(t.path) == 19 || t.path[19] == '/') {
		t.prefix, t.path = t.path[1:19], joinSlash(t.path[19:])
	}
	for _, ch := range t.query {
		if classes[ch] == byteBad {
			return t, errQuery
		}
	}
	t.plain, p = plainPath(t.path)
	return t, p
}

// absoluteForm takes scheme and host off a target as sent to a forward proxy.
func absoluteForm(uri []byte) ([]byte, bool) {
	rest, ok := bytes.CutPrefix(uri, []byte("http://"))
	if !ok {
		if rest, ok = bytes.CutPrefix(uri, []byte("https://")); !ok {
			return nil, false
		}
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if !hosts[string(bytes.ToLower(rest[:end]))] {
		return nil, false
	}
	if rest = rest[end:]; len(rest) == 0 || rest[0] != '/' {
		return nil, false
	}
	return rest, true
}

func joinSlash(path []byte) []byte {
	if len(path) > 1 && path[0] == '/' && path[1] == '/' {
		return path[1:]
	}
	return path
}

// isAppID: wx and 16 lower-case letters or digits.
func isAppID(b []byte) bool {
	if len(b) != 18 || b[0] != 'w' || b[1] != 'x' {
		return false
	}
	for _, ch := range b[2:] {
		if (ch < '0' || ch > '9') && (ch < 'a' || ch > 'z') {
			return false
		}
	}
	return true
}

// plainPath undoes the escapes of path, for looking rules up, or refuses what WeChat might understand
// otherwise than we do.
func plainPath(path []byte) ([]byte, *problem) {
	if len(path) < 2 || path[0] != '/' {
		return nil, errPath
	}
	escaped := false // or not ASCII
	segment := 1     // where the current one begins
	for i, ch := range path {
		switch classes[ch] {
		case bytePlain:
		case byteSlash:
			if i > 0 && (i == segment || dots(path[segment:i])) {
				return nil, errPath
			}
			segment = i + 1
		case bytePercent:
			escaped = true
		default:
			return nil, errPath
		}
	}
	if dots(path[segment:]) {
		return nil, errPath
	}
	if !escaped {
		return path, nil
	}
	plain := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		ch := path[i]
		if ch == '%' {
			if i+2 >= len(path) || hexDigit(path[i+1]) < 0 || hexDigit(path[i+2]) < 0 {
				return nil, errPath
			}
			ch = byte(hexDigit(path[i+1])<<4 | hexDigit(path[i+2]))
			i += 2
			switch {
			case ch < ' ' || ch == 0x7f, ch == '/', ch == '\\', ch == '.', ch == '%', ch == ';', ch == '?', ch == '#':
				return nil, errPath
			}
		}
		plain = append(plain, ch)
	}
	// Among what is no UTF-8 are the long forms of a dot and a slash (C0 AE, C0 AF), which some decoders take for them.
	if !utf8.Valid(plain) {
		return nil, errPath
	}
	return plain, nil
}

// What a byte of a request target may do.
const (
	bytePlain     = iota
	byteSlash     // parts segments of a path
	bytePercent   // begins an escape, or is no ASCII: has to be looked at closely
	byteBad       // nowhere
	byteBadInPath // only in a query
)

var classes = func() (c [256]uint8) {
	for ch := range 256 {
		switch {
		case ch <= ' ' || ch == 0x7f || ch == '#':
			c[ch] = byteBad
		case ch >= 0x80:
			c[ch] = bytePercent
		case ch == '\\' || ch == ';':
			c[ch] = byteBadInPath
		}
	}
	c['/'], c['%'] = byteSlash, bytePercent
	return c
}()

func dots(segment []byte) bool {
	return len(segment) == 1 && segment[0] == '.' || len(segment) == 2 && segment[0] == '.' && segment[1] == '.'
}

// plan is what is to be done with a call.
type plan struct {
	endpoint  *wechat.Endpoint
	appid     []byte // the account that the call is for; nil where it is for none
	holder    []byte // the account whose token goes in; nil: none does
	kind      tokens.Kind
	path      string        // another path than the caller's; "" for his
	secret    wechat.Secret // the account's own, for the calls that need it
	drop      param         // parameters of the caller's that are cut out
	component bool          // component_appid goes in
	withAppID bool          // appid goes in
}

// decide applies the rules. It looks at nothing but its arguments, so that the same
// question has the same answer everywhere.
func (s *settings) decide(t target, c caller, action []byte) (plan, *problem) {
	var p plan
	p.endpoint = s.table.Find(text(t.plain), text(action))
	if p.endpoint.Need == wechat.NeedStandIn {
		return p, nil // what it is for stands in its parameters
	}
	if p.endpoint.Need == wechat.NeedRefusal {
		return p, problemf(http.StatusForbidden, "callers have no need of it", "this path is not forwarded: %s", reasonOf(p.endpoint))
	}
	appid, problem := s.whom(t, c, p.endpoint)
	if problem != nil {
		return p, problem
	}
	// What comes as a secret is a key of ours, or an account's real one.
	p.appid, p.drop = appid, paramTokens|paramSecret
	component := []byte(nil)
	if s.component != nil {
		component = s.component
	}
	isComponent := component != nil && bytes.Equal(appid, component)
	need := p.endpoint.Need
	if need == wechat.NeedEither {
		need = wechat.NeedAccount
		if isComponent {
			need = wechat.NeedComponent
		}
	}
	switch need {
	case wechat.NeedUser:
		p.drop = paramStandIn | paramSecret
	case wechat.NeedNothing:
	case wechat.NeedComponent:
		if component == nil {
			return p, errNoComponent
		}
		p.holder, p.kind = component, tokens.Component
		p.component = p.endpoint.ComponentAppID && present(t.query)&paramComponentAppID == 0
	case wechat.NeedSecret:
		return s.login(p, t, isComponent)
	case wechat.NeedAccount:
		switch {
		case appid == nil:
			return p, errNoTarget
		case isComponent:
			return p, errComponentTarget
		}
		p.holder, p.kind = appid, s.kindOf(appid)
	}
	return p, nil
}

// login is for the calls that need an account's own secret. An own account's is filled in; an
// authorizer has a twin of the call under /component/, which takes the component's token instead.
func (s *settings) login(p plan, t target, isComponent bool) (plan, *problem) {
	switch {
	case p.appid == nil:
		return p, errNoTarget
	case isComponent:
		return p, errComponentTarget
	}
	if secret, ok := s.apps[text(p.appid)]; ok {
		p.kind, p.secret = tokens.App, secret
		p.drop |= paramAppID
		return p, nil
	}
	if s.component == nil {
		return p, errNoComponent
	}
	p.path, p.holder, p.kind = p.endpoint.Twin, s.component, tokens.Component
	p.drop |= paramComponentAppID
	p.component = true
	p.withAppID = present(t.query)&paramAppID == 0
	return p, nil
}

// whom finds the account that the call is for: the prefix, the header, a stand-in, on logins the query's own
// appid, the default. Two that disagree are an error, except that a base URL, header or stand-in which names the
// component says nothing about the account that a login is for, and the first two nothing
// about the account that an SDK has a stand-in of.
func (s *settings) whom(t target, c caller, e *wechat.Endpoint) ([]byte, *problem) {
	appid, p := s.named(t, c)
	if p != nil {
		return nil, p
	}
	login := e.ComponentAppID || e.Need == wechat.NeedSecret
	// With the component's stand-in SDKs log the users of any account in.
	if st := c.standIn.appid; st != nil && !(login && appid != nil && c.standIn.kind == componentStandIn) {
		if appid != nil && !bytes.Equal(appid, st) && !bytes.Equal(appid, s.component) {
			return nil, contradiction("the prefix or header", "the stand-in")
		}
		appid = st
	}
	if login {
		named, found, unique := lookup(t.query, paramAppID)
		switch {
		case !unique:
			return nil, contradiction("one appid of the query", "another")
		case found && len(named) > 0 && appid != nil && !bytes.Equal(appid, named) && !bytes.Equal(appid, s.component):
			return nil, contradiction("the prefix, header or stand-in", "the query's appid")
		case found && len(named) > 0:
			appid = named
		}
	}
	if appid == nil && s.defaultAppID != nil && e.Need != wechat.NeedUser && e.Need != wechat.NeedNothing {
		appid = s.defaultAppID
	}
	return appid, nil
}

// named is the account that prefix or header name, nil where neither does.
func (s *settings) named(t target, c caller) ([]byte, *problem) {
	if c.target != nil && !isAppID(c.target) {
		return nil, problemf(http.StatusBadRequest, "an appid is wx and 16 lower-case letters or digits", "the header X-WX-APPID is no appid")
	}
	if c.conflict {
		return nil, contradiction("X-WX-APPID", "X-WX-APPID")
	}
	appid := t.prefix
	if c.target != nil {
		if appid != nil && !bytes.Equal(appid, c.target) {
			return nil, contradiction("the path's prefix", "X-WX-APPID")
		}
		appid = c.target
	}
	return appid, nil
}

func contradiction(a, b string) *problem {
	return problemf(http.StatusBadRequest, "name the account once", "%s and %s name different accounts", a, b)
}

func reasonOf(e *wechat.Endpoint) string {
	if e.Why != "" {
		return e.Why
	}
	return "the configuration refuses it"
}
