package callback

import (
	"slices"

	"wxproxy/wechat"
)

// InfoTypes of the authorization events that are stored.
const (
	infoTicket           = "component_verify_ticket"
	infoAuthorized       = "authorized"
	infoUpdateAuthorized = "updateauthorized"
	infoUnauthorized     = "unauthorized"
)

// Event labels that are not InfoTypes.
const (
	// eventMessage labels everything that is sent to an account's own path,
	// rejected pushes included.
	eventMessage = "message"
	// eventOther labels pushes that were rejected before they could be read,
	// and InfoTypes that are not in Events: the text of a push must not become
	// the label of a metric.
	eventOther = "other"
)

// Events lists the values of the event label: the InfoTypes of WeChat's
// documentation (doc/oplatform/Third-party_Platforms/2.0/api/Before_Develop and
// the pages about registration, filing and verification below
// doc/oplatform/openApi), "message" for pushes of accounts, and "other". It
// must not be changed.
var Events = []string{
	infoTicket, infoAuthorized, infoUpdateAuthorized, infoUnauthorized, wechat.InfoFastRegister,
	"notify_third_fastregisterbetaapp", "notify_third_fastverifybetaapp",
	"notify_icpfiling_verify_result", "notify_apply_icpfiling_result",
	"notify_3rd_wxa_auth", "notify_3rd_wxa_wxverify", "notify_3rd_wxa_auth_and_icp",
	"order_path_apply_result_notify", "order_path_audit_result_notify",
	eventMessage, eventOther,
}

// InfoTypes returns the known types of authorization events.
func InfoTypes() []string {
	return slices.DeleteFunc(slices.Clone(Events), func(event string) bool {
		return event == eventMessage || event == eventOther
	})
}

// Result labels: how a push was handled.
const (
	resultOK = "ok"
	// The push is older than what is known; answered with success.
	resultStale = "stale"
	// An InfoType that needs no action, or a message that no rule matches;
	// answered with success.
	resultIgnored = "ignored"
	// The same push was handled before; it gets the same reply, or success.
	resultReplayed = "replayed"
	// The push was handled although the store could not remember it. It is
	// counted with its own result, too.
	resultUnclaimed = "unclaimed"
	// The push was signed too long ago, or ahead of this machine's clock.
	resultWrongTime = "wrong_time"
	// The message was made for another account.
	resultWrongAccount = "wrong_account"
	// The push is not from WeChat, or the message token differs.
	resultBadSignature = "bad_signature"
	// The EncodingAESKey differs.
	resultUndecryptable = "undecryptable"
	// The push is for another component.
	resultWrongAppID = "wrong_appid"
	// The push is not well-formed, or the connection ended early.
	resultBadMessage = "bad_message"
	resultTooLarge   = "too_large"
	// The push was sent to a path that is none of wxproxy's, with another method
	// than POST, or to the path of the other kind of pushes.
	resultWrongAddress = "wrong_address"
	// The push could not be stored; WeChat repeats it.
	resultStore = "store"
	// The queue of a service is full; WeChat repeats the push.
	resultQueueFull = "queue_full"
	// No service accepted the message; WeChat repeats it.
	resultUndelivered = "undelivered"
	// A service accepted the push, but its reply cannot be passed on; answered
	// with success.
	resultBadReply = "bad_reply"
)

// Results lists the values of the result label. It must not be changed.
var Results = []string{
	resultOK, resultStale, resultIgnored, resultReplayed, resultUnclaimed,
	resultWrongTime, resultWrongAccount, resultBadSignature,
	resultUndecryptable, resultWrongAppID, resultBadMessage, resultTooLarge, resultWrongAddress, resultStore,
	resultQueueFull, resultUndelivered, resultBadReply,
}

// eventLabel returns the event label of an InfoType.
func eventLabel(infoType string) string {
	if slices.Contains(Events, infoType) {
		return infoType
	}
	return eventOther
}
