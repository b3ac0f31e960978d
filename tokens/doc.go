// Package tokens keeps the access tokens of WeChat accounts valid. Its [Broker]
// returns the current token of an account from memory, from the store, or from
// WeChat. It renews each token once for all callers and all replicas: when it
// is due, missing, or rejected by WeChat.
//
// Three rules keep accounts alive. A token is saved before it is used. A
// renewal happens only while the stored token is still the one that has to be
// replaced. And a failed renewal never removes a token that is still valid.
//
// The parts of the package, in the order of a call:
//
//	broker.go          the Broker: what other packages call
//	cache.go           tokens in memory
//	renew.go           load or renew: flights, the lock, the save
//	renew_decision.go  the two pure parts of a renewal: decide and settle
//	fetch.go           what is asked of WeChat for a new token
//	component.go       calls that need the component's token; the lock order
//	ticket.go          the ticket with which the component's token is fetched
//	account.go         the record of an account and its transitions
//	accounts.go        changes of records that evict cached tokens
//	records.go         keys and formats of everything that is stored
//	quarantine.go      damaged records, which count as missing
//
// Others work in the background: early_renewal.go renews before expiry,
// exchange.go and pending_codes.go exchange authorization codes, revalidate.go
// asks WeChat about doubtful accounts, sync.go compares with WeChat's list,
// profile.go reads names, watch.go follows the store, and maintenance.go starts
// what is due. wiring.go gives each of them the functions of others that it
// needs, and never the whole Broker.
package tokens
