package callback

import (
	"slices"

	"wxproxy/wechat"
)

// The InfoTypes that something is done about.
const (
	infoTicket           = "component_verify_ticket"
	infoAuthorized       = "authorized"
	infoUpdateAuthorized = "updateauthorized"
	infoUnauthorized     = "unauthorized"
)

// other is the event of a push that was refused before it could be read, and of InfoTypes
// that are on no list: a label of a metric must not be what a push says.
const other = "other"

// eventMessage is everything on an account's own address, what is refused there included.
const eventMessage = "message"

// Events are the words for what a push tells: the InfoTypes of WeChat's documentation
// (doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop and the pages about registration, filing and
// verification below doc/oplatform/openApi), "message" for those of accounts, and "other". Not to be changed.
var Events = []string{
	infoTicket, infoAuthorized, infoUpdateAuthorized, infoUnauthorized, wechat.InfoFastRegister,
	"notify_third_fastregisterbetaapp", "notify_third_fastverifybetaapp",
	"notify_icpfiling_verify_result", "notify_apply_icpfiling_result",
	"notify_3rd_wxa_auth", "notify_3rd_wxa_wxverify",
	"order_path_apply_result_notify", "order_path_audit_result_notify",
	eventMessage, other,
}

// What became of a push.
const (
	resultOK            = "ok"
	resultStale         = "stale"         // older than what is known; answered success
	resultIgnored       = "ignored"       // an InfoType that nothing is done about, a message that no rule fits; answered success
	resultReplayed      = "replayed"      // handled already
	resultBadSignature  = "bad_signature" // another message token, or not from WeChat
	resultUndecryptable = "undecryptable" // another EncodingAESKey
	resultWrongAppID    = "wrong_appid"   // another component's
	resultBadMessage    = "bad_message"   // not a push as WeChat makes them, or broken off
	resultTooLarge      = "too_large"
	resultStore         = "store"       // could not be kept; WeChat is told to push it again
	resultUndelivered   = "undelivered" // no service took it: a message, which WeChat is told to push again, or an event, which is dropped
	resultBadReply      = "bad_reply"   // a service took it, and its answer cannot be passed on; answered success
)

// Results are the words for what became of a push. Not to be changed.
var Results = []string{
	resultOK, resultStale, resultIgnored, resultReplayed, resultBadSignature,
	resultUndecryptable, resultWrongAppID, resultBadMessage, resultTooLarge, resultStore,
	resultUndelivered, resultBadReply,
}

// eventOf is the word for an InfoType.
func eventOf(infoType string) string {
	if slices.Contains(Events, infoType) {
		return infoType
	}
	return other
}

// Characters of a text from outside that are logged.
const (
	wordLimit = 64
	lineLimit = 200
)
