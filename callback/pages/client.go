package pages

import (
	"net/http"
	"net/netip"
	"strings"
)

// clientOf returns the address of the client of a request, or the zero Addr if
// the peer has none. known is false if the address may be that of a proxy that
// does not say for which client it sends the request.
//
// X-Forwarded-For counts only if the peer is on this machine or in a private
// network, as the proxy that terminates TLS is. Of the header only the last
// entry counts, which that proxy has added. Earlier entries can be forged by
// the client.
func clientOf(r *http.Request) (client netip.Addr, known bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	addr := peer.Addr().Unmap()
	if !addr.IsLoopback() && !addr.IsPrivate() && !addr.IsLinkLocalUnicast() {
		return addr, true
	}
	lines := r.Header.Values("X-Forwarded-For")
	if len(lines) == 0 {
		return addr, false
	}
	last := lines[len(lines)-1]
	last = strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
	if withPort, err := netip.ParseAddrPort(last); err == nil {
		return withPort.Addr(), true
	}
	if withoutPort, err := netip.ParseAddr(strings.Trim(last, "[]")); err == nil {
		return withoutPort, true
	}
	return addr, false
}
