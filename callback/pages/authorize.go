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
	// pageTimeout bounds what WeChat is asked for a page: the listener has to write it within 15 s.
	pageTimeout = 11 * time.Second
	// patience is what merchants are told to have when WeChat does not answer.
	patience = time.Minute
)

// WeChat looks at the Referer of whoever comes to its page: it has to be the platform's own host
// (授权发起页域名). The host is all that it is told; the query of our page is the opener's business.
const originOnly = "strict-origin"

// noReferrer: the address of /authorized has a code in it.
const noReferrer = "no-referrer"

// serveAuthorize answers the page from which a merchant starts.
func (h *Handler) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	words := wordsFor(r)
	v := h.authorizeView(r, words)
	h.show(w, r, words, originOnly, v)
}

func (h *Handler) authorizeView(r *http.Request, words *phrases) view {
	k := h.settings.Load()
	if k.publicURL == "" {
		h.log.Warn("the authorization page cannot be shown: callback.public_url is not set")
		return failed(http.StatusServiceUnavailable, words.notSetUp, words.noPublicURL)
	}
	p, problem := readAsked(r.URL.RawQuery, k.returnTo, words)
	if problem != "" {
		v := failed(http.StatusBadRequest, words.badLink, problem)
		v.Text = append(v.Text, words.badAdvice)
		return v
	}
	// A code is fetched for people only: who looks whether the page is there, or what it is about, gets none.
	switch {
	case prefetches(r):
		return wait(http.StatusServiceUnavailable, time.Second, words.robot, words.robotText)
	case r.Method == http.MethodHead || isRobot(r.UserAgent()):
		return view{status: http.StatusOK, Title: words.robot, Text: []string{words.robotText}}
	}
	if d := h.authorizeLimiter.spend(clientOf(r)); d > 0 {
		return wait(http.StatusTooManyRequests, d, words.tooMany, with(words.tooManyText, inSeconds(d)))
	}
	ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
	defer cancel()
	code, life, err := h.exchanger.PreAuthCode(ctx)
	if err != nil {
		if r.Context().Err() == nil {
			h.log.Warn("no pre-auth code for the authorization page", "error", errorText(err, code))
		}
		v := trouble(err, words, words.notReadyText, words.defectText)
		v.Action = &action{words.tryAgain, p.page()}
		return v
	}
	h.log.Info("authorization page opened", "type", p.kind, "account", p.account)
	return view{
		status: http.StatusOK, Title: words.Title, Text: []string{words.Lead}, Links: h.links(k, p, code),
		Notes: []string{words.NoteAdmin, words.NoteChoice, with(words.NoteIn, max(1, int(life/time.Minute)))},
	}
}

// links are the addresses of WeChat's pages (doc/oplatform/…/Before_Develop/Authorization_Process_Technical_Description).
func (h *Handler) links(k *settings, p passage, code wechat.Secret) *links {
	pc, phone := "https://mp.weixin.qq.com", "https://open.weixin.qq.com"
	if k.loginBase != "" {
		pc, phone = k.loginBase, k.loginBase
	}
	back := k.publicURL + AuthorizedPath
	if p != (passage{asked: asked{kind: defaultType}}) { // nothing to remember makes a smaller QR code
		back += "?s=" + sealPassage(h.stateKey, k.component, p, h.now())
	}
	query := "component_appid=" + k.component + "&pre_auth_code=" + url.QueryEscape(code.Reveal()) + "&redirect_uri=" + url.QueryEscape(back)
	if p.account != "" {
		query += "&biz_appid=" + p.account // one account is of one type
	} else {
		query += "&auth_type=" + p.kind
	}
	if p.categories != "" {
		query += "&category_id_list=" + url.QueryEscape(p.categories)
	}
	out := &links{
		PC:    pc + "/cgi-bin/componentloginpage?" + query,
		Phone: phone + "/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&" + query + "#wechat_redirect",
	}
	if path, side, err := qrPath(out.Phone); err == nil {
		out.QR, out.Side = path, side
	}
	return out
}

// What may be in the query of /authorize.
const (
	maxPageQuery = 6144 // bytes
	maxState     = 512  // bytes, decoded
	defaultType  = "3"  // official accounts and mini programs
)

var (
	authTypes    = []string{"1", "2", "3", "4", "5", "6", "8"}
	categoryList = regexp.MustCompile(`^[0-9]{1,6}([|,][0-9]{1,6}){0,99}$`)
)

// readAsked reads the query. Names that are not known are passed over, because apps add theirs to links that people
// share (from, isappinstalled). problem is a sentence for the reader.
func readAsked(raw string, returnTo []string, words *phrases) (p passage, problem string) {
	if len(raw) > maxPageQuery {
		return p, words.badQuery
	}
	query, err := url.ParseQuery(raw)
	if err != nil {
		return p, words.badQuery
	}
	for name, to := range map[string]*string{"type": &p.kind, "biz_appid": &p.account, "category_ids": &p.categories, "state": &p.state, "return_to": &p.returnTo} {
		if len(query[name]) > 1 {
			return p, words.badQuery
		}
		*to = query.Get(name)
	}
	switch {
	case p.kind != "" && !slices.Contains(authTypes, p.kind):
		return p, words.badType
	case p.account != "" && !wechat.IsAppID(p.account):
		return p, words.badAccount
	case p.categories != "" && !categoryList.MatchString(p.categories):
		return p, words.badCategories
	case len(p.state) > maxState:
		return p, words.badState
	case p.returnTo != "" && !returnAllowed(returnTo, p.returnTo):
		return p, words.badReturn
	}
	if p.kind == "" {
		p.kind = defaultType
	}
	p.categories = strings.ReplaceAll(p.categories, ",", "|")
	return p, ""
}

// page is the address of the page for what was asked, on this host.
func (p passage) page() string {
	query := url.Values{}
	for name, v := range map[string]string{"type": p.kind, "biz_appid": p.account, "category_ids": p.categories, "state": p.state, "return_to": p.returnTo} {
		if v != "" && !(name == "type" && v == defaultType) {
			query.Set(name, v)
		}
	}
	if len(query) == 0 {
		return AuthorizePath
	}
	return AuthorizePath + "?" + query.Encode()
}

// prefetches: a browser that fetches ahead of a click that may never come. It asks again when it does.
func prefetches(r *http.Request) bool {
	for _, name := range []string{"Sec-Purpose", "Purpose", "X-Purpose", "X-Moz"} {
		if v := strings.ToLower(r.Header.Get(name)); strings.Contains(v, "prefetch") || strings.Contains(v, "preview") || strings.Contains(v, "prerender") {
			return true
		}
	}
	return false
}

// robots are words in the names of programs that look at links which people send each other.
var robots = []string{"bot/", "bot;", "bot)", "bot-", "bot (", "+http", "spider", "crawler", "preview", "facebookexternalhit", "whatsapp/", "embedly"}

func isRobot(agent string) bool {
	agent = strings.ToLower(agent)
	if strings.Contains(agent, "micromessenger") {
		return false // WeChat's own browser, whatever the phone is called
	}
	return strings.HasSuffix(agent, "bot") || slices.ContainsFunc(robots, func(word string) bool { return strings.Contains(agent, word) })
}

// trouble is the page for what keeps WeChat from answering. later is said where waiting helps, ours where it is a
// defect of wxproxy's.
func trouble(err error, words *phrases, later, ours string) view {
	code := wechat.Code(err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return wait(http.StatusGatewayTimeout, patience, words.notReady, later)
	case code == wechat.CodeBusy, code == 45011, code == 9402202: // too many within a moment
		return wait(http.StatusServiceUnavailable, patience, words.notReady, later)
	case code != 0 && !errors.Is(err, tokens.ErrUnavailable):
		return failed(http.StatusBadGateway, words.refused, with(words.refusedText, code))
	case errors.Is(err, wechat.ErrUnreachable):
		return wait(http.StatusBadGateway, patience, words.notReady, later)
	case errors.Is(err, tokens.ErrUnavailable), errors.Is(err, tokens.ErrNoTicket), errors.Is(err, tokens.ErrThrottled), errors.Is(err, tokens.ErrClosed), errors.Is(err, context.Canceled):
		return wait(http.StatusServiceUnavailable, patience, words.notReady, later)
	}
	return failed(http.StatusInternalServerError, words.defect, ours)
}

// maxLogText is the maximum length, in characters, of an error text in the log.
const maxLogText = 400

// errorText returns the text of err for the log. Errors should not quote the
// code, and if one does, the log still does not.
func errorText(err error, code wechat.Secret) string {
	return wechat.Sanitize(code.Mask(err.Error()), maxLogText)
}
