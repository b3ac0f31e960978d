package store_test

import (
	"testing"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/storetest"
)

func TestMemoryStoreContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
}

func TestMemoryQueueContract(t *testing.T) {
	storetest.RunQueue(t, func(*testing.T) store.Store { return store.NewMemory() })
}
