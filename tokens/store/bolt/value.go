package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"wxproxy/tokens/store"
)

// checksumSize is the length of the checksum, in bytes. A value in the file is
// the CRC-32C of key and record (little endian), followed by the record. bbolt
// itself has checksums for its first two pages only, so without this one a bit
// that flipped on the disk would be returned as a token.
const checksumSize = 4

// castagnoli is the polynomial that CPUs compute in hardware.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum also covers the length of the key, so that no byte can move between
// key and record unnoticed.
func checksum(key, record []byte) uint32 {
	sum := crc32.Checksum(binary.LittleEndian.AppendUint32(nil, uint32(len(key))), castagnoli)
	return crc32.Update(crc32.Update(sum, castagnoli, key), castagnoli, record)
}

// encodeValue returns the value that is stored for record.
func encodeValue(key, record []byte) []byte {
	value := make([]byte, checksumSize, checksumSize+len(record))
	binary.LittleEndian.PutUint32(value, checksum(key, record))
	return append(value, record...)
}

// decodeValue returns a copy of the record in value, or nil if value is nil. It
// returns [store.ErrDamaged] if the checksum is wrong. It must copy: bbolt's
// bytes are mapped from the file and become invalid when the transaction ends.
func decodeValue(key, value []byte) ([]byte, error) {
	if value == nil {
		return nil, nil
	}
	if !checksumMatches(key, value) {
		return nil, fmt.Errorf("%w: wrong checksum of record %q", store.ErrDamaged, key)
	}
	return slices.Clip(append([]byte{}, value[checksumSize:]...)), nil
}

func checksumMatches(key, value []byte) bool {
	return len(value) >= checksumSize &&
		binary.LittleEndian.Uint32(value) == checksum(key, value[checksumSize:])
}
