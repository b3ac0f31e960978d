package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// exportedPrefix begins the keys of entries of the queue in an export. A number
// follows, so that the keys ascend in the order of the entries.
const exportedPrefix = "queue/"

// afterExported is greater than all keys of entries in an export, and less than
// those of the records that follow them.
const afterExported = exportedPrefix + "\xff"

// errExportedEntry reports that an entry in an export cannot be parsed.
var errExportedEntry = errors.New("invalid event")

// exportQueue calls yield with each entry of q, whose payloads are sealed, as
// [ParseExported] parses it. It leaves out those that cannot be opened.
func (s *sealedStore) exportQueue(
	ctx context.Context, q Queue, yield func(key string, entry []byte) error,
) (damaged int, err error) {
	n := 0
	var yieldErr error
	err = q.Scan(ctx, func(e QueueEntry) bool {
		if _, _, err := s.ring.open(e.String(), e.Payload); err != nil {
			damaged++
			return true
		}
		yieldErr = yield(fmt.Sprintf("%s%016d", exportedPrefix, n), encodeExported(&e))
		n++
		return yieldErr == nil
	})
	if yieldErr != nil {
		return damaged, yieldErr
	}
	return damaged, err
}

// exportedVersion is the first byte of an entry in an export.
const exportedVersion = 1

// encodeExported returns an entry for an export: version 1 · dead 1 · attempts
// · created · since · service · appid · id · error · payload. Numbers are
// varints, times are Unix milliseconds, and texts follow their length.
func encodeExported(e *QueueEntry) []byte {
	b := make([]byte, 0, len(e.Payload)+len(e.String())+len(e.Error)+64)
	dead := byte(0)
	if e.Dead {
		dead = 1
	}
	b = append(b, exportedVersion, dead)
	for _, n := range [...]int64{int64(e.Attempts), e.Created.UnixMilli(), e.Since.UnixMilli()} {
		b = binary.AppendVarint(b, n)
	}
	for _, text := range [...]string{e.Service, e.AppID, e.ID, e.Error} {
		b = binary.AppendUvarint(b, uint64(len(text)))
		b = append(b, text...)
	}
	return append(b, e.Payload...)
}

// ParseExported returns the entry of a queue that [Exporter] has exported as a
// record, with its payload as it was stored. ok is false if the record is none
// of a queue.
func ParseExported(key string, record []byte) (e QueueEntry, ok bool, err error) {
	if !strings.HasPrefix(key, exportedPrefix) {
		return e, false, nil
	}
	p := exportedParser{rest: record}
	version, dead := p.byte(), p.byte()
	e.Dead = dead == 1
	e.Attempts = int(p.number())
	e.Created = time.UnixMilli(p.number()).UTC()
	e.Since = time.UnixMilli(p.number()).UTC()
	e.Service, e.AppID, e.ID = p.text(), p.text(), p.text()
	e.Error = p.text()
	if p.failed || version != exportedVersion || dead > 1 || !e.IsValid() || e.Attempts < 0 {
		return QueueEntry{}, true, errExportedEntry
	}
	e.Payload = append([]byte{}, p.rest...)
	return e, true, nil
}

// exportedParser parses the parts of an entry. After the first failure all
// parts are zero.
type exportedParser struct {
	rest   []byte
	failed bool
}

// byte reads one byte.
func (p *exportedParser) byte() byte {
	if len(p.rest) == 0 {
		p.failed = true
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return b
}

// number reads a signed varint.
func (p *exportedParser) number() int64 {
	n, size := binary.Varint(p.rest)
	if size <= 0 {
		p.failed, p.rest = true, nil
		return 0
	}
	p.rest = p.rest[size:]
	return n
}

// text reads a text that follows its length. The length may be that of a
// damaged file: nothing is allocated before the text is known to be there.
func (p *exportedParser) text() string {
	n, size := binary.Uvarint(p.rest)
	if size <= 0 || n > uint64(len(p.rest)-size) {
		p.failed, p.rest = true, nil
		return ""
	}
	text := string(p.rest[size : size+int(n)])
	p.rest = p.rest[size+int(n):]
	return text
}

// queueOf returns the queue of s, or nil if it has none.
func queueOf(s Store) Queue {
	if q, ok := As[Queuer](s); ok {
		return q.Queue()
	}
	return nil
}
