// Package conformance tests unmodified SDKs against a real wxproxy and the
// sandbox WeChat. Each SDK has a folder with a program and its own list of
// dependencies. `make conformance` installs them and runs the test, which `go
// test ./...` skips.
//
// Folder services has the services of docs/services.md. They and the message
// servers of SDKs (wechat, silenceper-server) receive pushes from wxproxy.
//
// A program receives an address, an appid and a secret in its environment, and
// does what users of its SDK do. It does not know wxproxy. A relay between the
// two records what it sent and received.
package conformance
