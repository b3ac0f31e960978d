package bolt

import (
	"encoding/binary"
	"hash/fnv"
	"io"
)

// The layout of bbolt's files, version 2, as far as verify reads it. Numbers are in the byte
// order of the machine that wrote them.
//
//	page    id 8 · kind 2 · count 2 · overflow 4, then the elements, then what they point to
//	meta    magic 4 · version 4 · page size 4 · flags 4 · root 8 · sequence 8 · freelist 8 ·
//	        number of pages 8 · transaction 8 · FNV-1a of all this 8; on pages 0 and 1
//	leaf    flags 4 · position 4 · key size 4 · value size 4
//	branch  position 4 · key size 4 · page 8
//	bucket  root 8 (0: the page follows here) · sequence 8
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

	minPageSize = 1 << 10 // where bbolt looks for the second meta page
	maxPageSize = 1 << 24

	// maxDepth is far beyond any tree: each page has two children at least.
	maxDepth = 64
)

var order = binary.NativeEndian

// pageBytes is a page with all that overflows it, at least pageHeader long.
type pageBytes []byte

func (p pageBytes) id() uint64       { return order.Uint64(p) }
func (p pageBytes) kind() uint16     { return order.Uint16(p[8:]) }
func (p pageBytes) count() int       { return int(order.Uint16(p[10:])) }
func (p pageBytes) overflow() uint64 { return uint64(order.Uint32(p[12:])) }

// element is one entry of a leaf (flags, key, value) or of a branch (key, child).
type element struct {
	flags      uint32
	key, value []byte
	child      uint64
	end        uint64 // of what it points to, in the page
}

// element reads entry i, below count, which fits into p and points to start. It says no where that
// points elsewhere, or out of the page.
//
// bbolt writes what the elements point to behind the last of them, without a gap. So a wrong count, which
// would make records disappear or appear, is not overlooked.
func (p pageBytes) element(i int, start uint64) (element, bool) {
	at := uint64(pageHeader + elementSize*i)
	raw := p[at:]
	var e element
	var pos, keySize, valueSize uint64
	if p.kind() == leafPage {
		e.flags = order.Uint32(raw)
		pos, keySize, valueSize = uint64(order.Uint32(raw[4:])), uint64(order.Uint32(raw[8:])), uint64(order.Uint32(raw[12:]))
	} else {
		pos, keySize = uint64(order.Uint32(raw)), uint64(order.Uint32(raw[4:]))
		e.child = order.Uint64(raw[8:])
	}
	e.end = start + keySize + valueSize // 32-bit numbers: nothing runs over
	if keySize == 0 || at+pos != start || e.end > uint64(len(p)) {
		return element{}, false
	}
	e.key = p[start : start+keySize]
	e.value = p[start+keySize : e.end]
	return e, true
}

// meta is the root of everything.
type meta struct {
	pageSize, root, freelist, pages, transaction uint64
}

// readMeta gives the newer of the two meta pages that are whole. One that is not is a commit that
// a power cut ended, and bbolt goes by the other as well: that is the state before it.
func readMeta(f io.ReaderAt, size int64) (meta, error) {
	first, ok := metaAt(f, 0)
	if ok {
		if second, ok := metaAt(f, int64(first.pageSize)); ok && second.transaction > first.transaction && second.pageSize == first.pageSize {
			return second, nil
		}
		return first, nil
	}
	for at := int64(minPageSize); at <= maxPageSize && at < size; at *= 2 {
		if second, ok := metaAt(f, at); ok && second.pageSize == uint64(at) {
			return second, nil
		}
	}
	return meta{}, damaged("neither of its two first pages is a whole one of bbolt's")
}

func metaAt(f io.ReaderAt, at int64) (meta, bool) {
	raw := make([]byte, metaSize)
	if _, err := f.ReadAt(raw, at+pageHeader); err != nil {
		return meta{}, false
	}
	h := fnv.New64a()
	h.Write(raw[:metaSize-8])
	if order.Uint32(raw) != boltMagic || order.Uint32(raw[4:]) != boltVersion || order.Uint64(raw[metaSize-8:]) != h.Sum64() {
		return meta{}, false
	}
	m := meta{
		pageSize:    uint64(order.Uint32(raw[8:])),
		root:        order.Uint64(raw[16:]),
		freelist:    order.Uint64(raw[32:]),
		pages:       order.Uint64(raw[40:]),
		transaction: order.Uint64(raw[48:]),
	}
	return m, m.pageSize >= minPageSize && m.pageSize <= maxPageSize && m.pageSize&(m.pageSize-1) == 0
}
