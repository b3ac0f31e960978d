package wechat

import (
	"bytes"
	"math"
	"slices"
)

// The errcodes that wxproxy acts on (全局返回码). All others are only passed on.
const (
	CodeBusy                  = -1    // try again later
	CodeInvalidCredential     = 40001 // expired, superseded, of the wrong kind, or a wrong app secret
	CodeInvalidAppID          = 40013 // or not of the kind that the endpoint is for
	CodeInvalidToken          = 40014 // not a token
	CodeInvalidRefreshToken   = 40030
	CodeInvalidTicket         = 40091 // of the component, in ComponentToken
	CodeInvalidSecret         = 40125 // the app secret is wrong, or was reset
	CodeTokenExpired          = 42001
	CodeRefreshTokenExpired   = 42002
	CodeComponentTokenExpired = 42006
	CodePasswordChanged       = 42007 // both tokens are invalid
	CodeQuota                 = 45009 // reach max api daily quota limit
	CodeNotAuthorized         = 61003 // component is not authorized by this account
	CodeTicketExpired         = 61005
	CodeTicketInvalid         = 61006
	CodeCodeInvalid           = 61009 // authorization code used up
	CodeCodeExpired           = 61010
	CodeComponentTokenNeeded  = 61014 // an account's token on an endpoint of the component
	CodeRefreshTokenInvalid   = 61023
)

// KnownCodes are the codes of WeChat's table of return codes (全局返回码) that
// concern tokens, authorization, limits and the form of requests. Statistics
// count each of them; all others are business codes.
var KnownCodes = []int{
	-1, 40001, 40002, 40013, 40014, 40029, 40030, 40033, 40066, 40090, 40091, 40094, 40125,
	40163, 40164, 40221, 40222, 40234, 41001, 41004, 41008, 41018, 41019, 41020, 41021,
	42001, 42002, 42003, 42004, 42005, 42006, 42007, 42008, 42009, 43001, 43002, 43003,
	43007, 44002, 45002, 45008, 45009, 45011, 45035, 47001, 47002, 48001, 48004, 48006,
	49001, 50001, 50002, 50004, 61000, 61001, 61002, 61003, 61004, 61005, 61006, 61007,
	61009, 61010, 61011, 61012, 61013, 61014, 61015, 61016, 61017, 61018, 61019, 61020,
	61021, 61022, 61023, 61024, 61025, 61026, 61027, 61028, 61029, 61030, 76001, 76002,
	76003, 76022, 89501, 89503, 89506, 89507, 9402202,
}

// TokenRefused reports whether WeChat rejected the token, so that one more try
// with another token can help. component says that it was a component's token.
//
// WeChat checks the token before it executes anything. Repeating the request is
// therefore safe, whatever it does.
func TokenRefused(code int, component bool) bool {
	switch code {
	case CodeInvalidCredential, CodeInvalidToken, CodeTokenExpired:
		return true
	case CodeComponentTokenExpired:
		return component
	}
	return false
}

// AuthorizationInDoubt reports whether code, as the response to a renewal, says
// that the authorization may have ended: the refresh token is invalid, the
// password was changed, or the account has revoked its authorization.
func AuthorizationInDoubt(code int) bool {
	return code == CodeNotAuthorized || code == CodePasswordChanged || RefreshTokenRefused(code)
}

// RefreshTokenRefused reports whether WeChat rejected the refresh token.
func RefreshTokenRefused(code int) bool {
	return slices.Contains([]int{CodeInvalidRefreshToken, CodeRefreshTokenExpired,
		CodeRefreshTokenInvalid}, code)
}

var errcodeName = []byte(`errcode`)

// FindErrCode returns the top-level "errcode" of a JSON object, 0 if it has
// none. An errcode in a nested object or inside a string is data, not the
// result of the call.
//
// It works on responses that encoding/json rejects and on the beginning of
// longer ones: it accepts raw control characters and a number in a string, and
// it stops at the field. It does not allocate, because every response passes
// it.
func FindErrCode(b []byte) int {
	i := skipSpace(b, bom(b))
	// This decides nearly all long responses: pictures, and lists without the
	// word.
	if i >= len(b) || b[i] != '{' || !bytes.Contains(b, errcodeName) {
		return 0
	}
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '{', '[':
			depth++
			i++
		case '}', ']':
			if depth--; depth == 0 {
				return 0
			}
			i++
		case '"':
			end := stringEnd(b, i)
			if end < 0 {
				return 0
			}
			if depth == 1 && bytes.Equal(b[i+1:end], errcodeName) {
				if v := skipSpace(b, end+1); v < len(b) && b[v] == ':' {
					return number(b, skipSpace(b, v+1))
				}
			}
			i = end + 1
		default:
			i++
		}
	}
	return 0
}

// stringEnd returns the index of the quote that closes the string whose opening
// quote is at i, and -1 if there is none.
func stringEnd(b []byte, i int) int {
	for j := i + 1; ; {
		n := bytes.IndexByte(b[j:], '"')
		if n < 0 {
			return -1
		}
		j += n
		escapes := 0
		for k := j - 1; k > i && b[k] == '\\'; k-- {
			escapes++
		}
		if escapes%2 == 0 {
			return j
		}
		j++
	}
}

// number returns the integer at i, quoted or not, and 0 for anything else.
func number(b []byte, i int) int {
	quoted := i < len(b) && b[i] == '"'
	if quoted {
		i = skipSpace(b, i+1)
	}
	negative := i < len(b) && b[i] == '-'
	if negative {
		i++
	}
	n, start := 0, i
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if n > (math.MaxInt32-9)/10 {
			return 0
		}
		n = n*10 + int(b[i]-'0')
	}
	// 40001.5, 4e4 and "40001abc" are not codes. A body that ends after the
	// number is one: the rest was cut off.
	if i == start || i < len(b) && bytes.IndexByte([]byte(".eE"), b[i]) >= 0 {
		return 0
	}
	if quoted {
		if i = skipSpace(b, i); i < len(b) && b[i] != '"' {
			return 0
		}
	}
	if negative {
		return -n
	}
	return n
}

// bom returns the length of a byte order mark at the beginning of b.
func bom(b []byte) int {
	if bytes.HasPrefix(b, []byte("\xef\xbb\xbf")) {
		return 3
	}
	return 0
}

// skipSpace returns the index of the first byte from i on that is not JSON
// white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}
