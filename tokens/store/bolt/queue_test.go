package bolt_test

import (
	"path/filepath"
	"testing"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

func TestQueueContract(t *testing.T) {
	storetest.RunQueue(t, func(t *testing.T) store.Store {
		return open(t, filepath.Join(t.TempDir(), "a.db"))
	})
}
