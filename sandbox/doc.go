// Package sandbox is a fake WeChat for tests: the part of api.weixin.qq.com
// that a third-party platform (第三方平台) uses, WeChat's consent pages, and
// its pushes. A test or a developer decides when a token expires, when another
// client renews it, and when a connection breaks.
//
// A [WeChat] is an [http.Handler]. Serve it with net/http/httptest in a test;
// the commands wxproxy sandbox and wxproxy demo serve it with an [http.Server],
// whose IdleTimeout should be [IdleTimeout]. Its methods authorize accounts,
// push, inject faults ([Fault]) and report what arrived ([WeChat.History],
// [WeChat.Violations]). The control endpoints below /sandbox/ do most of it
// over HTTP, with JSON and a page. [Config].Now replaces the clock.
//
// # What it is stricter in than WeChat
//
// It is strict wherever that finds mistakes. It refuses request bodies without
// a Content-Length and requests with two credentials. A token of the wrong kind
// gets exactly the errcode that the documentation names. Whatever a proxy
// should have removed from a request is recorded as a violation. Nothing goes
// wrong at random: every failure is the consequence of a request or of a
// [Fault].
//
// # What it does not do
//
// It knows 150 of WeChat's fifteen hundred paths; any other gets 40066, as an
// unknown path does at WeChat. About seventy of them return plausible responses
// and remember what was sent. The others return
// {"errcode":0,"errmsg":"ok"} to the right credential. Add a [Fault] with a
// Body where a test needs another response.
//
// It does not check IP allow-lists (61004), permission sets (48001, 61007), or
// signatures of WeChat's API security mode. The only rate limits are those of
// clear_quota and of the forced mode of stable_token. Requests are counted, so
// that openapi/quota/get returns true numbers, but the quota never runs out.
//
// One click on a consent page is the consent; there is nothing to scan. The
// pages check by the Referer that the browser comes from the platform's host.
// The page for phones accepts a request without one, because people scan its
// link or receive it in a message.
//
// It does not repeat a push that failed. It delivers no messages, does not look
// into pictures, and approves every mini program at once. It closes idle
// connections only if its server does.
//
// Everything is in memory, within bounds: the last 10,000 requests, 1,000
// violations, 200,000 secrets, 100,000 tokens and accounts, 64 MiB of media.
//
// # Where WeChat's behavior is not known
//
// In these cases the sandbox makes a choice:
//
//   - A token of an account that has revoked its authorization gets 61003.
//   - An access token that was replaced works for [Config].Grace, whether it is
//     the component's or an account's.
//   - A new consent makes the account's tokens invalid at once, before its code
//     is exchanged.
//   - A second code of the same consent returns the same refresh token.
//   - A consent on a page results in one code, which is pushed and also comes back
//     with the browser.
//
// The secrets of a sandbox are worth nothing, but it treats them as real ones:
// the page and the JSON show at most eight characters of each.
package sandbox
