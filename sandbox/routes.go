package sandbox

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"
)

// routes are what the control door does.
var routes = []route{
	{"POST", "/sandbox/expire", []string{"appid"}, "", "The account's current token is at its end: 42001. appid=component is the component.", expireRoute},
	{"POST", "/sandbox/supersede", []string{"appid"}, "", "Somebody else renews: there is a new token, the old one gets 40001.", supersedeRoute},
	{"POST", "/sandbox/refresh-token/kill", []string{"appid"}, "", "The account's refresh token is refused: 61023, until its merchant consents again.", killRoute},
	{"POST", "/sandbox/refresh-token/replace", []string{"appid"}, "", "WeChat holds another refresh token: the old one gets 61023, the new one is in api_get_authorizer_list.", replaceRoute},
	{"POST", "/sandbox/ticket", nil, "", "Pushes a new ticket. Where there is no push URL, the answer holds it.", ticketRoute},
	{"POST", "/sandbox/accounts", nil, `{"appid":"wx0123456789abcdef","kind":"mini","secret":""}`, `Adds an account. kind: "official" or "mini"; secret: its own, if it has one.`, accountRoute},
	{"POST", "/sandbox/authorize", []string{"appid"}, "", "The merchant agrees: pushes `authorized`, and answers the code. An unknown appid becomes an official account.", authorizeRoute},
	{"POST", "/sandbox/updateauthorized", []string{"appid"}, "", "The merchant changes the consent: pushes `updateauthorized`, and answers the code.", updateRoute},
	{"POST", "/sandbox/unauthorize", []string{"appid"}, "", "The merchant withdraws: pushes `unauthorized`.", unauthorizeRoute},
	{"POST", "/sandbox/code", []string{"appid"}, "", "A code as the merchant's browser would bring it; nothing is pushed.", codeRoute},
	{"POST", "/sandbox/push-url", []string{"url"}, "", "Where pushes go: the base of a callback listener. Empty: nowhere.", pushURLRoute},
	{"GET", "/sandbox/faults", nil, "", "The faults that are set up.", faultsRoute},
	{"POST", "/sandbox/faults", nil, `{"path":"/cgi-bin/","appid":"","times":3,"errcode":45009}`, "Sets one up. Fields: path (prefix), appid, times (0: until removed); one of errcode (with errmsg, errstring), status, empty, body (with contenttype, status); any of gzip, chunked, delay, drip (\"300ms\"), break (\"before\", \"middle\").", addFaultRoute},
	{"DELETE", "/sandbox/faults", []string{"id"}, "", "Removes one, or without id all.", removeFaultRoute},
	{"GET", "/sandbox/history", []string{"limit"}, "", "The last calls, the oldest first, 100 if limit says nothing else. Secrets are cut to eight characters.", historyRoute},
	{"DELETE", "/sandbox/history", nil, "", "Forgets them.", forgetRoute},
	{"GET", "/sandbox/violations", nil, "", "What arrived and should not have: credentials in headers, two tokens in one call, chunked bodies.", violationsRoute},
	{"DELETE", "/sandbox/violations", nil, "", "Forgets them.", pardonRoute},
	{"GET", "/sandbox/state", []string{"offset", "limit"}, "", "The component and its accounts: ages and fingerprints, no tokens. 100 accounts if limit says nothing else.", stateRoute},
}

var done = fields{"done": true}

// target is the account that the parameter appid names; it must exist.
func (s *WeChat) target(q url.Values) (string, error) {
	appid := q.Get("appid")
	switch {
	case appid == "":
		return "", badRequest("the parameter appid is missing")
	case appid == "component":
		return s.cfg.ComponentAppID, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.account(appid) == nil {
		return "", refusal{http.StatusNotFound, "there is no account of that appid"}
	}
	return appid, nil
}

// onToken does something to what the account has, if it has any.
func onToken(do func(*WeChat, string) bool, nothing string) func(*WeChat, *http.Request, url.Values, []byte) (any, error) {
	return func(s *WeChat, _ *http.Request, q url.Values, _ []byte) (any, error) {
		appid, err := s.target(q)
		if err != nil {
			return nil, err
		}
		if !do(s, appid) {
			return nil, refusal{http.StatusConflict, nothing}
		}
		return done, nil
	}
}

var (
	expireRoute    = onToken((*WeChat).Expire, "no token was ever given out for it")
	supersedeRoute = onToken((*WeChat).Supersede, "no token was ever given out for it")
	killRoute      = onToken((*WeChat).KillRefreshToken, "it has no refresh token")
	replaceRoute   = onToken(func(s *WeChat, appid string) bool { return s.ReplaceRefreshToken(appid) != "" }, "it has no refresh token")
)

// pushed is the error of a push, for the door.
func pushed(err error) error {
	if err == nil {
		return nil
	}
	return refusal{http.StatusBadGateway, err.Error()}
}

func ticketRoute(s *WeChat, r *http.Request, _ url.Values, _ []byte) (any, error) {
	switch err := s.PushTicket(r.Context()); {
	case errors.Is(err, ErrNoPushURL):
		return fields{"pushed": false, "ticket": s.Ticket()}, nil
	case err != nil:
		return nil, pushed(err)
	}
	return fields{"pushed": true}, nil
}

func accountRoute(s *WeChat, _ *http.Request, _ url.Values, body []byte) (any, error) {
	var in struct {
		AppID  string `json:"appid"`
		Kind   string `json:"kind"`
		Secret string `json:"secret"`
	}
	if err := readJSON(body, &in); err != nil {
		return nil, err
	}
	kind, known := map[string]Kind{"": OfficialAccount, "official": OfficialAccount, "mini": MiniProgram}[in.Kind]
	if !known {
		return nil, badRequest(`kind is "official" or "mini"`)
	}
	if err := s.AddAccount(in.AppID, kind, WithSecret(in.Secret)); err != nil {
		return nil, err
	}
	return done, nil
}

func authorizeRoute(s *WeChat, r *http.Request, q url.Values, _ []byte) (any, error) {
	code, err := s.Authorize(r.Context(), q.Get("appid"))
	if code == "" {
		return nil, err
	}
	return fields{"code": code}, pushed(err)
}

func updateRoute(s *WeChat, r *http.Request, q url.Values, _ []byte) (any, error) {
	appid, err := s.target(q)
	if err != nil {
		return nil, err
	}
	code, err := s.UpdateAuthorized(r.Context(), appid)
	if code == "" {
		return nil, refusal{http.StatusConflict, err.Error()}
	}
	return fields{"code": code}, pushed(err)
}

func unauthorizeRoute(s *WeChat, r *http.Request, q url.Values, _ []byte) (any, error) {
	appid, err := s.target(q)
	if err != nil {
		return nil, err
	}
	if appid == s.cfg.ComponentAppID {
		return nil, badRequest("the component cannot withdraw from itself")
	}
	return done, pushed(s.Unauthorize(r.Context(), appid))
}

func codeRoute(s *WeChat, _ *http.Request, q url.Values, _ []byte) (any, error) {
	code := s.AuthorizationCode(q.Get("appid"))
	if code == "" {
		return nil, badRequest("appid must be that of an account: wx and 16 characters of 0-9, a-z")
	}
	return fields{"code": code, "expires_in": int(redirectCodeLife.Seconds())}, nil
}

func pushURLRoute(s *WeChat, _ *http.Request, q url.Values, _ []byte) (any, error) {
	return done, s.SetPushURL(q.Get("url"))
}

func faultsRoute(s *WeChat, _ *http.Request, _ url.Values, _ []byte) (any, error) {
	return fields{"faults": s.Faults()}, nil
}

func addFaultRoute(s *WeChat, _ *http.Request, _ url.Values, body []byte) (any, error) {
	var f Fault
	if err := readJSON(body, &f); err != nil {
		return nil, err
	}
	if f.ID != 0 {
		return nil, badRequest("the id is given by the sandbox")
	}
	id, err := s.AddFault(f)
	if err != nil {
		return nil, err
	}
	return fields{"id": id}, nil
}

func removeFaultRoute(s *WeChat, _ *http.Request, q url.Values, _ []byte) (any, error) {
	if !q.Has("id") {
		s.ClearFaults()
		return done, nil
	}
	id, err := strconv.Atoi(q.Get("id"))
	if err != nil {
		return nil, badRequest("id must be a number")
	}
	if !s.RemoveFault(id) {
		return nil, refusal{http.StatusNotFound, "there is no fault of that id"}
	}
	return done, nil
}

// number reads a parameter that counts something.
func number(q url.Values, name string, otherwise int) (int, error) {
	if !q.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < 0 {
		return 0, badRequest("%s must be a number, 0 or more", name)
	}
	return n, nil
}

func historyRoute(s *WeChat, _ *http.Request, q url.Values, _ []byte) (any, error) {
	limit, err := number(q, "limit", 100)
	if err != nil {
		return nil, err
	}
	return fields{"calls": s.shown(limit)}, nil
}

func forgetRoute(s *WeChat, _ *http.Request, _ url.Values, _ []byte) (any, error) {
	s.ResetHistory()
	return done, nil
}

func violationsRoute(s *WeChat, _ *http.Request, _ url.Values, _ []byte) (any, error) {
	return fields{"violations": append([]string{}, s.Violations()...)}, nil
}

func pardonRoute(s *WeChat, _ *http.Request, _ url.Values, _ []byte) (any, error) {
	s.ResetViolations()
	return done, nil
}

func stateRoute(s *WeChat, _ *http.Request, q url.Values, _ []byte) (any, error) {
	offset, err := number(q, "offset", 0)
	if err != nil {
		return nil, err
	}
	limit, err := number(q, "limit", 100)
	if err != nil {
		return nil, err
	}
	return s.state(offset, limit), nil
}
