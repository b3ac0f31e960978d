package redis

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// setPage is how many entries of one set a List holds in memory.
const setPage = 500

// entrySet reads the waiting or the dead entries of a service in one bucket,
// oldest first, page by page. It goes on after the last score that it has read,
// because positions change when entries are removed.
type entrySet struct {
	key     string
	service string
	size    int // number of entries
	page    []goredis.Z
	last    float64 // score of the last entry that was read
	at      int64   // number of entries with that score that were read
	started bool
	done    bool // no entries follow the page
}

func newEntrySet(q *queue, s serviceSize, dead bool) *entrySet {
	kind, size := "waiting:", s.Waiting
	if dead {
		kind, size = "dead:", s.Dead
	}
	key := q.prefixes[s.bucket] + kind + s.service
	return &entrySet{key: key, service: s.service, size: size, done: size == 0}
}

// next returns the range of the next page.
func (s *entrySet) next() *goredis.ZRangeBy {
	low := "-inf"
	if s.started {
		low = strconv.FormatFloat(s.last, 'f', -1, 64)
	}
	return &goredis.ZRangeBy{Min: low, Max: "+inf", Offset: s.at, Count: setPage}
}

// add takes the entries of a page.
func (s *entrySet) add(page []goredis.Z) {
	s.page, s.done = page, len(page) < setPage
	for _, z := range page {
		if !s.started || z.Score != s.last {
			s.started, s.last, s.at = true, z.Score, 0
		}
		s.at++
	}
}

// newLaneSet returns the waiting entries of one lane, all in one page: the
// other entries of a service, of which there may be a million, are not read.
func newLaneSet(
	ctx context.Context, q *queue, s serviceSize, appid string,
) (*entrySet, error) {
	p, lane := q.prefixes[s.bucket], s.service+"/"+appid+"/"
	set := &entrySet{service: s.service, done: true}
	for low, more := "["+lane, true; more; {
		names, err := q.s.client.ZRangeByLex(ctx, p+"order", &goredis.ZRangeBy{
			Min: low, Max: upperBound(lane), Count: setPage,
		}).Result()
		if err != nil {
			return nil, q.s.convertError(ctx, err)
		}
		if len(names) == 0 {
			break
		}
		more, low = len(names) == setPage, "("+names[len(names)-1]
		for i := range names {
			names[i] = strings.TrimPrefix(names[i], s.service+"/")
		}
		created, err := q.s.client.ZMScore(ctx, p+"waiting:"+s.service, names...).Result()
		if err != nil {
			return nil, q.s.convertError(ctx, err)
		}
		for i, score := range created {
			set.page = append(set.page, goredis.Z{Score: score, Member: names[i]})
		}
	}
	slices.SortStableFunc(set.page, func(a, b goredis.Z) int {
		return cmp.Compare(a.Score, b.Score)
	})
	return set, nil
}

// merge merges sets.
type merge struct {
	q     *queue
	sets  []*entrySet
	appid string // "" for all accounts
}

// names returns how many entries there are, and the names of those from offset
// on, limit at most. With an account it reads the sets to their ends.
func (m *merge) names(
	ctx context.Context, offset, limit int,
) (total int, names []string, err error) {
	if m.appid == "" {
		for _, s := range m.sets {
			total += s.size
		}
		if limit <= 0 || offset >= total {
			return total, nil, nil
		}
	}
	for n := 0; m.appid != "" || len(names) < limit; n++ {
		name, err := m.next(ctx)
		if err != nil {
			return 0, nil, err
		}
		if name == "" {
			break
		}
		if m.appid != "" {
			total++
		}
		if n >= offset && len(names) < limit {
			names = append(names, name)
		}
	}
	return total, names, nil
}

// next returns the next name, or "".
func (m *merge) next(ctx context.Context) (string, error) {
	for {
		if err := m.fetch(ctx); err != nil {
			return "", err
		}
		var oldest *entrySet
		for _, s := range m.sets {
			if len(s.page) > 0 && (oldest == nil || s.page[0].Score < oldest.page[0].Score) {
				oldest = s
			}
		}
		if oldest == nil {
			return "", nil
		}
		member, _ := oldest.page[0].Member.(string)
		oldest.page = oldest.page[1:]
		if m.appid == "" || strings.HasPrefix(member, m.appid+"/") {
			return oldest.service + "/" + member, nil
		}
	}
}

// fetch reads the next page of each set whose page is used up, in one pipeline.
func (m *merge) fetch(ctx context.Context) error {
	var empty []*entrySet
	for _, s := range m.sets {
		if len(s.page) == 0 && !s.done {
			empty = append(empty, s)
		}
	}
	if len(empty) == 0 {
		return nil
	}
	cmds := make([]*goredis.ZSliceCmd, len(empty))
	_, err := m.q.s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
		for i, s := range empty {
			cmds[i] = p.ZRangeByScoreWithScores(ctx, s.key, s.next())
		}
		return nil
	})
	for i, s := range empty {
		page, cmdErr := cmds[i].Result()
		if cmdErr != nil {
			return m.q.s.convertError(ctx, cmdErr)
		}
		s.add(page)
	}
	return m.q.s.convertError(ctx, err)
}
