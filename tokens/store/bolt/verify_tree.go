package bolt

import "bytes"

// visitor is called with the entries of the leaves, in the order of their keys.
type visitor func(key, value []byte, isBucket bool, depth int) error

// tree verifies the pages below id. All keys must be at least low and less than
// high; nil means no bound.
func (v *verifier) tree(id uint64, depth int, low, high []byte, visit visitor) error {
	p, err := v.read(id, depth)
	if err != nil {
		return err
	}
	return v.node(p, id, depth, low, high, visit)
}

// node verifies one page and the pages below it. id is 0 for the page of an
// inline bucket, which bbolt keeps inside a value.
func (v *verifier) node(p pageBytes, id uint64, depth int, low, high []byte, visit visitor) error {
	if err := checkHeader(p, id); err != nil {
		return err
	}
	count := p.count()
	var previous []byte
	start := uint64(pageHeader + elementSize*count)
	for i := range count {
		e, ok := p.element(i, start)
		if !ok {
			return corrupt("page %d: entry %d is outside the page", id, i)
		}
		if !inOrder(e.key, previous, low, high) {
			return corrupt("page %d: the keys are out of order", id)
		}
		previous, start = e.key, e.end
		var err error
		if p.kind() == leafPage {
			err = visitLeaf(e, id, depth, visit)
		} else {
			err = v.branch(p, i, e, id, depth, high, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkHeader checks kind and count of a page of the tree.
func checkHeader(p pageBytes, id uint64) error {
	count := p.count()
	switch {
	case p.kind() != leafPage && p.kind() != branchPage:
		return corrupt("page %d is not part of a tree", id)
	case count == 0 && id != 0: // bbolt keeps an empty bucket inline
		return corrupt("page %d is empty", id)
	case uint64(count) > uint64(len(p)-pageHeader)/elementSize:
		return corrupt("page %d: %d entries do not fit", id, count)
	}
	return nil
}

// inOrder reports whether key is greater than previous (nil before the first
// key), at least low, and less than high (nil: no bound).
func inOrder(key, previous, low, high []byte) bool {
	if previous != nil && bytes.Compare(key, previous) <= 0 {
		return false
	}
	return bytes.Compare(key, low) >= 0 && (high == nil || bytes.Compare(key, high) < 0)
}

func visitLeaf(e element, id uint64, depth int, visit visitor) error {
	if e.flags > bucketFlag {
		return corrupt("page %d: unknown entry flags %#x", id, e.flags)
	}
	return visit(e.key, e.value, e.flags == bucketFlag, depth)
}

// branch verifies the subtree of entry i of the branch page p. Its keys must be
// less than the key of the next entry, or than high after the last entry.
func (v *verifier) branch(
	p pageBytes, i int, e element, id uint64, depth int, high []byte, visit visitor,
) error {
	if i+1 < p.count() {
		next, ok := p.element(i+1, e.end)
		if !ok {
			return corrupt("page %d: entry %d is outside the page", id, i+1)
		}
		high = next.key
	}
	return v.tree(e.child, depth+1, e.key, high, visit)
}
