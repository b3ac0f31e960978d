package tokens_test

import (
	"testing"

	"wxproxy/tokens"
	"wxproxy/tokens/storetest"
)

func TestMemoryStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) tokens.Store { return tokens.NewMemoryStore() })
}
