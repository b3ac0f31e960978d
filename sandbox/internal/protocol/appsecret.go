package protocol

import (
	"time"

	"wxproxy/sandbox/internal/state"
)

// appSecretHandler serves the tokens of accounts that have a secret of their
// own.
type appSecretHandler struct {
	accounts  *state.Accounts
	expiresIn int // seconds
}

func (h *appSecretHandler) endpoints() endpoints {
	return endpoints{
		"/cgi-bin/token":        {either, noToken, noBody, h.token},
		"/cgi-bin/stable_token": {post, noToken, jsonBody, h.stableToken},
	}
}

// grantType is the only one that these endpoints take.
const grantType = "client_credential"

// token issues a new token with each request, which replaces the one before.
// Clients that share an account should use stable_token for that reason.
func (h *appSecretHandler) token(r *Request) Response {
	if r.Arg("grant_type") != grantType {
		return fail(40002)
	}
	t, code := h.accounts.OwnToken(r.Arg("appid"), r.Arg("secret"), r.Now)
	if code != 0 {
		return fail(code)
	}
	return reply(fields{"access_token": t.Value, "expires_in": h.expiresIn})
}

// stableToken (getStableAccessToken) returns what is left of the token's
// lifetime, because the token may not be new.
func (h *appSecretHandler) stableToken(r *Request) Response {
	in, good := decode[struct {
		GrantType string `json:"grant_type"`
		AppID     string `json:"appid"`
		Secret    string `json:"secret"`
		Force     bool   `json:"force_refresh"`
	}](r)
	switch {
	case !good:
		return fail(47001)
	case in.GrantType != grantType:
		return fail(40002)
	}
	t, code := h.accounts.StableToken(in.AppID, in.Secret, in.Force, r.Now)
	if code != 0 {
		return fail(code)
	}
	left := max(1, int(t.Expires.Sub(r.Now)/time.Second))
	return reply(fields{"access_token": t.Value, "expires_in": left})
}
