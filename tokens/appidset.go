package tokens

import (
	"hash/maphash"
	"slices"
)

// appidSet holds which of millions of appids were added, in 4 to 5 bytes for
// each. With ten million appids it answers with a false yes once in 100,000
// questions. Sets have different seeds, so the next one answers otherwise. The
// zero value is unusable. It is not safe for concurrent use.
type appidSet struct {
	seed maphash.Seed
	// hashes has the second to the fifth byte of each hash, by its first byte.
	// So it grows piece by piece, without a copy of the whole.
	hashes [256][]uint32
}

func newAppIDSet() *appidSet { return &appidSet{seed: maphash.MakeSeed()} }

func (s *appidSet) hash(appid string) (part uint8, rest uint32) {
	h := maphash.String(s.seed, appid)
	return uint8(h >> 56), uint32(h >> 24)
}

// add adds an appid, which may be in the set already. It must not follow sort.
func (s *appidSet) add(appid string) {
	part, rest := s.hash(appid)
	s.hashes[part] = append(s.hashes[part], rest)
}

// sort makes the set ready for has, and returns how many appids it holds.
func (s *appidSet) sort() (n int) {
	for i := range s.hashes {
		slices.Sort(s.hashes[i])
		s.hashes[i] = slices.Compact(s.hashes[i])
		n += len(s.hashes[i])
	}
	return n
}

// has reports whether appid was added.
func (s *appidSet) has(appid string) bool {
	part, rest := s.hash(appid)
	_, ok := slices.BinarySearch(s.hashes[part], rest)
	return ok
}
