package bolt

import (
	"container/heap"
	"math"
	"strings"
	"time"

	"wxproxy/tokens/store"
)

// queueState is what a process knows of its queue besides the file: which lanes
// have waiting entries, when they are due, and which of them are taken. It has
// no entries: its memory grows with the lanes, and by a number for each entry.
//
// It is read from the file when the file is opened, and follows each commit.
type queueState struct {
	lanes    map[string]*queueLane
	services map[string]*queueService
}

// queueLane is a lane that has waiting entries or is taken.
type queueLane struct {
	name    string // see laneOf
	service *queueService
	head    uint64 // no waiting entry has a smaller number
	waiting int    // entries

	due     time.Time // end of the pause, or of the lease
	triedAt time.Time // when a try failed last in this process
	lease   uint64    // number of the reservation; 0 if the lane is not taken
	taken   uint64    // number of the entry that was taken last
	index   int       // in the heap of its service
}

// queueService is the part of a queue for one service.
type queueService struct {
	name          string
	due           laneHeap
	waiting, dead int
	bytes         int64
	// created counts the waiting entries by Created, in Unix milliseconds.
	created map[int64]int
	oldest  int64 // the smallest key of created; searched for if it is not there
}

// laneHeap has the lane that is due first at its beginning, so that Take looks
// at no lane that is paused or taken, however many there are.
type laneHeap []*queueLane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

// Swap implements [heap.Interface].
func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements [heap.Interface].
func (h *laneHeap) Push(x any) {
	l := x.(*queueLane)
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop implements [heap.Interface].
func (h *laneHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}

func newQueueState() *queueState {
	return &queueState{lanes: map[string]*queueLane{}, services: map[string]*queueService{}}
}

// service returns the state of a service, which it creates if there is none.
func (q *queueState) service(name string) *queueService {
	s := q.services[name]
	if s == nil {
		s = &queueService{name: name, created: map[int64]int{}, oldest: math.MaxInt64}
		q.services[name] = s
	}
	return s
}

// lane returns a lane by its name. A new one is due at due.
func (q *queueState) lane(name string, due time.Time) *queueLane {
	l := q.lanes[name]
	if l == nil {
		service, _, _ := strings.Cut(name, "/")
		l = &queueLane{name: name, service: q.service(service), head: math.MaxUint64, due: due}
		q.lanes[name] = l
		heap.Push(&l.service.due, l)
	}
	return l
}

// count adds n to the numbers of entries like e.
func (q *queueState) count(e *queued, n int) {
	s := q.service(e.Service)
	s.bytes += int64(n * e.size)
	if e.Dead {
		s.dead += n
		return
	}
	s.waiting += n
	created := e.Created.UnixMilli()
	if s.created[created] += n; s.created[created] <= 0 {
		delete(s.created, created)
		return
	}
	s.oldest = min(s.oldest, created)
}

// add counts an entry that the file has from now on. If it is waiting, its lane
// is due at due unless the state has the lane.
func (q *queueState) add(e *queued, due time.Time) {
	q.count(e, 1)
	if !e.Dead {
		l := q.lane(laneOf(e.QueueKey), due)
		l.waiting++
		l.head = min(l.head, e.seq)
	}
}

// remove is the opposite of add.
func (q *queueState) remove(e *queued) {
	q.leave(e)
	q.forget(e)
}

// replace counts an entry that has changed.
func (q *queueState) replace(before, after *queued, now time.Time) {
	q.leave(before)
	q.add(after, now)
	q.forget(before)
}

// leave is remove, but forgets nothing.
func (q *queueState) leave(e *queued) {
	q.count(e, -1)
	if l := q.lanes[laneOf(e.QueueKey)]; l != nil && !e.Dead {
		l.waiting--
	}
}

// forget forgets the lane and the service of an entry if they are empty.
func (q *queueState) forget(e *queued) {
	if l := q.lanes[laneOf(e.QueueKey)]; l != nil {
		q.forgetEmpty(l)
	}
	if s := q.services[e.Service]; s != nil {
		q.forgetService(s)
	}
}

// forgetService forgets a service without entries and lanes.
func (q *queueState) forgetService(s *queueService) {
	if s.waiting <= 0 && s.dead <= 0 && len(s.due) == 0 {
		delete(q.services, s.name)
	}
}

// forgetEmpty forgets a lane without waiting entries that is not taken.
func (q *queueState) forgetEmpty(l *queueLane) {
	if l.waiting > 0 || l.lease != 0 || q.lanes[l.name] != l {
		return
	}
	delete(q.lanes, l.name)
	heap.Remove(&l.service.due, l.index)
	q.forgetService(l.service)
}

// setDue changes when a lane is due.
func (l *queueLane) setDue(t time.Time) {
	l.due = t
	heap.Fix(&l.service.due, l.index)
}

// advance makes a lane due at t, if that is earlier and it is not taken.
func (l *queueLane) advance(t time.Time) {
	if l.lease == 0 && t.Before(l.due) {
		l.setDue(t)
	}
}

// hasten makes a lane due for an entry that was added: now, or MinQueuePause
// after its last try has failed.
func (l *queueLane) hasten(now time.Time) {
	if end := l.triedAt.Add(store.MinQueuePause); end.After(now) {
		now = end
	}
	l.advance(now)
}

// size returns the size of the queue of the service.
func (s *queueService) size() store.QueueSize {
	size := store.QueueSize{Waiting: s.waiting, Dead: s.dead, Bytes: s.bytes}
	if s.waiting <= 0 {
		s.oldest = math.MaxInt64
		return size
	}
	if s.created[s.oldest] == 0 {
		// It was removed since the last call. A search in 100,000 numbers takes
		// about a millisecond.
		s.oldest = math.MaxInt64
		for created := range s.created {
			s.oldest = min(s.oldest, created)
		}
	}
	size.Oldest = time.UnixMilli(s.oldest).UTC()
	return size
}
