// Package sandbox pretends to be WeChat: the part of api.weixin.qq.com that a third-party platform
// (第三方平台) talks to, its pushes, and a door of its own through which a test or a developer asks for
// what the real one does at a time of its choosing: expire a token, renew it behind one's back, break off.
//
// It is stricter than the real one wherever being strict finds mistakes: a chunked request body is
// refused, two credentials in one call are, a token of the wrong kind gets exactly the errcode that the
// documentation names, and whatever a proxy should have taken off a request is noted ([WeChat.Violations]).
// It has no caprices: nothing goes wrong at random, everything that does was asked for ([Fault]).
//
// A [WeChat] is a http.Handler. Behind httptest.NewServer it serves a test; behind a http.Server it
// serves `wxproxy sandbox` and `wxproxy demo`. Set the server's IdleTimeout to [IdleTimeout]. There are two
// doors on the one listener: WeChat's paths, and /sandbox/ (JSON, and a page for people). Go tests need not
// go through the second: what it does are methods, and some more things are. Time can be moved by hand
// ([Config].Now).
//
// # What it does not do
//
// It knows 150 paths of WeChat's fifteen hundred; every other answers 40066, as an unknown path
// does at WeChat. About seventy of them answer plausibly and remember what they were told; the others say
// {"errcode":0,"errmsg":"ok"} to the right credential. Make a [Fault] with a Body where a test needs
// another answer.
//
// It checks no IP allow-list (61004), no permission sets (48001, 61007), no signatures of WeChat's API
// security mode, and no limits of frequency but those of clear_quota and of stable_token's forced mode; usage
// is counted, so that openapi/quota/get answers something true, but never ends. Its authorization pages ask nobody to
// scan anything: one click is the consent, as [WeChat.Authorize] is without a browser. Where a browser must come from
// they see by the Referer; the page for phones takes one without, because its link is scanned, too. It does not repeat a push that failed. It sends
// nobody's messages, looks at no picture, and audits every mini program kindly and at once. It closes idle
// connections only if its server does. It remembers everything in memory, and only within bounds: the last
// 10,000 calls and 1,000 violations, 200,000 secrets, 64 MiB of media.
//
// Where the real behavior is not known, it chose: a token of an account that has withdrawn its
// authorization gets 61003; an access token that was replaced lives on for [Config].Grace, whether it is the
// component's or an authorizer's; consenting again kills the account's tokens at once, before the new code is
// exchanged; a second exchange of the same consent gives the same refresh token; a consent on a page gives one code, which
// is pushed and goes back with the browser.
//
// Its secrets are worth nothing, and it treats them as if they were worth something: its page and its JSON show the first
// eight characters.
package sandbox
