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

// verifyFile checks the file of a store before bbolt opens it for writing.
//
// bbolt trusts what it reads, and reads the file as memory: a page number that
// a damaged disk made up crashes the process, perhaps during a renewal. bbolt's
// own check does not help, because it runs in a goroutine that catchFaults
// cannot guard. This one only reads, page by page, and trusts no number in it.
//
// Errors wrap [store.ErrCorrupt], except those of reading and of a newer
// format. A damaged page that is not in use is not an error, and neither is a
// record with a wrong checksum: the structure around it is intact.
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
	m, err := readMeta(f, size)
	if err != nil {
		return err
	}
	if m.pages < 4 || m.pages > uint64(size)/m.pageSize {
		return corrupt("the file is truncated: it has %d bytes for %d pages of %d bytes", size, m.pages, m.pageSize)
	}
	v := &verifier{
		ctx: ctx, file: f,
		pageSize: m.pageSize, pages: m.pages, used: make([]uint64, m.pages/64+1),
	}
	v.markUsed(0)
	v.markUsed(1)
	free, err := v.freelist(m.freelist)
	if err != nil {
		return err
	}
	if err := v.tree(m.root, 0, nil, nil, v.bucket); err != nil {
		return err
	}
	for _, id := range free {
		// bbolt would hand such a page to two writers.
		if !v.markUsed(id) {
			return corrupt("page %d is both free and in use", id)
		}
	}
	for id := range v.pages {
		// Such a page may hold lost records.
		if v.markUsed(id) {
			return corrupt("page %d is neither free nor in use", id)
		}
	}
	return v.checkFormat()
}

// verifier holds what was seen of one file.
type verifier struct {
	ctx      context.Context
	file     io.ReaderAt
	pageSize uint64
	pages    uint64   // number of pages in the file
	used     []uint64 // a bit for each page, set when it was seen; none may be seen twice
	buffers  [][]byte // one for each depth of the tree

	format     []byte // value of formatKey; nil if it was not found
	hasRecords bool   // the bucket for records exists
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", store.ErrCorrupt, fmt.Sprintf(format, args...))
}

// markUsed marks a page as used. It reports false if the page was marked before
// or does not exist.
func (v *verifier) markUsed(id uint64) bool {
	if id >= v.pages || v.used[id/64]&(1<<(id%64)) != 0 {
		return false
	}
	v.used[id/64] |= 1 << (id % 64)
	return true
}

// read returns page id with its overflow pages, and marks them as used. The
// result is valid until the next read at the same depth.
func (v *verifier) read(id uint64, depth int) (pageBytes, error) {
	if err := v.ctx.Err(); err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, corrupt("page %d is too deep in the tree", id)
	}
	if !v.markUsed(id) {
		return nil, corrupt("page %d is used twice or beyond the end of the file", id)
	}
	if depth == len(v.buffers) {
		v.buffers = append(v.buffers, make([]byte, v.pageSize))
	}
	p := pageBytes(v.buffers[depth][:v.pageSize])
	if err := v.readAt(p, id); err != nil {
		return nil, err
	}
	if p.id() != id {
		return nil, corrupt("page %d has the number %d", id, p.id())
	}
	overflow := p.overflow()
	for i := uint64(1); i <= overflow; i++ {
		if !v.markUsed(id + i) {
			return nil, corrupt("page %d overlaps page %d", id, id+i)
		}
	}
	// Only now the size is known to be no larger than the file.
	if overflow > 0 {
		p = make([]byte, (1+overflow)*v.pageSize)
		v.buffers[depth] = p
		if err := v.readAt(p, id); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// readAt fills p with the file's content from page id on.
func (v *verifier) readAt(p pageBytes, id uint64) error {
	_, err := v.file.ReadAt(p, int64(id*v.pageSize))
	if err == io.EOF {
		return corrupt("page %d is truncated", id)
	}
	return err
}

// freelist returns the numbers of the free pages.
func (v *verifier) freelist(id uint64) ([]uint64, error) {
	p, err := v.read(id, 0)
	if err != nil {
		return nil, err
	}
	if p.kind() != freelistPage {
		return nil, corrupt("page %d is not a list of free pages", id)
	}
	list, n := p[pageHeader:], uint64(p.count())
	if n == 0xFFFF { // the count did not fit into 16 bits and precedes the list
		n, list = byteOrder.Uint64(list), list[8:]
	}
	if n > uint64(len(list))/8 {
		return nil, corrupt("the list of free pages is longer than its page")
	}
	free := make([]uint64, n)
	for i := range free {
		free[i] = byteOrder.Uint64(list[8*i:])
	}
	return free, nil
}

// bucket visits the entries of the root: the buckets of this package, and
// others that this version does not use.
func (v *verifier) bucket(name, value []byte, isBucket bool, depth int) error {
	if !isBucket {
		return corrupt("%q is not a bucket", name)
	}
	visit := func([]byte, []byte, bool, int) error { return nil }
	switch {
	case bytes.Equal(name, metaBucket):
		visit = v.metaEntry
	case bytes.Equal(name, recordsBucket):
		v.hasRecords = true
		visit = v.recordEntry
	case bytes.Equal(name, queueEntriesBucket), bytes.Equal(name, queuePayloadsBucket),
		bytes.Equal(name, queueIDsBucket), bytes.Equal(name, claimsBucket),
		bytes.Equal(name, claimEndsBucket):
		visit = v.recordEntry
	}
	if len(value) < bucketHeader {
		return corrupt("bucket %q is truncated", name)
	}
	if root := byteOrder.Uint64(value); root != 0 {
		return v.tree(root, depth+1, nil, nil, visit)
	}
	inline := pageBytes(value[bucketHeader:])
	if len(inline) < pageHeader || inline.kind() != leafPage || inline.count() == 0 && len(inline) > pageHeader {
		return corrupt("bucket %q is truncated", name)
	}
	return v.node(inline, 0, depth, nil, nil, visit)
}

// metaEntry visits an entry of the bucket meta.
func (v *verifier) metaEntry(key, value []byte, _ bool, _ int) error {
	if bytes.Equal(key, formatKey) {
		v.format = bytes.Clone(value)
	}
	return nil
}

// recordEntry visits a record, a claim, or a part of the queue. Its checksum is
// verified when it is read: a damaged one must not keep the others from being
// used.
func (v *verifier) recordEntry(key, _ []byte, isBucket bool, _ int) error {
	if isBucket {
		return corrupt("%q is a bucket, not an entry of one", key)
	}
	return nil
}

// checkFormat reports whether an intact bbolt file is a store of this format.
func (v *verifier) checkFormat() error {
	known, _ := strconv.Atoi(format)
	switch n, err := strconv.Atoi(string(v.format)); {
	case v.format == nil || err != nil || n < 1:
		return corrupt("it is a bbolt file, but not a wxproxy store")
	case n > known:
		return fmt.Errorf("unknown store format %d, this wxproxy knows format %s: "+
			"a newer wxproxy wrote it", n, format)
	case !v.hasRecords:
		return corrupt("the bucket for records is missing")
	}
	return nil
}
