//go:build !unix

package durable

import "io/fs"

// keepOwner does nothing: a new file inherits the permissions of its folder.
func keepOwner(string, fs.FileInfo) error { return nil }
