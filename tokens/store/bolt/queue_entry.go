package bolt

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"wxproxy/tokens/store"
)

// The buckets of the queue. The first entry of a file creates them; versions
// that do not know them ignore them, and keep them as they are.
//
// Payloads are apart from the rest of the entries, because they are read once,
// and the rest whenever the queue is listed or an attempt fails.
var (
	// queueEntriesBucket holds the entries without their payloads, lane by lane
	// and in the order of each lane. Its keys are those of [entryKey].
	queueEntriesBucket = []byte("queue_entries")
	// queuePayloadsBucket maps the sequence number of an entry to its payload.
	queuePayloadsBucket = []byte("queue_payloads")
	// queueIDsBucket maps "ID/SERVICE/APPID" to the sequence number.
	queueIDsBucket = []byte("queue_ids")
)

// seqSize is the length of a sequence number in bytes, big endian. Numbers grow
// with each entry that is added to the file.
const seqSize = 8

func encodeSeq(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// laneOf returns the lane of an entry: the beginning of the keys of its
// entries.
func laneOf(k store.QueueKey) string { return k.Service + "/" + k.AppID + "/" }

// entryKey returns the key of an entry: its lane, its number, and its ID. The
// ID is in the key so that it is known if the value is damaged.
func entryKey(k store.QueueKey, seq uint64) []byte {
	return append(append([]byte(laneOf(k)), encodeSeq(seq)...), k.ID...)
}

// parseEntryKey parses what entryKey has returned. A key that a damaged disk
// made up is not ok.
func parseEntryKey(key []byte) (k store.QueueKey, seq uint64, ok bool) {
	service, rest, ok := bytes.Cut(key, []byte("/"))
	appid, rest, ok2 := bytes.Cut(rest, []byte("/"))
	if !ok || !ok2 || len(rest) <= seqSize {
		return k, 0, false
	}
	k = store.QueueKey{Service: string(service), AppID: string(appid), ID: string(rest[seqSize:])}
	return k, binary.BigEndian.Uint64(rest), k.IsValid()
}

// idKey returns the key of an entry in queueIDsBucket.
func idKey(k store.QueueKey) []byte { return []byte(k.ID + "/" + k.Service + "/" + k.AppID) }

// parseIDKey parses what idKey has returned.
func parseIDKey(key []byte) (k store.QueueKey, ok bool) {
	parts := strings.Split(string(key), "/")
	if len(parts) != 3 {
		return k, false
	}
	k = store.QueueKey{ID: parts[0], Service: parts[1], AppID: parts[2]}
	return k, k.IsValid()
}

// queued is an entry with its number, as the file has it.
type queued struct {
	store.QueueEntry        // without Payload; Next is that of the file
	seq              uint64 // orders its lane
	size             int    // of the payload, in bytes
}

// The value of an entry: version 1 · dead 1 · attempts 4 · size of the payload
// 4 · created 8 · since 8 · next 8 · error. Numbers are big endian, times are
// Unix milliseconds.
const (
	queuedVersion = 1
	queuedHeader  = 34
)

func encodeQueued(e *queued) []byte {
	b := make([]byte, 0, queuedHeader+len(e.Error))
	dead := byte(0)
	if e.Dead {
		dead = 1
	}
	b = append(b, queuedVersion, dead)
	b = binary.BigEndian.AppendUint32(b, uint32(e.Attempts))
	b = binary.BigEndian.AppendUint32(b, uint32(e.size))
	for _, t := range [...]time.Time{e.Created, e.Since, e.Next} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
	}
	return append(b, e.Error...)
}

// damagedEntry is the error of an entry whose value cannot be read. Such an
// entry counts as dead, so it does not delay its lane, and an operator sees it.
const damagedEntry = "the stored entry is damaged"

// damagedPayload is the error of an entry whose payload cannot be read.
const damagedPayload = "the stored event is damaged"

// decodeQueued returns an entry of queueEntriesBucket. It is not ok if the key
// is none of an entry.
func decodeQueued(key, value []byte) (e queued, ok bool) {
	e.QueueKey, e.seq, ok = parseEntryKey(key)
	if !ok {
		return e, false
	}
	if !checksumMatches(key, value) || len(value) < checksumSize+queuedHeader ||
		value[checksumSize] != queuedVersion {
		e.Dead, e.Error = true, damagedEntry
		return e, true
	}
	b := value[checksumSize:]
	e.Dead = b[1] != 0
	e.Attempts = int(binary.BigEndian.Uint32(b[2:]))
	e.size = int(binary.BigEndian.Uint32(b[6:]))
	e.Created = decodeMillis(b[10:])
	e.Since = decodeMillis(b[18:])
	e.Next = decodeMillis(b[26:])
	e.Error = string(b[queuedHeader:])
	return e, true
}

func decodeMillis(b []byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC()
}

// queueTx is the queue in one transaction of bbolt. Its buckets are nil in a
// file that has had no entry yet.
type queueTx struct {
	tx                     *bbolt.Tx
	entries, payloads, ids *bbolt.Bucket
}

// readQueue opens the queue for reading.
func readQueue(tx *bbolt.Tx) queueTx {
	return queueTx{
		tx: tx, entries: tx.Bucket(queueEntriesBucket),
		payloads: tx.Bucket(queuePayloadsBucket), ids: tx.Bucket(queueIDsBucket),
	}
}

// writeQueue opens the queue for writing, and creates it if there is none.
func writeQueue(tx *bbolt.Tx) (q queueTx, err error) {
	q.tx = tx
	for name, b := range map[string]**bbolt.Bucket{
		string(queueEntriesBucket): &q.entries, string(queuePayloadsBucket): &q.payloads,
		string(queueIDsBucket): &q.ids,
	} {
		if *b, err = tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return q, err
		}
	}
	q.payloads.FillPercent = 0.9 // the numbers ascend, so pages need not be split
	return q, nil
}

// exists reports whether a file has a queue.
func (q queueTx) exists() bool { return q.entries != nil && q.payloads != nil && q.ids != nil }

// find returns an entry by its key. If its number in queueIDsBucket is damaged,
// it is searched for in its lane.
func (q queueTx) find(k store.QueueKey) (e queued, ok bool) {
	if !q.exists() {
		return e, false
	}
	key := idKey(k)
	seq, err := decodeValue(key, q.ids.Get(key))
	switch {
	case err == nil && seq == nil:
		return e, false
	case err == nil && len(seq) == seqSize:
		return q.get(k, binary.BigEndian.Uint64(seq))
	}
	q.each(laneOf(k), nil, func(_ []byte, found *queued) bool {
		if found.ID == k.ID {
			e, ok = *found, true
		}
		return !ok
	})
	return e, ok
}

// get returns the entry of a key and a number.
func (q queueTx) get(k store.QueueKey, seq uint64) (e queued, ok bool) {
	if !q.exists() {
		return e, false
	}
	key := entryKey(k, seq)
	value := q.entries.Get(key)
	if value == nil {
		return e, false
	}
	return decodeQueued(key, value)
}

// payload returns a copy of the payload of an entry, or nil if it is damaged.
func (q queueTx) payload(seq uint64) []byte {
	key := encodeSeq(seq)
	payload, _ := decodeValue(key, q.payloads.Get(key))
	return payload
}

// each calls yield with the entries whose keys begin with prefix, from number
// from of a lane on, until yield returns false.
func (q queueTx) each(prefix string, from []byte, yield func(key []byte, e *queued) bool) {
	if !q.exists() {
		return
	}
	c := q.entries.Cursor()
	k, v := c.Seek(append([]byte(prefix), from...))
	for ; k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		if e, ok := decodeQueued(k, v); ok && !yield(k, &e) {
			return
		}
	}
}

// add appends an entry to its lane, and gives it its number.
func (q queueTx) add(e *queued, payload []byte) (err error) {
	if e.seq, err = q.entries.NextSequence(); err != nil {
		return err
	}
	e.size = len(payload)
	seq, id := encodeSeq(e.seq), idKey(e.QueueKey)
	if err := q.ids.Put(id, encodeValue(id, seq)); err != nil {
		return err
	}
	if err := q.payloads.Put(seq, encodeValue(seq, payload)); err != nil {
		return err
	}
	return q.put(e)
}

// put saves an entry that has its number already, without its payload.
func (q queueTx) put(e *queued) error {
	key := entryKey(e.QueueKey, e.seq)
	return q.entries.Put(key, encodeValue(key, encodeQueued(e)))
}

// remove removes an entry with all that belongs to it.
func (q queueTx) remove(e *queued) error {
	if err := q.entries.Delete(entryKey(e.QueueKey, e.seq)); err != nil {
		return err
	}
	if err := q.payloads.Delete(encodeSeq(e.seq)); err != nil {
		return err
	}
	id := idKey(e.QueueKey)
	// After damage, the key may belong to an entry that was added later.
	seq, err := decodeValue(id, q.ids.Get(id))
	if err == nil && !bytes.Equal(seq, encodeSeq(e.seq)) {
		return nil
	}
	return q.ids.Delete(id)
}
