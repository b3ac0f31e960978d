package callback

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"wxproxy/wechat"
)

// maxServiceReply is the maximum size of a service's response in bytes. WeChat
// accepts a few thousand, so this only bounds the memory.
const maxServiceReply = 1 << 20

// Errors of a service that accepted the push, but whose reply cannot be passed
// on.
var (
	errReplyTooLong = errors.New("reply of the service over 1 MiB")
	errReplyEncoded = errors.New("reply of the service has a Content-Encoding")
	errReplyNoXML   = errors.New("reply of the service neither empty, nor success, " +
		"nor well-formed XML with the root <xml> (or, to a push in JSON, a JSON object)")
	errReplySealed = errors.New("reply of the service is encrypted already: " +
		`use mode = "raw", or the plain mode of its SDK`)
)

// isBadReply reports whether the service accepted the push, although its reply
// cannot be passed on.
func isBadReply(err error) bool {
	return errors.Is(err, errReplyTooLong) || errors.Is(err, errReplyEncoded) ||
		errors.Is(err, errReplyNoXML) || errors.Is(err, errReplySealed)
}

// readServiceResponse reads the body of a service's response and closes it.
func readServiceResponse(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxServiceReply+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the service's response: %w", sanitizeError(err))
	case len(body) > maxServiceReply:
		return nil, errReplyTooLong
	// net/http has undone the one encoding that it asked for.
	case len(body) > 0 && !isIdentity(resp.Header.Get("Content-Encoding")):
		return nil, errReplyEncoded
	}
	return body, nil
}

// isIdentity reports whether a Content-Encoding leaves a body as it is.
func isIdentity(encoding string) bool {
	return encoding == "" || strings.EqualFold(encoding, "identity")
}

// parseServiceReply returns the passive reply in the body of a service's
// response, or nil if the body says that there is none. mayBeJSON: the push was
// JSON. Some replies are XML all the same (transfer_customer_service).
func parseServiceReply(body []byte, mayBeJSON bool) ([]byte, error) {
	const byteOrderMark = "\xef\xbb\xbf"
	body = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(body), []byte(byteOrderMark)))
	// Some frameworks send every string as JSON, in quotes.
	word := strings.ToLower(string(body[:min(len(body), len(success)+2)]))
	if len(body) == 0 || len(body) == len(word) && strings.Trim(word, `"`) == success {
		return nil, nil
	}
	err := wechat.ParseReply(body)
	switch {
	case errors.Is(err, wechat.ErrSealedReply), err != nil && isSealedJSON(body):
		return nil, errReplySealed
	case err != nil && mayBeJSON && wechat.IsJSON(body) && json.Valid(body) && utf8.Valid(body):
		return body, nil
	case err != nil:
		return nil, errReplyNoXML
	}
	return body, nil
}

// isSealedJSON reports whether body is a reply in JSON that is encrypted
// already.
func isSealedJSON(body []byte) bool {
	var reply struct{ Encrypt json.RawMessage }
	return body[0] == '{' && json.Unmarshal(body, &reply) == nil && reply.Encrypt != nil
}
