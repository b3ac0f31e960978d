package sandbox

import (
	"io"

	"wxproxy/sandbox/internal/protocol"
)

// Bulk returns the bytes that WeChat.ServeHTTP serves as the media
// "sandbox-NNNMiB", for a mib of 1 to 4096. They are the same each time. No two
// groups of eight are equal, so that a comparison finds whatever was lost or
// swapped. They are made as they are read.
func Bulk(mib int) io.Reader { return protocol.Bulk(mib) }
