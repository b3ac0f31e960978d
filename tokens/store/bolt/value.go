package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"wxproxy/tokens/store"
)

// A value in the file is the checksum of key and record, and then the record. bbolt has
// checksums for its two first pages only: elsewhere a bit that fell over on the disk would be
// handed out as a token.
const sumSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli) // the one that processors compute

// checksum also covers the length of the key, so that no byte can change sides.
func checksum(key, record []byte) uint32 {
	sum := crc32.Checksum(binary.LittleEndian.AppendUint32(nil, uint32(len(key))), castagnoli)
	return crc32.Update(crc32.Update(sum, castagnoli, key), castagnoli, record)
}

func pack(key, record []byte) []byte {
	value := make([]byte, sumSize, sumSize+len(record))
	binary.LittleEndian.PutUint32(value, checksum(key, record))
	return append(value, record...)
}

// unpack gives a copy of the record in value, nil where value is nil: bbolt's bytes are a
// window on the file, gone with the transaction.
func unpack(key, value []byte) ([]byte, error) {
	if value == nil {
		return nil, nil
	}
	if !intact(key, value) {
		return nil, fmt.Errorf("%w: the checksum of the record %q is wrong", store.ErrCorrupt, key)
	}
	return slices.Clip(append([]byte{}, value[sumSize:]...)), nil
}

func intact(key, value []byte) bool {
	return len(value) >= sumSize && binary.LittleEndian.Uint32(value) == checksum(key, value[sumSize:])
}
