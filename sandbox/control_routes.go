package sandbox

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"wxproxy/sandbox/internal/state"
)

// route is one control endpoint. The page shows it, so that the page is
// complete.
type route struct {
	Method string
	Path   string
	Params []string // of the query; any other is rejected
	Body   string   // an example in JSON, "" if it takes none
	What   string   // a description, shown on the page
	serve  serveRoute
}

// serveRoute carries out a request. A result that comes with an error says what
// was done before the failure.
type serveRoute func(*controlServer, controlRequest) (result any, err error)

// controlRequest is a request to a control endpoint, checked against its route.
type controlRequest struct {
	*http.Request
	query url.Values
	body  []byte
}

// fields is a JSON object to be encoded.
type fields map[string]any

// done is the result of an endpoint that returns nothing.
var done = fields{"done": true}

// routes are all control endpoints, in the order in which the page shows them.
var routes = []route{
	{Method: "POST", Path: "/sandbox/expire", Params: []string{"appid"}, serve: serveExpire,
		What: "Ends the lifetime of the account's current token: 42001. appid=component means the component."},
	{Method: "POST", Path: "/sandbox/supersede", Params: []string{"appid"}, serve: serveSupersede,
		What: "Renews as another client would: there is a new token, the old one gets 40001."},
	{Method: "POST", Path: "/sandbox/refresh-token/kill", Params: []string{"appid"}, serve: serveKill,
		What: "Makes the account's refresh token invalid: 61023, until its merchant consents again."},
	{Method: "POST", Path: "/sandbox/refresh-token/replace", Params: []string{"appid"}, serve: serveReplace,
		What: "Replaces the refresh token: the old one gets 61023, the new one is in api_get_authorizer_list."},
	{Method: "POST", Path: "/sandbox/ticket", serve: (*controlServer).pushTicket,
		What: "Pushes a new ticket. Without a push URL, the response contains it."},
	{Method: "POST", Path: "/sandbox/accounts", serve: (*controlServer).addAccount,
		Body: `{"appid":"wx0123456789abcdef","kind":"mini","secret":""}`,
		What: `Adds an account. kind: "official" or "mini"; secret: its own, if it has one.`},
	{Method: "POST", Path: "/sandbox/authorize", Params: []string{"appid"}, serve: (*controlServer).authorize,
		What: "The merchant consents: pushes `authorized` and returns the code. " +
			"An unknown appid becomes an official account."},
	{Method: "POST", Path: "/sandbox/updateauthorized", Params: []string{"appid"},
		serve: (*controlServer).updateAuthorized,
		What:  "The merchant changes the consent: pushes `updateauthorized` and returns the code."},
	{Method: "POST", Path: "/sandbox/unauthorize", Params: []string{"appid"}, serve: (*controlServer).unauthorize,
		What: "The merchant revokes the authorization: pushes `unauthorized`."},
	{Method: "POST", Path: "/sandbox/code", Params: []string{"appid"}, serve: (*controlServer).code,
		What: "Returns a code as the merchant's browser would bring it; pushes nothing."},
	{Method: "POST", Path: "/sandbox/push-url", Params: []string{"url"}, serve: (*controlServer).setPushURL,
		What: "Sets where pushes are sent: the base URL of a callback listener. Empty: nowhere."},
	{Method: "POST", Path: "/sandbox/push", serve: (*controlServer).pushOwn,
		Body: `{"appid":"wx0123456789abcdef","token":"","key":"","mode":"safe","document":"<xml>…</xml>"}`,
		What: "Pushes a message to /APPID/events with an own account's token and key, and returns " +
			`the response. mode: "safe", "compatible", "plain", or "check" for the check of the ` +
			"URL. The document is XML or JSON."},
	{Method: "GET", Path: "/sandbox/faults", serve: (*controlServer).listFaults,
		What: "Lists the faults in force."},
	{Method: "POST", Path: "/sandbox/faults", serve: (*controlServer).addFault,
		Body: `{"path":"/cgi-bin/","appid":"","times":3,"errcode":45009}`,
		What: "Adds a fault. Fields: path (prefix), appid, times (0: until removed); " +
			"one of errcode (with errmsg, errstring), status, empty, body (with contenttype, status); " +
			`any of gzip, chunked, delay, drip ("300ms"), break ("before", "middle").`},
	{Method: "DELETE", Path: "/sandbox/faults", Params: []string{"id"}, serve: (*controlServer).removeFaults,
		What: "Removes one fault, or all without id."},
	{Method: "GET", Path: "/sandbox/history", Params: []string{"limit"}, serve: (*controlServer).listHistory,
		What: "Lists the last requests, oldest first, 100 without limit. Secrets are cut to eight characters."},
	{Method: "DELETE", Path: "/sandbox/history", serve: (*controlServer).forgetHistory,
		What: "Forgets them."},
	{Method: "GET", Path: "/sandbox/violations", serve: (*controlServer).listViolations,
		What: "Lists what should not have arrived: credentials in headers, two tokens, chunked bodies."},
	{Method: "DELETE", Path: "/sandbox/violations", serve: (*controlServer).forgetViolations,
		What: "Forgets them."},
	{Method: "GET", Path: "/sandbox/state", Params: []string{"offset", "limit"}, serve: (*controlServer).state,
		What: "Shows the component and its accounts: ages and fingerprints, no tokens. 100 accounts without limit."},
}

// target returns the account that the parameter appid names.
func (c *controlServer) target(r controlRequest) (appid string, err error) {
	appid = r.query.Get("appid")
	switch {
	case appid == "":
		return "", badRequest("parameter appid is missing")
	case appid == "component":
		return c.wx.ComponentAppID(), nil
	}
	if _, known := c.wx.state.Accounts.Find(appid); !known {
		return "", controlError{http.StatusNotFound, "unknown appid"}
	}
	return appid, nil
}

const (
	noToken        = "no token was issued to this account"
	noRefreshToken = "this account has no refresh token"
)

var (
	serveExpire    = onCredential((*WeChat).Expire, noToken)
	serveSupersede = onCredential((*WeChat).Supersede, noToken)
	serveKill      = onCredential((*WeChat).KillRefreshToken, noRefreshToken)
	serveReplace   = onCredential(replaceRefreshToken, noRefreshToken)
)

// replaceRefreshToken reports whether there was a refresh token to replace. The
// new one is a secret, so the response does not contain it.
func replaceRefreshToken(s *WeChat, appid string) bool { return s.ReplaceRefreshToken(appid) != "" }

// onCredential returns an endpoint that changes a credential of the account.
// change returns false if there is none, which is reported as missing.
func onCredential(change func(*WeChat, string) bool, missing string) serveRoute {
	return func(c *controlServer, r controlRequest) (any, error) {
		appid, err := c.target(r)
		if err != nil {
			return nil, err
		}
		if !change(c.wx, appid) {
			return nil, controlError{http.StatusConflict, missing}
		}
		return done, nil
	}
}

// pushError returns the error of a push with status 502, nil for nil.
func pushError(err error) error {
	if err == nil {
		return nil
	}
	return controlError{http.StatusBadGateway, err.Error()}
}

// pushTicket returns the ticket itself only if it cannot be pushed: otherwise
// the callback has it, and no other client needs it.
func (c *controlServer) pushTicket(r controlRequest) (any, error) {
	switch err := c.wx.PushTicket(r.Context()); {
	case errors.Is(err, ErrNoPushURL):
		return fields{"pushed": false, "ticket": c.wx.Ticket()}, nil
	case err != nil:
		return nil, pushError(err)
	}
	return fields{"pushed": true}, nil
}

// addAccount adds an account that has not authorized the component.
func (c *controlServer) addAccount(r controlRequest) (any, error) {
	var in struct {
		AppID  string `json:"appid"`
		Kind   string `json:"kind"`
		Secret string `json:"secret"`
	}
	if err := readJSON(r.body, &in); err != nil {
		return nil, err
	}
	kind, known := map[string]Kind{"": OfficialAccount, "official": OfficialAccount, "mini": MiniProgram}[in.Kind]
	if !known {
		return nil, badRequest(`unknown kind: want "official" or "mini"`)
	}
	if err := c.wx.AddAccount(in.AppID, kind, WithSecret(in.Secret)); err != nil {
		return nil, err
	}
	return done, nil
}

// authorize returns the code even if the push fails, because the consent
// stands.
func (c *controlServer) authorize(r controlRequest) (any, error) {
	code, err := c.wx.Authorize(r.Context(), r.query.Get("appid"))
	if code == "" {
		return nil, err
	}
	return fields{"code": code}, pushError(err)
}

// updateAuthorized returns 409 for an account that has not authorized.
func (c *controlServer) updateAuthorized(r controlRequest) (any, error) {
	appid, err := c.target(r)
	if err != nil {
		return nil, err
	}
	code, err := c.wx.UpdateAuthorized(r.Context(), appid)
	if code == "" {
		return nil, controlError{http.StatusConflict, err.Error()}
	}
	return fields{"code": code}, pushError(err)
}

// unauthorize rejects the component, which the parameter appid can name too.
func (c *controlServer) unauthorize(r controlRequest) (any, error) {
	appid, err := c.target(r)
	if err != nil {
		return nil, err
	}
	if appid == c.wx.ComponentAppID() {
		return nil, badRequest("the component has no authorization to revoke")
	}
	return done, pushError(c.wx.Unauthorize(r.Context(), appid))
}

// code returns what api_query_auth exchanges. Unlike tokens, a code has to be
// in the response: the test plays the browser that brings it.
func (c *controlServer) code(r controlRequest) (any, error) {
	code := c.wx.AuthorizationCode(r.query.Get("appid"))
	if code == "" {
		return nil, badRequest("malformed appid: want that of an account, wx and 16 characters of 0-9, a-z")
	}
	return fields{"code": code, "expires_in": int(state.RedirectCodeLife.Seconds())}, nil
}

func (c *controlServer) setPushURL(r controlRequest) (any, error) {
	return done, c.wx.SetPushURL(r.query.Get("url"))
}

func (c *controlServer) listFaults(controlRequest) (any, error) {
	return fields{"faults": c.wx.Faults()}, nil
}

func (c *controlServer) addFault(r controlRequest) (any, error) {
	var f Fault
	if err := readJSON(r.body, &f); err != nil {
		return nil, err
	}
	if f.ID != 0 {
		return nil, badRequest("id is set by the sandbox")
	}
	id, err := c.wx.AddFault(f)
	if err != nil {
		return nil, err
	}
	return fields{"id": id}, nil
}

// removeFaults removes all faults if the query names none.
func (c *controlServer) removeFaults(r controlRequest) (any, error) {
	if !r.query.Has("id") {
		c.wx.ClearFaults()
		return done, nil
	}
	id, err := strconv.Atoi(r.query.Get("id"))
	if err != nil {
		return nil, badRequest("malformed id: want a number")
	}
	if !c.wx.RemoveFault(id) {
		return nil, controlError{http.StatusNotFound, "unknown fault id"}
	}
	return done, nil
}

// count parses a parameter that counts something.
func (r *controlRequest) count(name string, byDefault int) (int, error) {
	if !r.query.Has(name) {
		return byDefault, nil
	}
	n, err := strconv.Atoi(r.query.Get(name))
	if err != nil || n < 0 {
		return 0, badRequest("malformed %s: want a number, 0 or more", name)
	}
	return n, nil
}

// defaultLimit is how many entries a list has without the parameter limit.
const defaultLimit = 100

func (c *controlServer) listHistory(r controlRequest) (any, error) {
	limit, err := r.count("limit", defaultLimit)
	if err != nil {
		return nil, err
	}
	return fields{"calls": c.calls(limit)}, nil
}

func (c *controlServer) forgetHistory(controlRequest) (any, error) {
	c.wx.ResetHistory()
	return done, nil
}

func (c *controlServer) listViolations(controlRequest) (any, error) {
	return fields{"violations": append([]string{}, c.wx.Violations()...)}, nil
}

func (c *controlServer) forgetViolations(controlRequest) (any, error) {
	c.wx.ResetViolations()
	return done, nil
}

func (c *controlServer) state(r controlRequest) (any, error) {
	offset, err := r.count("offset", 0)
	if err != nil {
		return nil, err
	}
	limit, err := r.count("limit", defaultLimit)
	if err != nil {
		return nil, err
	}
	return c.view(offset, limit), nil
}
