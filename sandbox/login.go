package sandbox

import (
	"context"
	_ "embed"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// The pages on which merchants consent (doc/oplatform/…/Before_Develop/Authorization_Process_Technical_Description).

// loginPages are the paths at which WeChat has them, at mp.weixin.qq.com and open.weixin.qq.com: for computers, for
// phones, and for phones as older SDKs know it.
var loginPages = map[string]bool{
	"/cgi-bin/componentloginpage": false,
	"/wxaopen/safe/bindcomponent": true,
	"/safe/bindcomponent":         true,
}

// preAuthCode opens one consent page, and is spent by the consent.
type preAuthCode struct {
	expires time.Time
	spent   bool
}

func (s *WeChat) newPreAuth(now time.Time) string {
	code := s.rememberUser(newPreAuthCode())
	s.preAuths.put(code, &preAuthCode{expires: now.Add(preAuthCodeLife)})
	return code
}

// login is a consent page that is open in a merchant's browser.
type login struct {
	preAuth  string
	redirect string
	authType string // "": BizAppID decides
	bizAppID string // "": any account
}

// authTypes are WeChat's, and which kinds of account each stands for here. The others the sandbox does not have.
var authTypes = map[string][]Kind{
	"1": {OfficialAccount}, "2": {MiniProgram}, "3": {OfficialAccount, MiniProgram}, "4": nil, "5": nil, "6": {OfficialAccount, MiniProgram}, "8": nil,
}

var categoryIDs = regexp.MustCompile(`^[0-9]+(\|[0-9]+)*$`)

// admits reports whether an account may be chosen on the page.
func (l *login) admits(appid string, kind Kind) bool {
	if l.bizAppID != "" {
		return appid == l.bizAppID
	}
	return slices.Contains(authTypes[l.authType], kind)
}

//go:embed login.html
var loginSource string

var loginTemplate = template.Must(template.New("login").Parse(loginSource))

// serveLogin shows a consent page to GET, and takes the consent by POST.
func (s *WeChat) serveLogin(w http.ResponseWriter, r *http.Request, phone bool) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // without any, the form would come from nowhere
	switch {
	case !s.hostAllowed(r.Host):
		s.showLogin(w, http.StatusForbidden, map[string]any{"Problem": "This page is not reached under that host name: use an IP address or localhost."})
	case r.Method == http.MethodPost:
		s.takeConsent(w, r)
	case r.Method == http.MethodGet:
		l, problem := s.openLogin(r, phone)
		if problem != "" {
			s.showLogin(w, http.StatusBadRequest, map[string]any{"Problem": problem})
			return
		}
		s.showLogin(w, http.StatusOK, s.loginState(l, phone))
	default:
		h.Set("Allow", "GET, POST")
		s.showLogin(w, http.StatusMethodNotAllowed, map[string]any{"Problem": "The page takes GET."})
	}
}

// openLogin checks a link as WeChat does. The problem is WeChat's sentence where it is known.
func (s *WeChat) openLogin(r *http.Request, phone bool) (l login, problem string) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return l, "The query cannot be decoded."
	}
	for name, values := range q {
		if len(values) > 1 {
			return l, "The parameter " + clip(name) + " comes more than once."
		}
	}
	l = login{preAuth: q.Get("pre_auth_code"), redirect: q.Get("redirect_uri"), authType: q.Get("auth_type"), bizAppID: q.Get("biz_appid")}
	if problem := s.checkReferer(r, phone, l.redirect); problem != "" {
		return l, problem
	}
	_, typeKnown := authTypes[l.authType]
	switch {
	case q.Get("component_appid") != s.cfg.ComponentAppID:
		return l, "component_appid is not that of the component."
	case phone && (q.Get("action") != "bindcomponent" || q.Get("no_scan") != "1"):
		return l, "The page for phones wants action=bindcomponent and no_scan=1."
	case l.authType == "" && l.bizAppID == "":
		return l, "Neither auth_type nor biz_appid is given."
	case l.authType != "" && !typeKnown:
		return l, "auth_type is none of 1, 2, 3, 4, 5, 6, 8."
	case l.bizAppID != "" && !appidPattern.MatchString(l.bizAppID):
		return l, "biz_appid is no appid."
	case q.Has("category_id_list") && !categoryIDs.MatchString(q.Get("category_id_list")):
		return l, "category_id_list is not numbers joined by |."
	}
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return l, s.checkPreAuth(l.preAuth, now)
}

// checkReferer: a consent has to begin on a page of the component's own host (授权发起页域名), and to end there. On the
// page for phones a Referer may be missing, because its link is scanned, and sent to administrators in messages.
func (s *WeChat) checkReferer(r *http.Request, phone bool, redirect string) string {
	back, err := url.Parse(redirect)
	if err != nil || back.Scheme != "https" && back.Scheme != "http" || back.Host == "" || back.User != nil || back.Fragment != "" {
		return "redirect_uri is no URL to come back to."
	}
	wanted := s.cfg.AuthorizeHost
	if wanted == "" {
		wanted = back.Host
	}
	from := "空"
	if u, err := url.Parse(r.Header.Get("Referer")); err == nil && u.Host != "" {
		from = u.Host
	} else if phone {
		from = wanted
	}
	if !strings.EqualFold(from, wanted) {
		return "请确认授权入口页所在域名，与授权后回调URL所在域名相同，并且，此二者都必须与申请第三方平台时填写的授权发起页域名相同。授权入口页所在域名：" + clip(from)
	}
	if !strings.EqualFold(back.Host, wanted) {
		return "请确认授权入口页所在域名，与授权后回调URL所在域名相同。回调URL域名：" + clip(back.Host)
	}
	return ""
}

// checkPreAuth: s.mu is held.
func (s *WeChat) checkPreAuth(code string, now time.Time) string {
	p, known := s.preAuths.get(code)
	switch {
	case !known:
		return "pre_auth_code is none that was given out."
	case p.spent:
		return "pre_auth_code has been used."
	case !now.Before(p.expires):
		return "pre_auth_code has expired: open the page again from which you came."
	}
	return ""
}

// loginState is what the page shows.
func (s *WeChat) loginState(l login, phone bool) map[string]any {
	id := random(16)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins.put(id, l)
	var accounts []accountState
	now := s.cfg.Now()
	for _, a := range s.order {
		if l.admits(a.appid, a.kind) && len(accounts) < pageAccounts {
			accounts = append(accounts, a.state(now))
		}
	}
	suggested := l.bizAppID
	if suggested == "" {
		suggested = "wx" + randomHex(8)
	}
	return map[string]any{
		"ID": id, "Phone": phone, "Accounts": accounts, "Suggested": suggested, "Fixed": l.bizAppID != "",
		"None": l.bizAppID == "" && len(authTypes[l.authType]) == 0, "Component": s.cfg.ComponentAppID,
	}
}

func (s *WeChat) showLogin(w http.ResponseWriter, status int, data map[string]any) {
	nonce := random(16)
	data["Nonce"] = nonce
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	// No form-action: browsers apply it to where the answer redirects, which is the component's host and beyond.
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'nonce-"+nonce+"'")
	w.WriteHeader(status)
	_ = loginTemplate.Execute(w, data) // fails only if the reader has left
}

// takeConsent is the button: the code is pushed, and sent back with the browser, the one or the other first.
func (s *WeChat) takeConsent(w http.ResponseWriter, r *http.Request) {
	if err := s.foreign(r); err != nil {
		s.showLogin(w, http.StatusForbidden, map[string]any{"Problem": "A consent can be given on the page only."})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 4096)
	if err := r.ParseForm(); err != nil {
		s.showLogin(w, http.StatusBadRequest, map[string]any{"Problem": "The form cannot be read."})
		return
	}
	target, problem := s.agreeTo(r.PostForm.Get("login"), strings.TrimSpace(r.PostForm.Get("appid")))
	if problem != "" {
		s.showLogin(w, http.StatusConflict, map[string]any{"Problem": problem})
		return
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusFound)
}

func (s *WeChat) agreeTo(id, appid string) (target, problem string) {
	now := s.cfg.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	l, known := s.logins.get(id)
	if !known {
		return "", "This page is not open any more: open it again from where you came."
	}
	if problem := s.checkPreAuth(l.preAuth, now); problem != "" {
		return "", problem
	}
	a := s.accounts[appid]
	if a == nil {
		kind := OfficialAccount
		if l.authType == "2" {
			kind = MiniProgram
		}
		if appid == s.cfg.ComponentAppID || !l.admits(appid, kind) {
			return "", "That account cannot be chosen here."
		}
		var err error
		if a, err = s.add(appid, kind); err != nil {
			return "", "That is no appid: wx and 16 characters of 0-9, a-z."
		}
	}
	if !l.admits(appid, a.kind) {
		return "", "That account cannot be chosen here."
	}
	before := a.authorized
	s.agree(a, now)
	code := s.newCode(a, now, pushedCodeLife)
	p, _ := s.preAuths.get(l.preAuth)
	p.spent = true
	// Who agrees to the same again is not pushed: then the browser alone brings the code.
	if !before && s.pushURL != "" && !s.closed {
		doc := s.document(now, "authorized").cdata("AuthorizerAppid", appid).cdata("AuthorizationCode", code).
			cdata("AuthorizationCodeExpiredTime", unix(now.Add(pushedCodeLife))).cdata("PreAuthCode", l.preAuth)
		s.pushes.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), pushTimeout)
			defer cancel()
			_ = s.pushEvent(ctx, doc) // the browser brings the code too
		})
	}
	join := "?"
	if strings.Contains(l.redirect, "?") {
		join = "&"
	}
	return l.redirect + join + "auth_code=" + url.QueryEscape(code) + "&expires_in=600", ""
}
