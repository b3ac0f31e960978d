package bolt

import (
	"os"
	"strconv"
	"syscall"
)

// faultFile is the path of a file that makes commits fail while it exists: it
// holds the number of the error. Only the linker sets it, for tests of the
// program on machines that do not let a test inject errors into system calls:
//
//	go build -ldflags "-X wxproxy/tokens/store/bolt.faultFile=PATH" ./cmd/wxproxy
//
// Built without the flag, the program looks at no such file.
var faultFile string

// fileFault returns the error in faultFile, nil if there is none.
func fileFault() error {
	text, err := os.ReadFile(faultFile)
	if err != nil {
		return nil
	}
	errno, _ := strconv.Atoi(string(text))
	return &os.PathError{Op: "write", Path: faultFile, Err: syscall.Errno(errno)}
}
