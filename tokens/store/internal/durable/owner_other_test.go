//go:build !unix

package durable_test

import "testing"

func wantOwner(*testing.T, string, uint32, uint32) {}
