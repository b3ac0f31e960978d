package wechat

// IsAppID reports whether s has the form of an appid: "wx" and 16 lower-case
// letters or digits, such as wx0123456789abcdef. It does not allocate.
//
// It says nothing about whether WeChat knows the account. Appids are checked
// before they are used in a path, as a key of the store, or in a log line, so
// that text from a request cannot be mistaken for anything else.
func IsAppID[T ~string | ~[]byte](s T) bool {
	const length = 18
	if len(s) != length || s[0] != 'w' || s[1] != 'x' {
		return false
	}
	for i := 2; i < length; i++ {
		if ch := s[i]; (ch < '0' || ch > '9') && (ch < 'a' || ch > 'z') {
			return false
		}
	}
	return true
}
