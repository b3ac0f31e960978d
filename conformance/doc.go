// Package conformance tests unmodified SDKs against a real wxproxy and the
// sandbox WeChat. Each SDK has a folder with a program and its own list of
// dependencies. `make conformance` installs them and runs the test, which `go
// test ./...` skips.
//
// A program receives an address, an appid and a secret in its environment, and
// does what users of its SDK do. It does not know wxproxy. A relay between the
// two records what it sent and received.
package conformance
