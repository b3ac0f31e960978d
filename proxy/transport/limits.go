package transport

const (
	// MaxInFlight bounds the requests that are in flight at WeChat, however many
	// file descriptors there are.
	MaxInFlight = 16384
	// otherFiles is the number of file descriptors for everything else but the
	// requests that wxproxy makes for itself: store, listeners, operators,
	// pushes.
	otherFiles = 192
	// minInFlight and minConns let wxproxy serve something in a process that is
	// allowed few file descriptors. It can run out of them.
	minInFlight = 16
	minConns    = 64
)

// FileDescriptorLimits divides the file descriptors that this process can open.
// Every request in flight holds a connection to WeChat: they get a quarter. The
// connections of callers get the rest, since most of those are idle. ownCalls
// is how many requests wxproxy makes for itself at one time.
func FileDescriptorLimits(ownCalls int) (inFlight, conns int) {
	return divideFiles(openFileLimit(), ownCalls)
}

func divideFiles(limit uint64, ownCalls int) (inFlight, conns int) {
	n := int(min(limit, 1<<20))
	inFlight = max(min(MaxInFlight, n/4), minInFlight)
	return inFlight, max(n-inFlight-otherFiles-ownCalls, minConns)
}
