package pages

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"wxproxy/tokens"
	"wxproxy/wechat"
)

const (
	// pageTimeout limits the calls to WeChat for one page. The listener must
	// write the page within 15 s.
	pageTimeout = 11 * time.Second
	// retryDelay is how long merchants are asked to wait when WeChat cannot be
	// reached.
	retryDelay = time.Minute
	// maxLogText is the maximum length, in characters, of an error text in the
	// log.
	maxLogText = 400
)

// serveAuthorize serves the page from which a merchant goes to WeChat.
func (h *Handler) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	ph := phrasesFor(r)
	p := h.authorizePage(r, ph)
	h.observe(pageAuthorize, p.result())
	h.render(w, ph, referrerOrigin, p)
}

// spend takes the request from l. It returns how long its client must wait, 0
// if it need not.
func (h *Handler) spend(l *limiter, r *http.Request) time.Duration {
	client, known := clientOf(r)
	wait := l.spend(client)
	if wait > 0 && !known {
		h.proxyWarned.Do(func() {
			h.log.Warn("all clients share one limit, the TLS proxy has to send X-Forwarded-For",
				"peer", client.String())
		})
	}
	return wait
}

// authorizePage returns the page for a request. It fetches a pre-auth code if
// the request comes from a person.
func (h *Handler) authorizePage(r *http.Request, ph *phrases) page {
	s := h.settings.Load()
	if s.publicURL == "" {
		h.log.Warn("authorization page not available, callback.public_url is not set")
		return errorPage(http.StatusServiceUnavailable, ph.notSetUp, ph.noPublicURL)
	}
	state, problem := parseAuthorizeQuery(r.URL.RawQuery, s.returnTo, ph)
	if problem != "" {
		p := errorPage(http.StatusBadRequest, ph.badLink, problem)
		p.Text = append(p.Text, ph.badAdvice)
		return p
	}
	// Codes are fetched for people only, not for programs that check whether
	// the page exists or what it is about.
	switch {
	case isPrefetch(r):
		p := waitPage(http.StatusServiceUnavailable, time.Second, ph.robot, ph.robotText)
		p.robot = true
		return p
	case r.Method == http.MethodHead || isRobot(r.UserAgent()):
		return robotPage(ph)
	}
	if d := h.spend(h.pageLimiter, r); d > 0 {
		return rateLimitPage(ph, d)
	}
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	code, life, err := h.exchanger.PreAuthCode(ctx)
	if err != nil {
		if r.Context().Err() == nil { // the merchant is still waiting
			h.log.Warn("fetching a pre-auth code failed", "error", errorText(err, code))
		}
		p := upstreamErrorPage(err, ph, ph.notReadyText, ph.defectText)
		return p.withAction(&action{ph.tryAgain, state.authorizeURL()})
	}
	h.log.Info("authorization page opened", "type", state.kind, "account", state.account)
	minutes := max(1, int(life/time.Minute))
	return page{
		status: http.StatusOK, Title: ph.Title, Text: []string{ph.Lead},
		Links: h.links(s, state, code),
		Notes: []string{ph.NoteAdmin, ph.NoteChoice, insert(ph.NoteIn, minutes)},
	}
}

// links returns the addresses of WeChat's pages
// (doc/oplatform/…/Before_Develop/Authorization_Process_Technical_Description).
func (h *Handler) links(s *settings, state authState, code wechat.Secret) *links {
	pc, phone := "https://mp.weixin.qq.com", "https://open.weixin.qq.com"
	if s.loginBase != "" {
		pc, phone = s.loginBase, s.loginBase
	}
	// Even a state that says nothing shows that the merchant comes from here.
	redirectURI := s.publicURL + AuthorizedPath +
		"?s=" + sealState(h.stateKey, s.component, state, h.now())
	query := "component_appid=" + s.component + "&pre_auth_code=" + url.QueryEscape(code.Reveal()) +
		"&redirect_uri=" + url.QueryEscape(redirectURI)
	if state.account != "" {
		query += "&biz_appid=" + state.account // WeChat accepts either this or auth_type
	} else {
		query += "&auth_type=" + state.kind
	}
	if state.categories != "" {
		query += "&category_id_list=" + url.QueryEscape(state.categories)
	}
	out := &links{
		PC: pc + "/cgi-bin/componentloginpage?" + query,
		Phone: phone + "/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&" + query +
			"#wechat_redirect",
	}
	if path, side, err := qrPath(out.Phone); err == nil {
		out.QR, out.Side = path, side
	}
	return out
}

// Limits of the query of /authorize.
const (
	maxPageQuery = 6144 // bytes
	maxState     = 512  // bytes, decoded
	defaultKind  = "3"  // official accounts and mini programs
)

var (
	authKinds    = []string{"1", "2", "3", "4", "5", "6", "8"} // WeChat's values of auth_type
	categoryList = regexp.MustCompile(`^[0-9]{1,6}([|,][0-9]{1,6}){0,99}$`)
)

// parseAuthorizeQuery parses the query of /authorize. It ignores unknown
// parameters, because apps add their own to shared links (from,
// isappinstalled). problem is a sentence for the reader, "" if the query is
// valid.
func parseAuthorizeQuery(raw string, returnTo []string, ph *phrases) (s authState, problem string) {
	if len(raw) > maxPageQuery {
		return s, ph.badQuery
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return s, ph.badQuery
	}
	for name, to := range s.params() {
		if len(query[name]) > 1 {
			return s, ph.badQuery
		}
		*to = query.Get(name)
	}
	switch {
	case s.kind != "" && !slices.Contains(authKinds, s.kind):
		return s, ph.badType
	case s.account != "" && !wechat.IsAppID(s.account):
		return s, ph.badAccount
	case s.categories != "" && !categoryList.MatchString(s.categories):
		return s, ph.badCategories
	case len(s.state) > maxState:
		return s, ph.badState
	case s.returnTo != "" && !returnAllowed(returnTo, s.returnTo):
		return s, ph.badReturn
	}
	if s.kind == "" {
		s.kind = defaultKind
	}
	s.categories = strings.ReplaceAll(s.categories, ",", "|")
	return s, ""
}

// params returns the fields by the names of their parameters.
func (s *authState) params() map[string]*string {
	return map[string]*string{
		"type": &s.kind, "biz_appid": &s.account, "category_ids": &s.categories,
		"state": &s.state, "return_to": &s.returnTo,
	}
}

// authorizeURL returns the path and query of /authorize that lead to this
// state.
func (s authState) authorizeURL() string {
	query := url.Values{}
	for name, v := range s.params() {
		if *v != "" && !(name == "type" && *v == defaultKind) {
			query.Set(name, *v)
		}
	}
	if len(query) == 0 {
		return AuthorizePath
	}
	return AuthorizePath + "?" + query.Encode()
}

// isPrefetch reports whether a browser fetches the page before a click that may
// never happen. It fetches the page again after the click.
func isPrefetch(r *http.Request) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		v := strings.ToLower(r.Header.Get(name))
		for _, purpose := range []string{"prefetch", "preview", "prerender"} {
			if strings.Contains(v, purpose) {
				return true
			}
		}
	}
	return false
}

// robotMarks are parts of the User-Agent of programs that preview links.
var robotMarks = []string{
	"bot/", "bot;", "bot)", "bot-", "bot (", "+http", "spider", "crawler", "preview",
	"facebookexternalhit", "whatsapp/", "embedly",
}

// isRobot reports whether a User-Agent is that of a program that previews
// links.
func isRobot(userAgent string) bool {
	userAgent = strings.ToLower(userAgent)
	if strings.Contains(userAgent, "micromessenger") {
		return false // WeChat's own browser, whatever the name of the phone contains
	}
	if strings.HasSuffix(userAgent, "bot") {
		return true
	}
	return slices.ContainsFunc(robotMarks, func(mark string) bool {
		return strings.Contains(userAgent, mark)
	})
}

// upstreamErrorPage returns the page for a failed call to WeChat. later is its
// text if waiting helps, and internal its text if wxproxy is at fault.
func upstreamErrorPage(err error, ph *phrases, later, internal string) page {
	const codeTooOften, codeTooConcurrent = 45011, 9402202 // both pass within a minute
	code := wechat.Code(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return waitPage(http.StatusGatewayTimeout, retryDelay, ph.notReady, later)
	case code == wechat.CodeBusy, code == codeTooOften, code == codeTooConcurrent:
		return waitPage(http.StatusServiceUnavailable, retryDelay, ph.notReady, later)
	case code != 0 && !errors.Is(err, tokens.ErrUnavailable):
		return errorPage(http.StatusBadGateway, ph.refused, insert(ph.refusedText, code))
	case errors.Is(err, wechat.ErrUnreachable):
		return waitPage(http.StatusBadGateway, retryDelay, ph.notReady, later)
	case errors.Is(err, tokens.ErrUnavailable), errors.Is(err, tokens.ErrNoTicket),
		errors.Is(err, tokens.ErrThrottled), errors.Is(err, tokens.ErrClosed),
		errors.Is(err, context.Canceled):
		return waitPage(http.StatusServiceUnavailable, retryDelay, ph.notReady, later)
	}
	return errorPage(http.StatusInternalServerError, ph.defect, internal)
}

// errorText returns the text of err for the log. Errors should not quote the
// code; if one does, the log still does not.
func errorText(err error, code wechat.Secret) string {
	return wechat.Sanitize(code.Mask(err.Error()), maxLogText)
}
