package tokens

import (
	"fmt"
	"testing"
	"unsafe"
)

// The set of listed appids finds each of 300,000, counts those that were added
// twice once, says no to nearly all others, and takes less than 8 bytes for
// each.
func TestAppIDSet(t *testing.T) {
	const n = 300_000
	name := func(i int) string { return fmt.Sprintf("wx%016x", i) }
	s := newAppIDSet()
	for i := range n {
		s.add(name(i))
	}
	// The heap also has what other tests of the package still hold.
	size := int(unsafe.Sizeof(*s))
	for _, part := range s.hashes {
		size += cap(part) * int(unsafe.Sizeof(part[0]))
	}
	if perAppID := float64(size) / n; perAppID > 8 {
		t.Errorf("memory: got %.1f bytes for each appid, want 8 at most", perAppID)
	}
	for i := range n / 10 {
		s.add(name(i))
	}
	if got := s.sort(); got < n-10 || got > n {
		t.Errorf("got %d appids, want %d", got, n)
	}
	wrong := 0
	for i := range n {
		if !s.has(name(i)) {
			t.Fatalf("%s is missing", name(i))
		}
		if s.has(name(n + i)) {
			wrong++
		}
	}
	if wrong > 10 {
		t.Errorf("got %d of %d other appids, want hardly any", wrong, n)
	}
}

// A walk through a list that changes meanwhile reads each account that stays,
// wherever it begins: pages of 1 to 500 accounts, lists of 0 to 2000, up to 8
// accounts that leave or join at any place before each page.
func TestListWalk(t *testing.T) {
	for _, pageSize := range []int{1, 7, 11, 100, 500} {
		for _, length := range []int{0, 1, 10, 499, 500, 501, 2000} {
			for _, start := range []int{0, 1, 600, 5000} {
				for change := -8; change <= 8; change += 4 {
					checkWalk(t, pageSize, length, start, change)
				}
			}
		}
	}
}

// checkWalk walks through accounts that are numbers. Before each page, -change
// odd ones leave at the beginning, or change others join there.
func checkWalk(t *testing.T, pageSize, length, start, change int) {
	t.Helper()
	var list []int
	for i := range length {
		list = append(list, i)
	}
	if pageSize < 20 && change < 0 {
		return // pages that overlap by half cannot make up for that
	}
	read := map[int]bool{}
	var w listWalk
	w.begin(start)
	pages := 0
	for isDone := false; !isDone; pages++ {
		if pages > 10*(length+10) {
			t.Fatalf("pages of %d, %d accounts from %d, change %d: no end",
				pageSize, length, start, change)
		}
		page := list[min(w.offset, len(list)):min(w.offset+pageSize, len(list))]
		for _, a := range page {
			read[a] = true
		}
		isDone = w.advance(len(page), len(list))
		if pages < 3 && w.offset > 0 {
			if change > 0 {
				for i := range change {
					list = append([]int{-1 - pages*100 - i}, list...)
				}
			} else {
				list = list[min(-change, len(list)):]
			}
		}
	}
	for _, a := range list {
		if a >= 0 && !read[a] {
			t.Fatalf("pages of %d, %d accounts from %d, change %d: account %d was not read",
				pageSize, length, start, change, a)
		}
	}
}
