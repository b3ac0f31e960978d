package bolt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"wxproxy/tokens/store"
)

// verifyFile looks through the file of a store before bbolt does. bbolt trusts what it reads and reads
// it as memory: a page number that a damaged disk made up is a crash of the process, in the
// middle of a renewal perhaps. Its own check does not help, it runs in a goroutine that no
// guard protects. This one only reads, page by page, and believes nothing.
//
// Errors wrap store.ErrCorrupt, those of reading and of a newer format aside. A damaged page that
// is not in use is not an error.
func verifyFile(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return verify(ctx, f, info.Size())
}

func verify(ctx context.Context, f io.ReaderAt, size int64) error {
	v := &verifier{ctx: ctx, file: f}
	m, err := readMeta(f, size)
	if err != nil {
		return err
	}
	if m.pages < 4 || m.pages > uint64(size)/m.pageSize {
		return damaged("it is cut off: %d pages of %d bytes are not in %d bytes", m.pages, m.pageSize, size)
	}
	v.pageSize, v.pages, v.used = m.pageSize, m.pages, make([]uint64, m.pages/64+1)
	v.take(0)
	v.take(1)
	free, err := v.freelist(m.freelist)
	if err != nil {
		return err
	}
	if err := v.tree(m.root, 0, nil, nil, v.bucket); err != nil {
		return err
	}
	for _, id := range free {
		if !v.take(id) { // a page that is in use, or free twice, would be given to two writers
			return damaged("page %d is free and in use", id)
		}
	}
	for id := range v.pages {
		if v.take(id) { // what it holds may be lost records
			return damaged("page %d is neither free nor in use", id)
		}
	}
	return v.verdict()
}

// verifier holds what was seen of one file.
type verifier struct {
	ctx      context.Context
	file     io.ReaderAt
	pageSize uint64
	pages    uint64   // those below this number belong to the file
	used     []uint64 // a bit for each page: every one may be met once
	buffers  [][]byte // one for each depth of the tree

	format  []byte
	records bool // there is a bucket for them
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", store.ErrCorrupt, fmt.Sprintf(format, args...))
}

// take marks a page as used, and says whether it was not and exists.
func (v *verifier) take(id uint64) bool {
	if id >= v.pages || v.used[id/64]&(1<<(id%64)) != 0 {
		return false
	}
	v.used[id/64] |= 1 << (id % 64)
	return true
}

// read gives the page id with all that overflows it, in the buffer of that depth.
func (v *verifier) read(id uint64, depth int) (pageBytes, error) {
	if err := v.ctx.Err(); err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, damaged("page %d lies too deep", id)
	}
	if !v.take(id) {
		return nil, damaged("page %d is used twice, or beyond the end", id)
	}
	if depth == len(v.buffers) {
		v.buffers = append(v.buffers, make([]byte, v.pageSize))
	}
	p := pageBytes(v.buffers[depth][:v.pageSize])
	if err := v.fill(p, id); err != nil {
		return nil, err
	}
	if p.id() != id {
		return nil, damaged("page %d says that it is page %d", id, p.id())
	}
	more := p.overflow()
	for i := uint64(1); i <= more; i++ {
		if !v.take(id + i) {
			return nil, damaged("page %d runs into page %d", id, id+i)
		}
	}
	if more > 0 {
		p = make([]byte, (1+more)*v.pageSize)
		v.buffers[depth] = p
		if err := v.fill(p, id); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (v *verifier) fill(p pageBytes, id uint64) error {
	_, err := v.file.ReadAt(p, int64(id*v.pageSize))
	if err == io.EOF {
		return damaged("page %d is cut off", id)
	}
	return err
}

// freelist gives the numbers of the free pages.
func (v *verifier) freelist(id uint64) ([]uint64, error) {
	p, err := v.read(id, 0)
	if err != nil {
		return nil, err
	}
	if p.kind() != freelistPage {
		return nil, damaged("page %d is not the list of free pages", id)
	}
	list, n := p[pageHeader:], uint64(p.count())
	if n == 0xFFFF { // the number did not fit
		n, list = order.Uint64(list), list[8:]
	}
	if n > uint64(len(list))/8 {
		return nil, damaged("the list of free pages is longer than its page")
	}
	free := make([]uint64, n)
	for i := range free {
		free[i] = order.Uint64(list[8*i:])
	}
	return free, nil
}

// visitor is called with what a leaf holds, in the order of the keys.
type visitor func(key, value []byte, isBucket bool, depth int) error

// tree walks the pages under id, whose keys have to be from low to before high (nil: no bound).
func (v *verifier) tree(id uint64, depth int, low, high []byte, visit visitor) error {
	p, err := v.read(id, depth)
	if err != nil {
		return err
	}
	return v.node(p, id, depth, low, high, visit)
}

// node walks one page; bbolt also keeps small buckets as a page inside of a value.
func (v *verifier) node(p pageBytes, id uint64, depth int, low, high []byte, visit visitor) error {
	kind, count := p.kind(), p.count()
	if kind != leafPage && kind != branchPage {
		return damaged("page %d is no page of a tree", id)
	}
	if count == 0 && id != 0 { // bbolt keeps an empty bucket inside of its parent
		return damaged("page %d is empty", id)
	}
	if uint64(count) > uint64(len(p)-pageHeader)/elementSize {
		return damaged("page %d holds more than fits", id)
	}
	var previous []byte
	start := uint64(pageHeader + elementSize*count)
	for i := range count {
		e, ok := p.element(i, start)
		switch {
		case !ok:
			return damaged("page %d: what it holds lies outside of it", id)
		case bytes.Compare(e.key, low) < 0, high != nil && bytes.Compare(e.key, high) >= 0,
			i > 0 && bytes.Compare(e.key, previous) <= 0:
			return damaged("page %d: the keys are out of order", id)
		}
		previous, start = e.key, e.end
		var err error
		if kind == leafPage {
			if e.flags > bucketFlag {
				return damaged("page %d holds something unknown", id)
			}
			err = visit(e.key, e.value, e.flags == bucketFlag, depth)
		} else {
			until := high
			if i+1 < count {
				next, ok := p.element(i+1, e.end)
				if !ok {
					return damaged("page %d: what it holds lies outside of it", id)
				}
				until = next.key
			}
			err = v.tree(e.child, depth+1, e.key, until, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bucket visits the file's buckets: meta, records, and others that are none of ours.
func (v *verifier) bucket(name, value []byte, isBucket bool, depth int) error {
	if !isBucket {
		return damaged("%q is not a bucket", name)
	}
	var visit visitor
	switch {
	case bytes.Equal(name, metaBucket):
		visit = func(key, value []byte, _ bool, _ int) error {
			if bytes.Equal(key, formatKey) {
				v.format = bytes.Clone(value)
			}
			return nil
		}
	case bytes.Equal(name, recordsBucket):
		v.records = true
		visit = func(key, value []byte, isBucket bool, _ int) error {
			// Those of a newer format are not ours to judge.
			if string(v.format) == format && (isBucket || !intact(key, value)) {
				return damaged("the checksum of the record %q is wrong", key)
			}
			return nil
		}
	default:
		visit = func([]byte, []byte, bool, int) error { return nil }
	}
	if len(value) < bucketHeader {
		return damaged("the bucket %q is cut off", name)
	}
	if root := order.Uint64(value); root != 0 {
		return v.tree(root, depth+1, nil, nil, visit)
	}
	inline := pageBytes(value[bucketHeader:])
	if len(inline) < pageHeader || inline.kind() != leafPage || inline.count() == 0 && len(inline) > pageHeader {
		return damaged("the bucket %q is cut off", name)
	}
	return v.node(inline, 0, depth, nil, nil, visit)
}

// verdict says whether the sound file of bbolt's is one of ours.
func (v *verifier) verdict() error {
	known, _ := strconv.Atoi(format)
	switch n, err := strconv.Atoi(string(v.format)); {
	case v.format == nil || err != nil || n < 1:
		return damaged("it is a file of bbolt's, but not a store of wxproxy's")
	case n > known:
		return fmt.Errorf("the store has format %d, this wxproxy knows format %s: it was written by a newer one", n, format)
	case !v.records:
		return damaged("the records are missing")
	}
	return nil
}
