package store_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/bolt"
)

// A store in a local file, with encrypted records: open it, save a record, and
// read it back after a restart.
func Example() {
	folder, err := os.MkdirTemp("", "wxproxy")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "wxproxy.db")
	ctx := context.Background()

	// Without a key, OpenFile keeps one in the file wxproxy.db.key.
	s, err := bolt.OpenFile(ctx, path, nil)
	if err != nil {
		log.Fatal(err)
	}
	err = s.Update(ctx, "account/wx1234567890abcdef", func(ctx context.Context, old []byte) ([]byte, error) {
		return []byte("refresh token"), nil
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}

	s, err = bolt.OpenFile(ctx, path, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	record, err := s.Load(ctx, "account/wx1234567890abcdef")
	fmt.Printf("%s, %v\n", record, err)
	_, err = s.Load(ctx, "account/wx0000000000000000")
	fmt.Println(errors.Is(err, store.ErrNotFound))
	// Output:
	// refresh token, <nil>
	// true
}

// Seal encrypts the records of any store. The keys of the records stay
// readable, and another sealing key is rejected.
func ExampleSeal() {
	ctx := context.Background()
	inner := store.NewMemory()
	defer inner.Close()

	key := make([]byte, store.KeySize)
	rand.Read(key)
	sealed, err := store.Seal(ctx, inner, key)
	if err != nil {
		log.Fatal(err)
	}
	err = sealed.Update(ctx, "ticket/wx1234567890abcdef", func(ctx context.Context, old []byte) ([]byte, error) {
		return []byte("ticket@@@secret"), nil
	})
	if err != nil {
		log.Fatal(err)
	}

	record, err := sealed.Load(ctx, "ticket/wx1234567890abcdef")
	fmt.Printf("sealed store: %s, %v\n", record, err)
	record, err = inner.Load(ctx, "ticket/wx1234567890abcdef")
	fmt.Printf("inner store: %d bytes, %v\n", len(record), err)

	_, err = store.Seal(ctx, inner, make([]byte, store.KeySize))
	fmt.Println("other key:", err)
	// Output:
	// sealed store: ticket@@@secret, <nil>
	// inner store: 52 bytes, <nil>
	// other key: store was sealed with another key
}

// Update is the only way to write. It holds the lock of the key while the
// function runs, so that no update is lost, here or in another process.
func ExampleStore() {
	ctx := context.Background()
	s := store.NewMemory()
	defer s.Close()

	increment := func(ctx context.Context, old []byte) ([]byte, error) {
		n, _ := strconv.Atoi(string(old)) // old is nil the first time
		return []byte(strconv.Itoa(n + 1)), nil
	}
	for range 3 {
		if err := s.Update(ctx, "counter", increment); err != nil {
			log.Fatal(err)
		}
	}
	// Keep leaves the record as it is; nil would delete it.
	err := s.Update(ctx, "counter", func(ctx context.Context, old []byte) ([]byte, error) {
		fmt.Printf("counter is %s\n", old)
		return store.Keep, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	err = s.List(ctx, "count", "", func(key string, record []byte) bool {
		fmt.Printf("%s: %s\n", key, record)
		return true
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// counter is 3
	// counter: 3
}
