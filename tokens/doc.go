// Package tokens remembers: the ticket, and for each account the access token, the refresh
// token and what became of its authorization. Its [Broker] gives every caller the token that
// is good now, and renews it once for all of them when it is due, gone or refused.
//
// Three rules keep accounts alive. What WeChat hands out is in the store before anybody
// uses it. A renewal compares: it happens only while the stored token is still the one that
// was found wanting. And it never takes away what is good: a failed one leaves the record as it was.
package tokens
