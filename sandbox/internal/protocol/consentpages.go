package protocol

import (
	"context"
	_ "embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"wxproxy/sandbox/internal/origin"
	"wxproxy/sandbox/internal/push"
	"wxproxy/sandbox/internal/random"
	"wxproxy/sandbox/internal/state"
	"wxproxy/wechat"
)

// consentPaths are the paths of WeChat's consent pages at mp.weixin.qq.com and
// open.weixin.qq.com; the value is true for pages made for phones. The last one
// is the path that older SDKs know.
var consentPaths = map[string]bool{
	"/cgi-bin/componentloginpage": false,
	"/wxaopen/safe/bindcomponent": true,
	"/safe/bindcomponent":         true,
}

// authTypes has WeChat's values of auth_type and the kinds of account that each
// admits here. The sandbox has no accounts of the other kinds.
var authTypes = map[string][]state.Kind{
	"1": {state.OfficialAccount},
	"2": {state.MiniProgram},
	"3": {state.OfficialAccount, state.MiniProgram},
	"4": nil,
	"5": nil,
	"6": {state.OfficialAccount, state.MiniProgram},
	"8": nil,
}

// categoryIDs is the form of category_id_list.
var categoryIDs = regexp.MustCompile(`^[0-9]+(\|[0-9]+)*$`)

const (
	maxConsentForm = 4096 // bytes
	shownAccounts  = 100  // on one page
	maxQuoted      = 40   // characters of a request that a page quotes
)

//go:embed consentpages.html
var consentSource string

var consentTemplate = template.Must(template.New("consent").Parse(consentSource))

// ConsentConfig holds what the consent pages need besides the state.
type ConsentConfig struct {
	ComponentAppID string
	AuthorizeHost  string // 授权发起页域名; "" for any, if it is the same on both ways
	Now            func() time.Time
	Guard          *origin.Guard
	Push           *push.Sender
}

// ConsentPages serves the pages on which merchants consent
// (doc/oplatform/…/Before_Develop/Authorization_Process_Technical_Description).
// It is safe for concurrent use.
type ConsentPages struct {
	ConsentConfig
	accounts *state.Accounts
	pages    *state.ConsentPages
}

// NewConsentPages returns the pages of a WeChat with that state.
func NewConsentPages(st *state.State, c ConsentConfig) *ConsentPages {
	return &ConsentPages{c, st.Accounts, st.Pages}
}

// Has reports whether the path is that of a consent page.
func (p *ConsentPages) Has(path string) bool {
	_, known := consentPaths[path]
	return known
}

// ServeHTTP shows a page to GET and takes the consent by POST.
func (p *ConsentPages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin") // with "no-referrer" the form would have the origin "null"
	phone := consentPaths[r.URL.EscapedPath()]
	switch {
	case !p.Guard.HostAllowed(r.Host):
		p.showProblem(w, http.StatusForbidden,
			"This page is not served under that host name: use an IP address or localhost.")
	case r.Method == http.MethodPost:
		p.serveConsent(w, r)
	case r.Method == http.MethodGet:
		page, problem := p.checkLink(r, phone)
		if problem != "" {
			p.showProblem(w, http.StatusBadRequest, problem)
			return
		}
		p.show(w, http.StatusOK, p.view(page, phone))
	default:
		h.Set("Allow", "GET, POST")
		p.showProblem(w, http.StatusMethodNotAllowed, "This page takes GET and POST only.")
	}
}

// checkLink checks the link by which a page is opened, as WeChat does, and
// returns the page that it asks for. The problem is WeChat's sentence where that
// is known.
func (p *ConsentPages) checkLink(r *http.Request, phone bool) (page state.ConsentPage, problem string) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return page, "The query cannot be decoded."
	}
	for name, values := range q {
		if len(values) > 1 {
			return page, "The parameter " + wechat.Sanitize(name, maxQuoted) + " appears more than once."
		}
	}
	page = state.ConsentPage{
		PreAuthCode: q.Get("pre_auth_code"), RedirectURI: q.Get("redirect_uri"),
		AuthType: q.Get("auth_type"), BizAppID: q.Get("biz_appid"),
	}
	if problem := p.checkReferer(r, phone, page.RedirectURI); problem != "" {
		return page, problem
	}
	if problem := p.checkQuery(q, phone); problem != "" {
		return page, problem
	}
	return page, preAuthProblem(p.accounts.CheckPreAuthCode(page.PreAuthCode, p.Now()))
}

// checkQuery checks the parameters that need no memory.
func (p *ConsentPages) checkQuery(q url.Values, phone bool) (problem string) {
	authType, bizAppID := q.Get("auth_type"), q.Get("biz_appid")
	_, typeKnown := authTypes[authType]
	switch {
	case q.Get("component_appid") != p.ComponentAppID:
		return "component_appid is not that of the component."
	case phone && (q.Get("action") != "bindcomponent" || q.Get("no_scan") != "1"):
		return "The page for phones needs action=bindcomponent and no_scan=1."
	case authType == "" && bizAppID == "":
		return "Neither auth_type nor biz_appid is given."
	case authType != "" && !typeKnown:
		return "auth_type is not one of 1, 2, 3, 4, 5, 6, 8."
	case bizAppID != "" && !wechat.IsAppID(bizAppID):
		return "biz_appid is not an appid."
	case q.Has("category_id_list") && !categoryIDs.MatchString(q.Get("category_id_list")):
		return "category_id_list is not a list of numbers separated by |."
	}
	return ""
}

// checkReferer checks that a consent begins on a page of the component's own
// host (授权发起页域名) and ends there. On the page for phones the Referer can
// be missing, because administrators scan its link or receive it in a message.
func (p *ConsentPages) checkReferer(r *http.Request, phone bool, redirect string) (problem string) {
	back, err := url.Parse(redirect)
	if err != nil || back.Scheme != "https" && back.Scheme != "http" ||
		back.Host == "" || back.User != nil || back.Fragment != "" {
		return "redirect_uri is not a URL that a browser can return to."
	}
	want := p.AuthorizeHost
	if want == "" {
		want = back.Host
	}
	from := "空" // WeChat's word for none
	if u, err := url.Parse(r.Header.Get("Referer")); err == nil && u.Host != "" {
		from = u.Host
	} else if phone {
		from = want
	}
	if !strings.EqualFold(from, want) {
		return "请确认授权入口页所在域名，与授权后回调URL所在域名相同，并且，" +
			"此二者都必须与申请第三方平台时填写的授权发起页域名相同。" +
			"授权入口页所在域名：" + wechat.Sanitize(from, maxQuoted)
	}
	if !strings.EqualFold(back.Host, want) {
		return "请确认授权入口页所在域名，与授权后回调URL所在域名相同。" +
			"回调URL域名：" + wechat.Sanitize(back.Host, maxQuoted)
	}
	return ""
}

// preAuthProblem returns the sentence for an error of Accounts, "" for nil.
func preAuthProblem(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, state.ErrPreAuthUnknown):
		return "pre_auth_code is unknown: the sandbox has not issued it."
	case errors.Is(err, state.ErrPreAuthUsed):
		return "pre_auth_code has been used."
	case errors.Is(err, state.ErrPreAuthExpired):
		return "pre_auth_code has expired: go back and open this page again."
	case errors.Is(err, state.ErrNotEligible):
		return "That account cannot be chosen here."
	}
	return "That is not an appid: wx and 16 characters of 0-9, a-z."
}

// eligible returns a function that reports whether an account can consent on
// the page.
func eligible(page state.ConsentPage) func(appid string, kind state.Kind) bool {
	return func(appid string, kind state.Kind) bool {
		if page.BizAppID != "" {
			return appid == page.BizAppID
		}
		return slices.Contains(authTypes[page.AuthType], kind)
	}
}

// view opens a page and returns what it shows.
func (p *ConsentPages) view(page state.ConsentPage, phone bool) map[string]any {
	id := random.Base64(16)
	p.pages.Open(id, page)
	suggested := page.BizAppID
	if suggested == "" {
		suggested = "wx" + random.Hex(8)
	}
	return map[string]any{
		"ID": id, "Phone": phone, "Component": p.ComponentAppID,
		"Accounts":  p.accounts.Select(shownAccounts, eligible(page)),
		"Suggested": suggested, "Fixed": page.BizAppID != "",
		"None": page.BizAppID == "" && len(authTypes[page.AuthType]) == 0,
	}
}

func (p *ConsentPages) showProblem(w http.ResponseWriter, status int, problem string) {
	p.show(w, status, map[string]any{"Problem": problem})
}

// show writes a page with that status. Its style has a new nonce each time, so
// that nothing else on the page is applied as style.
func (p *ConsentPages) show(w http.ResponseWriter, status int, data map[string]any) {
	nonce := random.Base64(16)
	data["Nonce"] = nonce
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	// No form-action: browsers apply it to redirects of the response as well,
	// and those lead to the component's host and further.
	h.Set("Content-Security-Policy",
		"default-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'nonce-"+nonce+"'")
	w.WriteHeader(status)
	_ = consentTemplate.Execute(w, data) // fails only if the client is gone
}

// serveConsent handles the button of a page: the code is pushed, and is sent
// back with the browser. Either can arrive first.
func (p *ConsentPages) serveConsent(w http.ResponseWriter, r *http.Request) {
	if err := p.Guard.Check(r); err != nil {
		p.showProblem(w, http.StatusForbidden, "A consent can be given only on this page.")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxConsentForm)
	if err := r.ParseForm(); err != nil {
		p.showProblem(w, http.StatusBadRequest, "The form cannot be read.")
		return
	}
	target, problem := p.consent(r.PostForm.Get("login"), strings.TrimSpace(r.PostForm.Get("appid")))
	if problem != "" {
		p.showProblem(w, http.StatusConflict, problem)
		return
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusFound)
}

// consent records the consent of an account on the page of that ID, and returns
// where the browser goes.
func (p *ConsentPages) consent(id, appid string) (target, problem string) {
	page, known := p.pages.Find(id)
	if !known {
		return "", "This page is no longer open: go back and open it again."
	}
	now := p.Now()
	c := state.PageConsent{PreAuthCode: page.PreAuthCode, AppID: appid, Eligible: eligible(page)}
	if page.AuthType == "2" {
		c.NewKind = state.MiniProgram
	}
	code, first, err := p.accounts.Consent(c, now)
	if err != nil {
		return "", preAuthProblem(err)
	}
	// A repeated consent is not pushed, so that only the browser brings the
	// code.
	if first {
		event := p.Push.ConsentEvent(now, "authorized", push.Consent{
			AppID: appid, Code: code, CodeExpires: now.Add(state.PushedCodeLife), PreAuthCode: page.PreAuthCode,
		})
		p.Push.Background(func(ctx context.Context) {
			_ = p.Push.SendEvent(ctx, event) // if it fails, the browser still brings the code
		})
	}
	join := "?"
	if strings.Contains(page.RedirectURI, "?") {
		join = "&"
	}
	return page.RedirectURI + join + "auth_code=" + url.QueryEscape(code) + "&expires_in=600", ""
}
