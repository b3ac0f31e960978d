package protocol

import (
	"wxproxy/sandbox/internal/random"
	"wxproxy/sandbox/internal/state"
)

// authorizeURL is where a person confirms a registration.
const authorizeURL = "https://open.weixin.qq.com/wxaopen/sandbox"

// registrationHandler serves the registration of mini programs and the
// component-wide domains (doc/oplatform/openApi/…/register-management,
// thirdparty-management).
type registrationHandler struct {
	lists *state.Domains
}

func (h *registrationHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/component/fastregisterweapp":       {post, componentToken, jsonBody, h.registerCompany},
		"/wxa/component/fastregisterpersonalweapp":   {post, componentToken, jsonBody, h.registerPerson},
		"/wxa/component/fastregisterbetaweapp":       {post, componentToken, jsonBody, h.registerBeta},
		"/wxa/component/fastregisterenterpriseweapp": {post, componentToken, jsonBody, h.registerPerson},
		"/cgi-bin/component/modify_wxa_server_domain": {post, componentToken, jsonBody,
			h.domains("wxa_server_domain")},
		"/cgi-bin/component/modify_wxa_jump_domain": {post, componentToken, jsonBody,
			h.domains("wxa_jump_h5_domain")},
		"/cgi-bin/component/get_domain_confirmfile": {post, componentToken, jsonBody, h.confirmFile},
	}
}

// registerCompany accepts every company. A push reports the outcome, which a
// test causes by WeChat.FastRegister.
func (h *registrationHandler) registerCompany(r *Request) Response {
	switch action := r.Arg("action"); {
	case action != "create" && action != "search":
		return fail(47001)
	case r.Field("name") == "" || r.Field("legal_persona_wechat") == "" || r.Field("legal_persona_name") == "":
		return fail(47001)
	}
	return reply(fields{"errcode": 0, "errmsg": "OK"})
}

// registerPerson returns a task that is confirmed as soon as it is asked for.
func (h *registrationHandler) registerPerson(r *Request) Response {
	switch r.Arg("action") {
	case "create":
		return okWith(fields{"taskid": random.Hex(16), "authorize_url": authorizeURL, "status": 0})
	case "query":
		return okWith(fields{"taskid": r.Field("taskid"), "authorize_url": authorizeURL, "status": 1})
	}
	return fail(47001)
}

// registerBeta requires the name and the openid of the person that tries it
// out.
func (h *registrationHandler) registerBeta(r *Request) Response {
	if r.Field("name") == "" || r.Field("openid") == "" {
		return fail(47001)
	}
	return okWith(fields{"unique_id": random.Hex(8), "authorize_url": authorizeURL})
}

// domains serves the component-wide domain list of that kind.
func (h *registrationHandler) domains(kind string) func(*Request) Response {
	return func(r *Request) Response {
		list, code := h.lists.Apply(kind, r.Field("action"), r.Field(kind))
		if code != 0 {
			return fail(code)
		}
		return okWith(fields{"published_" + kind: list, "testing_" + kind: list, "invalid_" + kind: ""})
	}
}

// confirmFile returns a file to put on a web server. Nothing fetches it.
func (h *registrationHandler) confirmFile(*Request) Response {
	return okWith(fields{"file_name": "sandbox.txt", "file_content": "sandbox"})
}
