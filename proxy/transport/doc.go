// Package transport moves bytes between callers and WeChat: the listener and its
// connections, the exchange of one request for one response, and the streaming of
// large responses. It also bounds the memory that bodies take, and divides the
// file descriptors of the process.
//
// It knows no account, no credential and no rule; those are package proxy's.
// What depends on the operating system is here, behind build tags.
package transport
