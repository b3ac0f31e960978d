package wechat

// maxAuthCode is the maximum length of an authorization code in bytes. Real
// codes have about 100.
const maxAuthCode = 512

// IsAuthCode reports whether s can be an authorization code. WeChat has used
// "queryauthcode@@@" followed by base64url, but documents no alphabet, so
// IsAuthCode accepts all printable ASCII characters except the space.
func IsAuthCode(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return s != "" && len(s) <= maxAuthCode
}
