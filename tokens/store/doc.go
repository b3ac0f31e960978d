// Package store defines how wxproxy keeps its records, and holds everything
// that does not depend on a database:
//
//   - [Store], the contract that every database fulfills, and its errors.
//   - [Watcher], the change feed of a store that several processes share.
//   - [Seal], which encrypts the records of any store.
//   - [KeyLocks], the per-key locks of a store that one process owns.
//   - [NewMemory], a store that keeps its records in memory.
//   - [LoadOrCreateKey], the key file of a sealed store.
//
// The databases are packages of their own: bolt keeps records in a local file,
// redis shares them between processes. Package storetest holds the tests that
// each of them passes.
//
// # Records
//
// A record is a small byte slice under a short key. This package does not look
// into records. The keys that package tokens uses have the form KIND/NAME, such
// as "account/APPID" or "ticket/APPID". Keys are never encrypted, because List
// must find records by prefix, so a key must not contain a secret. Keys that
// begin with "seal/" belong to [Seal].
//
// # Claims
//
// A claim is a key that one caller of all processes gets, until a given time
// ([Store.Claim]). It makes sure that something happens once, such as the
// handling of a push, and costs a fraction of an Update. Claims are no records:
// Load and List do not see them.
//
// # Invariants
//
// Everything that holds refresh tokens depends on these three rules:
//
//   - Save before use. A record is durable when Update returns nil. What WeChat
//     issued is given to a caller only after that.
//   - One lock order. A function that runs under the lock of an account may
//     update the component, never the other way around. Each key has a lock of
//     its own, so that one order is enough to rule out a deadlock. Package
//     tokens has the whole order (componentAPI.withToken).
//   - A lost lock loses nothing that is newer. If the lock was lost while fn
//     ran, the record of fn is saved only if no other process wrote in the
//     meantime. Otherwise Update returns [ErrLost] and the stored record stands.
package store
