package transport

const (
	// MaxInFlight bounds the calls that are with WeChat at the same time, however many files may be open.
	MaxInFlight = 16384
	// otherFiles are those that are neither a caller's connection nor one to WeChat: store, listeners, operators, pushes.
	otherFiles = 256
)

// FileDescriptorLimits shares out what files this process may open: a quarter for calls in flight, the rest for callers, who keep
// connections that rest.
func FileDescriptorLimits() (inFlight, callerConns int) {
	n := int(min(openFileLimit(), 1<<20))
	inFlight = max(min(MaxInFlight, n/4), 16)
	return inFlight, max(n-inFlight-otherFiles, 64)
}
