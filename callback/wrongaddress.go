package callback

import (
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"wxproxy/wechat"
)

// maxLogPath is the maximum length, in characters, of a wrong path in the log.
const maxLogPath = 128

// Hints for the operator that has entered an address at WeChat. They are
// constants, so that nothing of a request gets into them.
const (
	bothAddresses = "authorization events (授权事件接收URL) belong at " + eventsPath +
		", messages and events (消息与事件接收URL) at /$APPID$/events, " +
		"those of an own account at /ITS_APPID/events"
	placeholderHint = "WeChat replaces $APPID$ only in the address for messages and events " +
		"(消息与事件接收URL) of a third-party platform: " + bothAddresses
	methodHint = "WeChat pushes with POST. A GET with echostr is its check of the URL of an own " +
		"account, and is answered if the [[app]] block of the account has a message_token"
	unconfiguredHint = "no component is configured, and no [[app]] block with a message_token " +
		"for this account"
)

// Errors of a push that WeChat has signed, and sent to the address of the other
// kind.
var (
	errMessageAtEvents = errors.New("a message on the address for authorization events: " +
		"the address for messages and events (消息与事件接收URL) is /$APPID$/events")
	errEventAtMessages = errors.New("an authorization event on the address for messages: " +
		"the address for authorization events (授权事件接收URL) is " + eventsPath)
)

// wrongAddress says why a request probably did not come to the path that it was
// meant for.
type wrongAddress struct {
	kind string // one of a few words; lines of one kind are logged within a limit
	hint string
}

// noteWrongAddress logs and counts a request that looks like a push of WeChat
// and that no path serves: without a trace, an operator would wait for pushes
// that never arrive. Requests that do not look like one leave none, because the
// internet is full of them. The request is not verified, so nothing of it but
// its path is logged.
func (h *Handler) noteWrongAddress(r *http.Request, wrong wrongAddress) {
	if !looksPushed(r.URL.RawQuery) {
		return
	}
	h.observe(eventOther, resultWrongAddress)
	suppressed, ok := h.rejections.allow(resultWrongAddress + " " + wrong.kind)
	if !ok {
		return
	}
	attrs := []slog.Attr{
		slog.String("problem", wrong.kind), slog.String("hint", wrong.hint),
		slog.String("method", wechat.Sanitize(r.Method, maxLogWord)),
		slog.String("path", wechat.Sanitize(r.URL.EscapedPath(), maxLogPath)),
		slog.Int("query_bytes", len(r.URL.RawQuery)),
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("not_logged", suppressed))
	}
	h.log.LogAttrs(r.Context(), slog.LevelWarn, "push to a wrong address", attrs...)
}

// looksPushed reports whether a query has the parameters of WeChat's pushes and
// checks.
func looksPushed(raw string) bool {
	if len(raw) > maxQuery {
		return false
	}
	query, _ := url.ParseQuery(raw) // without what is malformed
	return query.Has("timestamp") && query.Has("nonce") &&
		(query.Has("msg_signature") || query.Has("signature"))
}

// rightAddress finds out which path a request to an unknown path was probably
// meant for. It quotes nothing of the path but appids.
func rightAddress(path string) wrongAddress {
	var segments []string
	for s := range strings.SplitSeq(path, "/") {
		if s != "" {
			segments = append(segments, s)
		}
	}
	account := ""
	for _, s := range segments {
		switch {
		case isPlaceholder(s):
			return wrongAddress{"placeholder", placeholderHint}
		case wechat.IsAppID(strings.ToLower(s)):
			account = strings.ToLower(s)
		}
	}
	right := eventsPath
	if account != "" {
		right = "/" + account + "/events"
	}
	joined := "/" + strings.Join(segments, "/")
	switch {
	case joined == right:
		return wrongAddress{"slashes", "the address is " + right + ", without further slashes"}
	case strings.EqualFold(joined, right):
		return wrongAddress{"case", "the address is " + right + ", in lower case"}
	case hasSuffixFold(joined, right):
		return wrongAddress{"prefix", "the address is " + right +
			": remove what stands before it, at WeChat or in the reverse proxy"}
	case account != "":
		return wrongAddress{"path", "the address is " + right}
	}
	return wrongAddress{"path", bothAddresses}
}

// isPlaceholder reports whether a segment of a path is a placeholder that was
// not replaced: $APPID$ as WeChat's pages write it, or what documents write.
// Its percent-encoding may have been encoded once more.
func isPlaceholder(segment string) bool {
	name := strings.Trim(strings.ReplaceAll(segment, "%24", "$"), "$<>{}:[]")
	return strings.EqualFold(name, "appid") || strings.EqualFold(name, "its_appid")
}

// hasSuffixFold reports whether s ends with suffix, in whatever case.
func hasSuffixFold(s, suffix string) bool {
	return len(s) >= len(suffix) && strings.EqualFold(s[len(s)-len(suffix):], suffix)
}

// misdirected returns the outcome of a document that is no event, on the path
// of events, or no message, on that of messages. err says what is wrong with
// it.
func (p verifiedPush) misdirected(err error) outcome {
	if e, isEvent := p.doc.Event(); isEvent == nil && e.InfoType != "" {
		return *failure(http.StatusBadRequest, "", resultWrongAddress, errEventAtMessages)
	}
	if m, isMessage := p.doc.Message(); isMessage == nil && m.MsgType != "" {
		return *failure(http.StatusBadRequest, "", resultWrongAddress, errMessageAtEvents)
	}
	return *failure(http.StatusBadRequest, "", resultBadMessage, err)
}
