package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/proxy/admission"
	"wxproxy/proxy/transport"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// All errors that callers can receive from wxproxy itself are in this file.
// docs/errors.md explains each of them, and a test compares the two.

// Errors of requests that are wrong in themselves.
var (
	errMalformedRequest = &apiError{
		status: http.StatusBadRequest, msg: "malformed HTTP request",
		hint: "check the client",
	}
	errHeader = &apiError{
		status: http.StatusBadRequest, msg: "header contains control characters",
		hint: "send plain text in headers",
	}
	errPath = &apiError{
		status: http.StatusBadRequest, msg: "path cannot be forwarded unchanged",
		hint: "send no dot segments, empty segments, backslashes, control characters or " +
			"semicolons, no escaped % / \\ or dot, and beyond ASCII only letters without case in UTF-8",
	}
	errQuery = &apiError{
		status: http.StatusBadRequest, msg: "query contains spaces, control characters or #",
		hint: "percent-encode them",
	}
	errHeadTooLarge = &apiError{
		status: http.StatusRequestHeaderFieldsTooLarge, msg: "request line and headers exceed 16 KiB",
		hint: "send less",
	}
	errRequestTimeout = &apiError{
		status: http.StatusRequestTimeout, msg: "request not received in time",
		hint: "check the network between the client and wxproxy",
	}
	errBodyTooLarge = &apiError{
		status: http.StatusRequestEntityTooLarge, msg: "request body exceeds the limit",
		hint: "send less, or raise [proxy] max_request_body",
	}
	errFormTooLarge = &apiError{
		status: http.StatusRequestEntityTooLarge, msg: "request body too large for a token request",
		hint: "send the appid and the key, as WeChat's documentation says",
	}
	errConnect = &apiError{
		status: http.StatusMethodNotAllowed,
		msg:    "CONNECT is not supported, since wxproxy has to inject the token into the request",
		hint: "use http://api.weixin.qq.com/… through this proxy (WeChat is called over " +
			"TLS), or make this address the base URL",
	}
	errForeignHost = &apiError{
		status: http.StatusForbidden, msg: "only requests to WeChat are forwarded",
		hint: "the host must be api.weixin.qq.com or one of its regional names",
	}
	errBrowser = &apiError{
		status: http.StatusForbidden, msg: "requests from web browsers are not accepted",
		hint: "this listener is for servers; clients that send Sec-Fetch-Mode, such as fetch " +
			"in Node.js, need the key of a [[caller]] block",
	}
	errHost = &apiError{
		status: http.StatusForbidden, msg: "no valid host name, and authentication is disabled",
		hint: "send the header Host with localhost, an IP address, or a name in [proxy] hosts, " +
			"without a dot at the end",
	}
)

// hostDenied is the error of a request under a name that a foreign DNS server
// may control.
func hostDenied(name string) *apiError {
	name = sanitize(name)
	return newAPIError(http.StatusForbidden,
		fmt.Sprintf("if callers use this name, write hosts = [%q] in [proxy]; or add [[caller]] "+
			"blocks, since with keys every name is accepted", name),
		"host name is not accepted while authentication is disabled")
}

// Errors of routing: which account a request is for, and which token it needs.
var (
	errNoAccount = &apiError{
		status: http.StatusBadRequest, msg: "no account given",
		hint: "put the appid before the path (/wx…/cgi-bin/…), send the header X-WX-APPID, " +
			"or set [proxy] default_appid",
	}
	errAccountHeader = &apiError{
		status: http.StatusBadRequest, msg: "X-WX-APPID is not an appid",
		hint: "an appid is wx and 16 lower-case letters or digits",
	}
	errAmbiguousAction = &apiError{
		status: http.StatusBadRequest, msg: "parameter action can be read in two ways",
		hint: "send it once, with & between parameters: it decides which token the request needs",
	}
	errLoginQuery = &apiError{
		status: http.StatusBadRequest, msg: "query of a login can be read in two ways",
		hint: "send appid and component_appid once, in lower case, with & between parameters",
	}
	errLoginAppID = &apiError{
		status: http.StatusBadRequest, msg: "parameter appid is not an appid",
		hint: "an appid is wx and 16 lower-case letters or digits",
	}
	errLoginComponent = &apiError{
		status: http.StatusBadRequest, msg: "parameter component_appid names another component",
		hint: "leave it out, or compare it with [component] appid",
	}
	errLoginBody = &apiError{
		status: http.StatusBadRequest, msg: "requests to /sns/ take no body",
		hint: "send all parameters in the query",
	}
	errNoComponent = &apiError{
		status: http.StatusBadRequest,
		msg:    "request needs the component's token, but no component is configured",
		hint:   "fill in [component]",
	}
	errComponentAccount = &apiError{
		status: http.StatusBadRequest,
		msg:    "request needs the token of an account, but the appid is the component's",
		hint:   "name the account that the request is for",
	}
)

// accountConflict is the error of a request in which a and b name different
// accounts.
func accountConflict(a, b string) *apiError {
	return newAPIError(http.StatusBadRequest, "name the account once",
		"%s and %s name different accounts", a, b)
}

// pathRefused is the error of an endpoint that is never forwarded.
func pathRefused(e *wechat.Endpoint) *apiError {
	reason := e.Why
	if reason == "" {
		reason = "a [[route]] refuses it"
	}
	return newAPIError(http.StatusForbidden, "callers do not need it",
		"path is not forwarded: %s", reason)
}

// Errors of authentication.
var (
	errNoKey = &apiError{
		status: http.StatusUnauthorized, msg: "no API key",
		hint: "send the caller's key: Authorization: Bearer KEY, X-Wxproxy-Key: KEY, or as " +
			"the password of a proxy; SDKs: in place of the app secret",
	}
	errUnknownKey = &apiError{
		status: http.StatusUnauthorized, msg: "unknown API key",
		hint: "compare it with the [[caller]] blocks: key_sha256 is the SHA-256 of a key; do " +
			"not send Authorization headers that are meant for other servers",
	}
	errKeyConflict = &apiError{
		status: http.StatusUnauthorized, msg: "keys of different callers",
		hint: "send one key",
	}

	// These are WeChat's own errors, so that SDKs fetch a new token.
	errStandInExpired = &apiError{
		status: http.StatusOK, errcode: wechat.CodeTokenExpired,
		msg: "access_token expired hint: [wxproxy: stand-in expired, fetch a new one]",
	}
	errStandInInvalid = &apiError{
		status: http.StatusOK, errcode: wechat.CodeInvalidCredential,
		msg: "invalid credential, access_token is invalid or not latest hint: [wxproxy: not " +
			"a stand-in of a configured caller, fetch a new one]",
	}
	// This one says what WeChat would say to the account's real token.
	errStandInKind = &apiError{
		status: http.StatusOK, errcode: wechat.CodeComponentTokenNeeded,
		msg: "must use component token for component api hint: [wxproxy: the stand-in is " +
			"an account's, use the component's]",
	}
)

// tooManyWrongKeys is the error of a wrong key from an address that has sent
// others. wait is the time until another one gets the error that says so.
func tooManyWrongKeys(wait time.Duration) *apiError {
	e := newAPIError(http.StatusTooManyRequests,
		"the right key is accepted at once; compare yours with the [[caller]] blocks",
		"too many wrong keys from this address")
	e.retryAfter = wait
	return e
}

// Errors of authorization: what the [[caller]] block of the caller allows.

func methodDenied(c *caller, method []byte) *apiError {
	return newAPIError(http.StatusForbidden, "the methods are set in its [[caller]] block",
		"caller %s is not allowed to use method %s", c.name, sanitize(method))
}

func pathDenied(c *caller) *apiError {
	return newAPIError(http.StatusForbidden, "the paths are set in its [[caller]] block",
		"caller %s is not allowed to call this path", c.name)
}

func accountDenied(c *caller, appid []byte) *apiError {
	return newAPIError(http.StatusForbidden, "the appids are set in its [[caller]] block",
		"caller %s is not allowed to call for %s", c.name, sanitize(appid))
}

// ownAccountDenied is the error of a request for a stand-in of an own account
// that was made with the component's stand-in.
func ownAccountDenied(appid []byte) *apiError {
	return newAPIError(http.StatusForbidden, "use the caller's key",
		"the component's stand-in is no right to the own account %s", sanitize(appid))
}

func rateLimited(c *caller, wait time.Duration) *apiError {
	e := newAPIError(http.StatusTooManyRequests,
		"retry after the time in Retry-After; the rate is set in its [[caller]] block",
		"rate limit of caller %s exceeded", c.name)
	e.retryAfter = wait
	return e
}

// Errors of requests for stand-ins. Those with WeChat's codes say what WeChat
// would say.
var (
	errInvalidAppID = &apiError{
		status: http.StatusOK, errcode: wechat.CodeInvalidAppID,
		msg: "invalid appid hint: [wxproxy: not an account that is known here]",
	}
	errInvalidSecret = &apiError{
		status: http.StatusOK, errcode: wechat.CodeInvalidSecret,
		msg: "invalid appsecret hint: [wxproxy: the secret must be the caller's key]",
	}
	errNoSecret = &apiError{
		status: http.StatusOK, errcode: wechat.CodeInvalidSecret,
		msg: "appsecret missing hint: [wxproxy: the secret must be the caller's key]",
	}
	errNoCode = &apiError{
		status: http.StatusOK, errcode: wechat.CodeCodeInvalid,
		msg: "code is invalid hint: [wxproxy: no authorization_code in the body]",
	}
	errNoExchange = &apiError{
		status: http.StatusServiceUnavailable, msg: "authorization codes cannot be exchanged here",
		hint:       "let the merchant's browser bring the code to the callback listener",
		retryAfter: time.Minute,
	}

	// SDKs take a response with status 200 to api_authorizer_token for success
	// and forget their refresh token for good. These have status 503 therefore.
	errComponentTokenInvalid = componentTokenError("component_access_token is an invalid or expired stand-in")
	errComponentTokenKind    = componentTokenError("the token is the stand-in of an account, not of the component")
	errComponentTokenForeign = componentTokenError("component_access_token was not issued here")
	errAuthorizerComponent   = authorizerError("fill in [component]", "no component is configured")
	errAuthorizerOther       = authorizerError("compare it with [component] appid",
		"component_appid is not this component's")
	errAuthorizerAppID = authorizerError("name the account that authorized the component",
		"authorizer_appid is not an account")
)

func componentTokenError(msg string) *apiError {
	return authorizerError("fetch a new component_access_token", msg)
}

func authorizerError(hint, msg string) *apiError {
	return &apiError{status: http.StatusServiceUnavailable, msg: msg, hint: hint, retryAfter: time.Minute}
}

// authorizerUnavailable turns the error of an api_authorizer_token request into
// one with status 503, for the same reason. 403 and 429 are no danger.
func authorizerUnavailable(e *apiError) *apiError {
	if e.status == http.StatusForbidden || e.status == http.StatusTooManyRequests {
		return e
	}
	return &apiError{
		status: http.StatusServiceUnavailable, msg: e.msg, hint: e.hint,
		retryAfter: max(e.retryAfter, time.Second),
	}
}

// accountKept is the error of a caller whose code was exchanged, but which has
// no permission for the account that authorized.
func accountKept(denied *apiError) *apiError {
	return newAPIError(denied.status, "the account is authorized, and other callers can call for it",
		"%s", denied.msg)
}

// Errors of wxproxy's own endpoints.
var (
	errNoOwnEndpoint = &apiError{
		status: http.StatusNotFound, msg: "wxproxy has no such endpoint",
		hint: "paths below /.well-known/wxproxy are not forwarded; there is " + pathAuthorization,
	}
	errOwnMethod = &apiError{
		status: http.StatusMethodNotAllowed, msg: "this endpoint only takes GET",
		hint: "send the parameters in the query", allow: http.MethodGet,
	}
	errTicket = &apiError{
		status: http.StatusBadRequest, msg: "parameter ticket is missing or was not issued here",
		hint: "send the ticket that return_to has received, once and unchanged",
	}
	errTicketAccount = &apiError{
		status: http.StatusBadRequest, msg: "ticket is for another account than the request",
		hint: "leave the account out: the response names it",
	}
	errTicketExpired = &apiError{
		status: http.StatusGone, msg: "ticket expired",
		hint: "redeem it within ten minutes; the merchant has to authorize again",
	}
	errTicketUsed = &apiError{
		status: http.StatusGone, msg: "ticket was used",
		hint: "redeem it once; do not trust a request that brings a used one",
	}
	errTicketStore = &apiError{
		status: http.StatusServiceUnavailable, retryAfter: time.Second,
		msg:  "ticket could not be redeemed, the store does not respond",
		hint: "retry; if it was used after all, the merchant has to authorize again",
	}
)

// Errors of load and of wxproxy itself.
var (
	errLimit = &apiError{
		status: http.StatusServiceUnavailable, retryAfter: time.Second,
		msg: "concurrency limit reached",
		hint: "WeChat is slow, or this wxproxy is overloaded: retry, start more replicas, or " +
			"raise the limit of open files",
	}
	errAccountLimit = &apiError{
		status: http.StatusServiceUnavailable, retryAfter: time.Second,
		msg:  "concurrency limit of this account reached",
		hint: "WeChat is slow for it, and other accounts need capacity, too: retry later",
	}
	errBodyBudget = &apiError{
		status: http.StatusServiceUnavailable, retryAfter: time.Second,
		msg:  "no memory left for request bodies",
		hint: "retry, send fewer large uploads at a time, or start more replicas",
	}
	errFormBudget = &apiError{
		status: http.StatusServiceUnavailable, retryAfter: time.Second,
		msg:  "no memory left for request bodies without a key",
		hint: "retry, or send the key in a header: the request has the memory of its caller then",
	}
	errResponseBudget = &apiError{
		status: http.StatusServiceUnavailable, retryAfter: time.Second,
		msg:  "no memory left to search the response",
		hint: "the request may have been executed; ask for less at a time, or fewer at a time",
	}
	errTooManyConns = &apiError{
		status: http.StatusServiceUnavailable, retryAfter: time.Second,
		msg:  "connection limit reached",
		hint: "reuse connections, or start more replicas",
	}
	// Upgrade is never forwarded, and the connection could not be used further.
	errSwitchedProtocols = &apiError{
		status: http.StatusBadGateway, msg: "WeChat switched protocols, which was not requested",
		hint: "check [proxy] upstream",
	}
	errStopping = &apiError{
		status: http.StatusServiceUnavailable, msg: "wxproxy is stopping", retryAfter: time.Second,
		hint: "retry: another replica answers",
	}
	errInternal = &apiError{
		status: http.StatusInternalServerError, msg: "internal error",
		hint: "report it with what the log says about this request id",
	}
)

// overloadErrors are errors that can occur thousands of times a second.
var overloadErrors = [...]*apiError{errLimit, errAccountLimit, errBodyBudget, errFormBudget, errResponseBudget}

// responseWithheld is the error of a response in which credentials could not be
// searched for. The reason is an error of [transport.ReadWhole].
func responseWithheld(reason error) *apiError {
	switch {
	case errors.Is(reason, transport.ErrTimeout):
		return errUpstreamTimeout
	case errors.Is(reason, transport.ErrResponseBudget):
		return errResponseBudget
	}
	return newAPIError(http.StatusBadGateway, "ask for less at a time, or without Range",
		"response withheld, it cannot be searched for credentials: %s", reason)
}

// errUpstreamTimeout is the error of a request for which WeChat took too long.
var errUpstreamTimeout = &apiError{
	status: http.StatusGatewayTimeout, msg: "WeChat took too long",
	hint: "the request may have been executed; [proxy] timeout sets the limit",
}

// toAPIError turns an error of tokens, admission or transport into the response
// to the caller. It is the only place where their errors become statuses. The
// appid is the one whose token or slot was wanted.
func toAPIError(err error, appid string, now time.Time) *apiError {
	var e *apiError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, admission.ErrLimit):
		return errLimit
	case errors.Is(err, admission.ErrKeyLimit):
		return errAccountLimit
	case errors.Is(err, tokens.ErrRevoked):
		return &apiError{
			status: http.StatusGone, code: "revoked", hint: "the merchant has to authorize again",
			msg: fmt.Sprintf("account %s has revoked its authorization", appid),
		}
	case errors.Is(err, tokens.ErrForgotten):
		return &apiError{
			status: http.StatusGone, code: "forgotten",
			msg: fmt.Sprintf("account %s was forgotten by an operator", appid),
			hint: "the merchant has to authorize again, or an operator runs " +
				"wxproxy accounts refresh",
		}
	case errors.Is(err, tokens.ErrUnavailable):
		e = newAPIError(http.StatusServiceUnavailable, "retry after the time in Retry-After",
			"no token available for %s: %s", appid, err)
		e.retryAfter = tokens.RetryAfter(err, now)
		return e
	case errors.Is(err, tokens.ErrUnknownAccount):
		return newAPIError(http.StatusNotFound, "check the appid; an account is known once it has authorized",
			"account %s has not authorized this component", appid)
	case errors.Is(err, tokens.ErrClosed):
		return errStopping
	case errors.Is(err, transport.ErrTimeout):
		return errUpstreamTimeout
	case errors.Is(err, transport.ErrUnreachable):
		return newAPIError(http.StatusBadGateway, "the request was not sent and can be repeated",
			"WeChat could not be reached: %s", err)
	case errors.Is(err, transport.ErrBroken):
		return newAPIError(http.StatusBadGateway, "the request may have been executed",
			"exchange with WeChat failed: %s", err)
	case errors.Is(err, context.DeadlineExceeded):
		e = newAPIError(http.StatusServiceUnavailable, "retry", "no token in time for %s", appid)
		e.retryAfter = time.Second
		return e
	}
	return errInternal
}

// requestError turns an error of reading a request into the response to the
// caller.
func requestError(err error) *apiError {
	var timeout net.Error
	switch {
	case errors.Is(err, transport.ErrBodyBudget):
		return errBodyBudget
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return errBodyTooLarge
	case errors.As(err, new(*fasthttp.ErrSmallBuffer)):
		return errHeadTooLarge
	case errors.As(err, &timeout) && timeout.Timeout():
		return errRequestTimeout
	}
	return errMalformedRequest
}

// exchangeError turns the error of an authorization code's exchange into the
// response to the caller. WeChat's own errors are passed on, except those about
// the component's token: SDKs must not take them for their own.
func exchangeError(err error, now time.Time) *apiError {
	var said *wechat.Error
	switch {
	case errors.As(err, &said) && !wechat.TokenRefused(said.Code, true):
		return &apiError{status: http.StatusOK, errcode: said.Code, msg: said.Msg}
	case said != nil:
		return newAPIError(http.StatusServiceUnavailable, "retry; the code was not used",
			"WeChat rejected the component's token")
	case errors.Is(err, wechat.ErrUnreachable) && !errors.Is(err, tokens.ErrUnavailable):
		return newAPIError(http.StatusBadGateway, "retry; the code may have been used",
			"code exchange failed: %s", err)
	}
	return toAPIError(err, "the component", now)
}
