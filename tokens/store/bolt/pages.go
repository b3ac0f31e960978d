package bolt

import (
	"encoding/binary"
	"hash/fnv"
	"io"
)

// The layout of bbolt's files, version 2, as far as the verifier reads it.
// Numbers are in the byte order of the machine that wrote them, and their sizes
// are in bytes.
//
//	page    id 8 · kind 2 · count 2 · overflow 4, then the elements, then the
//	        data that they point to
//	meta    magic 4 · version 4 · page size 4 · flags 4 · root 8 · sequence 8 ·
//	        freelist 8 · number of pages 8 · transaction 8 · FNV-1a of all this 8;
//	        on pages 0 and 1
//	leaf    flags 4 · position 4 · key size 4 · value size 4
//	branch  position 4 · key size 4 · page 8
//	bucket  root 8 (0: the page follows inline) · sequence 8
const (
	pageHeader   = 16
	elementSize  = 16
	metaSize     = 64
	bucketHeader = 16

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketFlag   = 0x01

	boltMagic   = 0xED0CDAED
	boltVersion = 2

	// bbolt looks for the second meta page at multiples of minPageSize.
	minPageSize = 1 << 10
	maxPageSize = 1 << 24

	// maxDepth is deeper than any real tree: each branch page has at least two
	// children, so 64 levels would need more pages than a file can have.
	maxDepth = 64
)

var byteOrder = binary.NativeEndian

// pageBytes is a page with its overflow pages. It is at least pageHeader long.
type pageBytes []byte

func (p pageBytes) id() uint64       { return byteOrder.Uint64(p) }
func (p pageBytes) kind() uint16     { return byteOrder.Uint16(p[8:]) }
func (p pageBytes) count() int       { return int(byteOrder.Uint16(p[10:])) }
func (p pageBytes) overflow() uint64 { return uint64(byteOrder.Uint32(p[12:])) }

// element is an entry of a leaf (flags, key, value) or of a branch (key,
// child).
type element struct {
	flags      uint32
	key, value []byte
	child      uint64
	end        uint64 // position in the page after key and value
}

// element reads entry i, which must be less than count and lie inside p. It
// reports false unless the entry's data begins at start and lies inside p.
//
// bbolt writes the data of the elements after the last of them, without a gap.
// So a wrong count, which would hide or invent records, is detected.
func (p pageBytes) element(i int, start uint64) (element, bool) {
	at := uint64(pageHeader + elementSize*i)
	raw := p[at:]
	var e element
	var pos, keySize, valueSize uint64
	if p.kind() == leafPage {
		e.flags = byteOrder.Uint32(raw)
		pos = uint64(byteOrder.Uint32(raw[4:]))
		keySize = uint64(byteOrder.Uint32(raw[8:]))
		valueSize = uint64(byteOrder.Uint32(raw[12:]))
	} else {
		pos, keySize = uint64(byteOrder.Uint32(raw)), uint64(byteOrder.Uint32(raw[4:]))
		e.child = byteOrder.Uint64(raw[8:])
	}
	e.end = start + keySize + valueSize // the sizes have 32 bits, so this cannot overflow
	if keySize == 0 || at+pos != start || e.end > uint64(len(p)) {
		return element{}, false
	}
	e.key = p[start : start+keySize]
	e.value = p[start+keySize : e.end]
	return e, true
}

// meta is a meta page: it names the root of the tree and the list of free
// pages.
type meta struct {
	pageSize, root, freelist, pages, transaction uint64
}

// readMeta returns the newer of the intact meta pages. A damaged one means that
// a power failure interrupted a commit. bbolt then uses the other one as well,
// which describes the state before that commit.
func readMeta(f io.ReaderAt, size int64) (meta, error) {
	if first, ok := metaAt(f, 0); ok {
		second, ok := metaAt(f, int64(first.pageSize))
		if ok && second.transaction > first.transaction && second.pageSize == first.pageSize {
			return second, nil
		}
		return first, nil
	}
	// The page size is in the page that is damaged: try all of them.
	for at := int64(minPageSize); at <= maxPageSize && at < size; at *= 2 {
		if second, ok := metaAt(f, at); ok && second.pageSize == uint64(at) {
			return second, nil
		}
	}
	return meta{}, corrupt("neither of the first two pages is an intact meta page of bbolt")
}

// metaAt reads the meta page at that position of the file, and reports whether
// it is intact.
func metaAt(f io.ReaderAt, at int64) (meta, bool) {
	raw := make([]byte, metaSize)
	if _, err := f.ReadAt(raw, at+pageHeader); err != nil {
		return meta{}, false
	}
	h := fnv.New64a()
	h.Write(raw[:metaSize-8])
	if byteOrder.Uint32(raw) != boltMagic || byteOrder.Uint32(raw[4:]) != boltVersion ||
		byteOrder.Uint64(raw[metaSize-8:]) != h.Sum64() {
		return meta{}, false
	}
	m := meta{
		pageSize:    uint64(byteOrder.Uint32(raw[8:])),
		root:        byteOrder.Uint64(raw[16:]),
		freelist:    byteOrder.Uint64(raw[32:]),
		pages:       byteOrder.Uint64(raw[40:]),
		transaction: byteOrder.Uint64(raw[48:]),
	}
	powerOfTwo := m.pageSize&(m.pageSize-1) == 0
	return m, m.pageSize >= minPageSize && m.pageSize <= maxPageSize && powerOfTwo
}
