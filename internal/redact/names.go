package redact

// class says what the value behind a name is.
type class uint8

const (
	notCredential   class = iota
	authorizerToken       // authorizer_access_token
	componentToken        // component_access_token
	otherToken            // access_token, with any other prefix
	refreshToken          // with any prefix
	code                  // authorization_code, auth_code
	otherSecret           // component_verify_ticket, appsecret and the like
	owner                 // authorizer_appid: no credential, but whose token is beside it
)

// endings are the ends of names, without "_" and "-" and in lower case. The
// names are those of WeChat's documentation (doc/oplatform/openApi), its pushes
// have them as AuthorizationCode. The first match counts.
//
// pre_auth_code is missing: callers build links with it. session_key and the
// like belong to end users.
var endings = []struct {
	text  string
	class class
	whole bool // the name has no other beginning
}{
	{"authorizeraccesstoken", authorizerToken, false},
	{"componentaccesstoken", componentToken, false},
	{"accesstoken", otherToken, false},
	// \refresh_token can be read as a carriage return and "efresh_token".
	{"efreshtoken", refreshToken, false},
	{"authorizationcode", code, false},
	{"authcode", code, true},
	{"verifyticket", otherSecret, false},
	{"codesecret", notCredential, false}, // of a caller's own cloud environment
	{"secret", otherSecret, false},
	{"authorizerappid", owner, false},
}

// usersName reports whether a name of class c can be that of an end user's
// token: nothing in it says that the token is another one.
func usersName(c class, name []byte) bool {
	return c == otherToken && endsWith(name, "accesstoken", true) ||
		c == refreshToken && endsWith(name, "refreshtoken", true)
}

// classOf returns the class of the value behind a name.
func classOf(name []byte) class {
	if len(name) < len("secret") {
		return notCredential
	}
	// Nearly all words end here.
	switch name[len(name)-1] | 0x20 {
	case 'n', 'e', 't', 'd':
	default:
		return notCredential
	}
	for i := range endings {
		if e := &endings[i]; endsWith(name, e.text, e.whole) {
			return e.class
		}
	}
	return notCredential
}

// endsWith reports whether name, without "_" and "-" and in lower case, ends
// with ending, or is equal to it if whole is set.
func endsWith(name []byte, ending string, whole bool) bool {
	i := len(name) - 1
	for k := len(ending) - 1; k >= 0; k-- {
		for i >= 0 && (name[i] == '_' || name[i] == '-') {
			i--
		}
		if i < 0 || name[i]|0x20 != ending[k] {
			return false
		}
		i--
	}
	return i < 0 || !whole
}
