package sandbox

import (
	"bytes"
	"net/http"
	"strings"
	"time"

	"wxproxy/sandbox/internal/protocol"
	"wxproxy/sandbox/internal/state"
)

// apiServer serves WeChat's API over HTTP. To the endpoints it adds what a test
// needs: violations, faults, and the history.
type apiServer struct {
	endpoints  *protocol.API
	faults     *faultList
	history    *history
	violations *violationList
	now        func() time.Time
	gzip       bool       // compress for clients that accept it
	observe    func(Call) // nil disables it
}

// ServeHTTP answers one request. The request is recorded before its response is
// written, so that a client that has the response also finds the request in the
// history.
func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, complete := protocol.ReadRequest(r, s.now())
	s.violations.inspect(req, s.endpoints.TakesSecret(req.Path))
	resp, token, fault := s.respond(req, complete)
	resp.Complete(req)

	call := newCall(req, &resp, token, fault)
	s.history.add(call)
	if s.observe != nil {
		s.observe(call)
	}
	compress := s.gzip && resp.IsJSON() && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip")
	writeResponse(w, req, &resp, fault, compress)
}

// respond returns the response to a request, the token that the request carried,
// and the fault that applies to it. It checks first what WeChat's edge checks,
// then the faults; the endpoint comes last. The token is the zero value if it
// is unknown or if the edge refused the request; fault can be nil.
func (s *apiServer) respond(req *protocol.Request, complete bool) (
	resp protocol.Response, token state.Token, fault *Fault,
) {
	if req.LengthMissing() {
		s.violations.add(req, "the body is chunked or has no Content-Length")
		return protocol.LengthRequired(), token, nil
	}
	if !complete {
		return protocol.TooLarge(), token, nil
	}
	token, _ = s.endpoints.Token(req)
	fault = s.faults.take(req.Path, func(appid string) bool {
		return appid == token.AppID || appid == req.Arg("appid") || appid == req.Field("authorizer_appid")
	})
	if fault != nil {
		if resp, replaced := fault.response(); replaced {
			return resp, token, fault
		}
	}
	return s.endpoints.Serve(req), token, fault
}

// newCall returns the record of a request and its response. It copies what it
// keeps of the bodies, or the whole of a large upload would stay in memory.
func newCall(req *protocol.Request, resp *protocol.Response, token state.Token, fault *Fault) Call {
	call := Call{
		Time: req.Now, Method: req.Method, Path: req.Path, RawQuery: req.URL.RawQuery, Host: req.Host,
		Header:     req.Header.Clone(),
		Body:       bytes.Clone(req.Body[:min(len(req.Body), keptBody)]),
		BodySHA256: req.SHA256, Length: int64(len(req.Body)), TransferEncoding: req.TransferEncoding,
		Status: resp.Status, ErrCode: resp.ErrCode, RID: resp.RID,
		Appid: token.AppID, TokenKind: token.Kind,
	}
	if resp.IsJSON() {
		call.Response = bytes.Clone(resp.Body[:min(len(resp.Body), keptResponse)])
	}
	if fault != nil {
		call.Fault = fault.ID
		if fault.Break == BreakBefore {
			call.Status = 0
		}
	}
	return call
}
