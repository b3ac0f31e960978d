package metrics

import (
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
)

// other is the label for every value that is not on its list.
const other = "other"

// credential is an index into arrays of resolved counters. Finding a counter by
// its labels would cost more than counting.
type credential uint8

const (
	component credential = iota
	authorizer
	app
	none
	otherCredential // labeled "other"
	numCredentials
)

// credentialNames are the labels of credentials.
var credentialNames = [numCredentials]string{"component", "authorizer", "app", "none", other}

// callCredentials are those that a request can be forwarded with, none
// included.
var callCredentials = []credential{component, authorizer, app, none}

// tokenCredentials are those with a token. Hits, renewals and retries start at
// zero for these only.
var tokenCredentials = []credential{component, authorizer, app}

// String returns the label of c.
func (c credential) String() string { return credentialNames[c] }

// byCredential holds a series for each credential, resolved when it is first
// needed. Goroutines that do so concurrently get the same one. A new process
// shows no "other", which only occurs if two packages disagree about a name.
type byCredential[series any] struct {
	resolve func(word string) series
	known   [numCredentials]atomic.Pointer[series]
}

// of returns the series of c.
func (b *byCredential[series]) of(c credential) series {
	if s := b.known[c].Load(); s != nil {
		return *s
	}
	s := b.resolve(c.String())
	b.known[c].Store(&s)
	return s
}

// credentialLabel returns the credential with a name, or otherCredential.
func credentialLabel(word string) credential {
	switch word {
	case "component":
		return component
	case "authorizer":
		return authorizer
	case "app":
		return app
	case "none":
		return none
	}
	return otherCredential
}

// Values of labels.
var (
	refreshResults = []string{"ok", "refused", "unreachable", "store"}

	// ownEndpoints are the endpoints that wxproxy calls for itself, by the last
	// segment of their paths. "send" is that of customer service messages, and
	// "ping" a request that only finds out whether WeChat responds.
	ownEndpoints = []string{
		"api_component_token", "api_authorizer_token", "api_query_auth", "api_create_preauthcode",
		"api_get_authorizer_info", "api_get_authorizer_list", "api_start_push_ticket",
		"stable_token", "send", "ping",
	}
	ownCallResults = []string{"ok", "refused", "unreachable", "paused", "busy"}

	retryResults = []string{"ok", "refused_again", "no_token", "unreachable"}

	// componentOnly is the errcode "component_access_token expired". It occurs
	// with the component's token only.
	componentOnly = 42006

	// retryErrcodes are the errcodes that reject a token.
	retryErrcodes = []int{40001, 40014, 42001, componentOnly}

	// commonEvents start at zero. "message" is every push on an account's own
	// address. "other" is a push that was rejected before its event was known,
	// or an event that WeChat has added since.
	commonEvents = []string{
		"component_verify_ticket", "authorized", "updateauthorized", "unauthorized",
		"notify_third_fasteregister", "message", other,
	}

	// knownEvents are also the other InfoTypes of the pages below
	// doc/oplatform/openApi. Most platforms never receive one.
	knownEvents = append([]string{
		"notify_third_fastregisterbetaapp", "notify_third_fastverifybetaapp",
		"notify_icpfiling_verify_result", "notify_apply_icpfiling_result",
		"notify_3rd_wxa_auth", "notify_3rd_wxa_wxverify", "notify_3rd_wxa_auth_and_icp",
		"order_path_apply_result_notify", "order_path_audit_result_notify",
	}, commonEvents...)

	// eventResults are the results of a push. WeChat receives an error for all
	// but the first five and bad_reply.
	eventResults = []string{
		"ok", "stale", "ignored", "replayed", "unclaimed",
		"wrong_time", "wrong_account", "bad_signature", "undecryptable",
		"wrong_appid", "bad_message", "too_large", "wrong_address",
		"store", "queue_full", "undelivered", "bad_reply",
	}

	// listeners are those on which a key is needed.
	listeners = []string{"proxy", "admin"}

	// pageNames are the pages on which merchants authorize, and pageResults
	// what they said.
	pageNames   = []string{"authorize", "authorized"}
	pageResults = []string{"ok", "robot", "invalid", "limited", "rejected", "failed"}

	// knownErrcodes are those of WeChat's table of return codes (全局返回码)
	// that concern tokens, authorization, limits and the form of requests. The
	// business codes, more than a thousand, are "other".
	knownErrcodes = []int{
		-1, 40001, 40002, 40013, 40014, 40029, 40030, 40033, 40066, 40090, 40091, 40094,
		40125, 40163, 40164, 40221, 40222, 40234, 41001, 41004, 41008, 41018, 41019, 41020,
		41021, 42001, 42002, 42003, 42004, 42005, 42006, 42007, 42008, 42009, 43001, 43002,
		43003, 43007, 44002, 45002, 45008, 45009, 45011, 45035, 47001, 47002, 48001, 48004,
		48006, 49001, 50001, 50002, 50004, 61000, 61001, 61002, 61003, 61004, 61005, 61006,
		61007, 61009, 61010, 61011, 61012, 61013, 61014, 61015, 61016, 61017, 61018, 61019,
		61020, 61021, 61022, 61023, 61024, 61025, 61026, 61027, 61028, 61029, 61030, 76001,
		76002, 76003, 76022, 89501, 89503, 89506, 89507, 9402202,
	}
)

// oneOf returns word if it is on the list, else "other".
func oneOf(list []string, word string) string {
	if slices.Contains(list, word) {
		return word
	}
	return other
}

// errcodeLabel returns n in decimal if it is on the list, else "other".
func errcodeLabel(list []int, n int) string {
	if slices.Contains(list, n) {
		return strconv.Itoa(n)
	}
	return other
}

// label returns text as a valid label value. Prometheus panics on invalid
// UTF-8.
func label(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
