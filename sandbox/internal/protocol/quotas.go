package protocol

import (
	"strings"
	"time"

	"wxproxy/sandbox/internal/state"
)

// dailyLimit is the quota that every endpoint reports. It never runs out here.
const dailyLimit = 1_000_000

// FailedRequest is what WeChat remembers of a request that failed.
type FailedRequest struct {
	Time     time.Time
	AppID    string // whose token it carried
	Query    string
	Body     []byte
	Response []byte
}

// quotaHandler serves the numbers of requests, and what WeChat remembers about
// them (doc/oplatform/openApi/openapi).
type quotaHandler struct {
	component
	accounts    *state.Accounts
	quotas      *state.Quotas
	hasEndpoint func(path string) bool
	findFailed  func(rid string) (FailedRequest, bool)
}

func (h *quotaHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/clear_quota":              {post, eitherToken, jsonBody, h.clear},
		"/cgi-bin/component/clear_quota/v2": {post, noToken, jsonBody, h.clearBySecret},
		"/cgi-bin/openapi/quota/get":        {post, eitherToken, jsonBody, h.get},
		"/cgi-bin/openapi/quota/clear":      {post, eitherToken, jsonBody, h.clearPath},
		"/cgi-bin/openapi/rid/get":          {post, eitherToken, jsonBody, h.failedRequest},
		"/cgi-bin/getcallbackip":            {get, eitherToken, noBody, h.addresses},
		"/cgi-bin/get_api_domain_ip":        {get, eitherToken, noBody, h.addresses},
	}
}

// clear wants the appid of the account whose token it got.
func (h *quotaHandler) clear(r *Request) Response {
	switch r.Field("appid") {
	case "":
		return fail(41002)
	case r.account.AppID:
		return result(h.quotas.Clear(r.account.AppID, r.Now))
	}
	return fail(49001)
}

// clearBySecret needs no token, because the quota of the token endpoints
// themselves can be used up (openapi/api_componentclearquota_v2).
func (h *quotaHandler) clearBySecret(r *Request) Response {
	if code := h.checkSecret(r.Field("component_appid"), r.Field("appsecret")); code != 0 {
		return fail(code)
	}
	appid := r.Field("appid")
	if appid == "" {
		return result(h.quotas.Clear(h.appid, r.Now))
	}
	if a, known := h.accounts.FindAuthorizer(appid); !known || !a.Authorized {
		return fail(61003)
	}
	return result(h.quotas.Clear(appid, r.Now))
}

// path returns the endpoint that a request is about.
func (h *quotaHandler) path(r *Request) (string, int) {
	path := r.Field("cgi_path")
	switch {
	case strings.HasPrefix(path, "/sns/"):
		return "", 76022
	case !h.hasEndpoint(path):
		return "", 76003
	}
	return path, 0
}

// get counts this very request as well, if cgi_path is its own path.
func (h *quotaHandler) get(r *Request) Response {
	path, code := h.path(r)
	if code != 0 {
		return fail(code)
	}
	used := h.quotas.Used(r.account.AppID, path)
	return okWith(fields{
		"quota":                fields{"daily_limit": dailyLimit, "used": used, "remain": max(0, dailyLimit-used)},
		"rate_limit":           fields{"call_count": 5000, "refresh_second": 60},
		"component_rate_limit": fields{"call_count": 5000, "refresh_second": 60},
	})
}

// clearPath does not count towards the monthly limit of clear.
func (h *quotaHandler) clearPath(r *Request) Response {
	path, code := h.path(r)
	if code != 0 {
		return fail(code)
	}
	h.quotas.ClearPath(r.account.AppID, path)
	return ok()
}

// failedRequest reports a request that failed, with its token, as WeChat does
// (openapi/getRidInfo). It knows only requests that the history still has.
func (h *quotaHandler) failedRequest(r *Request) Response {
	failed, known := h.findFailed(r.Field("rid"))
	switch {
	case !known:
		return fail(76001)
	case failed.AppID != r.account.AppID:
		return fail(76002)
	}
	return okWith(fields{"request": fields{
		"invoke_time": failed.Time.Unix(), "cost_in_ms": 1, "request_url": failed.Query,
		"request_body": string(failed.Body), "response_body": string(failed.Response), "client_ip": "127.0.0.1",
	}})
}

// addresses returns the IP addresses that the sandbox pushes from and listens
// on.
func (h *quotaHandler) addresses(*Request) Response {
	return reply(fields{"ip_list": []string{"127.0.0.1"}})
}
