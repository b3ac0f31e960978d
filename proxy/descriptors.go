package proxy

import "syscall"

const (
	// mostUnderWay bounds the calls that are with WeChat at the same time, however many files may be open.
	mostUnderWay = 16384
	// otherFiles are those that are neither a caller's connection nor one to WeChat: store, listeners, operators, pushes.
	otherFiles = 256
)

// places shares out what files this process may open: a quarter for calls under way, the rest for callers, who keep
// connections that rest.
func places() (underWay, callers int) {
	var limit syscall.Rlimit
	files := uint64(1024)
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		files = limit.Cur // the runtime has raised it to what it may be
	}
	n := int(min(files, 1<<20))
	underWay = max(min(mostUnderWay, n/4), 16)
	return underWay, max(n-underWay-otherFiles, 64)
}
