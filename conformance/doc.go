// Package conformance holds no code, but a test and the programs that it runs: SDKs as their authors published them, each
// in its folder with its own list of dependencies, before a real wxproxy and the sandbox WeChat. `make conformance`
// installs them and runs the test, which `go test ./...` skips.
//
// A program is given an address, an appid and a secret in its environment and does what the users of its SDK do. It
// knows nothing of wxproxy. What it got and sent is read off the wire by a relay between the two.
package conformance
