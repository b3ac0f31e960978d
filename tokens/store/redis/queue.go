package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"wxproxy/tokens/store"
)

// queue is the queue of a Store. queue_scripts.go documents its keys in Redis.
type queue struct {
	s        *Store
	prefixes [bucketCount]string // of the keys of the queue in each bucket
}

var _ store.Queuer = (*Store)(nil)

// Queue implements [store.Queuer].
func (s *Store) Queue() store.Queue { return s.queue }

func newQueue(s *Store, prefix string) *queue {
	q := &queue{s: s}
	for i := range q.prefixes {
		q.prefixes[i] = fmt.Sprintf("%s:{%02x}:queue:", prefix, i)
	}
	return q
}

// of returns the prefix of the bucket that holds the entries of an account.
func (q *queue) of(appid string) string { return q.prefixes[bucketOf(appid)] }

// run runs a script in the bucket of an account.
func (q *queue) run(
	ctx context.Context, script *goredis.Script, appid string, args ...any,
) *goredis.Cmd {
	return script.Run(ctx, q.s.client, []string{q.of(appid)}, args...)
}

// runKey runs a script for an entry, and returns the number that it returns.
func (q *queue) runKey(
	ctx context.Context, script *goredis.Script, k store.QueueKey, args ...any,
) (int, error) {
	if err := q.s.usable(ctx); err != nil {
		return 0, err
	}
	if !k.IsValid() {
		return 0, nil
	}
	n, err := q.run(ctx, script, k.AppID, append([]any{k.Service, k.AppID, k.ID}, args...)...).Int()
	return n, q.s.convertError(ctx, err)
}

// call is a script to run in one bucket.
type call struct {
	bucket int
	args   []any
}

// runAll runs a script for each of calls, in one pipeline. replies has nil for
// those that failed; err is the error of one of them.
func (q *queue) runAll(
	ctx context.Context, script *goredis.Script, calls []call,
) (replies [][]any, err error) {
	replies = make([][]any, len(calls))
	left := make([]int, len(calls))
	for i := range calls {
		left[i] = i
	}
	// A server that does not know the script gets its text.
	for _, run := range []func(context.Context, goredis.Scripter, []string, ...any) *goredis.Cmd{
		script.EvalSha, script.Eval,
	} {
		cmds := make([]*goredis.Cmd, len(calls))
		_, pipeErr := q.s.client.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, i := range left {
				cmds[i] = run(ctx, p, []string{q.prefixes[calls[i].bucket]}, calls[i].args...)
			}
			return nil
		})
		unknown := left[:0]
		for _, i := range left {
			reply, cmdErr := cmds[i].Slice()
			switch {
			case cmdErr == nil:
				replies[i] = reply
				if reply == nil {
					replies[i] = []any{}
				}
			case goredis.HasErrorPrefix(cmdErr, "NOSCRIPT"):
				unknown = append(unknown, i)
			default:
				err = cmdErr
			}
			pipeErr = nil // it is the error of a command
		}
		if pipeErr != nil {
			err = pipeErr
		}
		if left = unknown; len(left) == 0 {
			break
		}
	}
	return replies, q.s.convertError(ctx, err)
}

// everywhere returns a call with these arguments for each bucket.
func everywhere(args ...any) []call {
	calls := make([]call, bucketCount)
	for i := range calls {
		calls[i] = call{i, args}
	}
	return calls
}

// Add implements [store.Queue]. All is in one script.
func (q *queue) Add(
	ctx context.Context, known time.Duration, entries ...store.QueueEntry,
) (added int, err error) {
	if err := q.s.usable(ctx); err != nil {
		return 0, err
	}
	if err := store.CheckQueueEntries(true, entries); err != nil || len(entries) == 0 {
		return 0, err
	}
	appid := entries[0].AppID
	args := []any{
		max(known, 0).Milliseconds(), rand.Text()[:16], store.MinQueuePause.Milliseconds(), appid,
	}
	seen := map[store.QueueKey]bool{}
	for _, e := range entries {
		if !seen[e.QueueKey] {
			seen[e.QueueKey] = true
			args = append(args, e.Service, e.ID, e.Created.UnixMilli(), e.Payload)
		}
	}
	added, err = q.run(ctx, addScript, appid, args...).Int()
	return added, q.s.convertError(ctx, err)
}

// Settle implements [store.Queue].
func (q *queue) Settle(ctx context.Context, t store.TakenEntry, o store.QueueOutcome) error {
	o = o.Cut()
	_, err := q.runKey(ctx, settleScript, t.QueueKey,
		t.Lease, int(o.Result), o.Pause.Milliseconds(), o.Error)
	return err
}

// wakeBatch is how many lanes one script wakes at most.
const wakeBatch = 1000

// Wake implements [store.Queue]. Each script wakes a batch, so that it does not
// block Redis for long.
func (q *queue) Wake(ctx context.Context, service string) error {
	if err := q.s.usable(ctx); err != nil {
		return err
	}
	calls := everywhere(service, 0, wakeBatch)
	for len(calls) > 0 {
		replies, err := q.runAll(ctx, wakeScript, calls)
		if err != nil {
			return err
		}
		var more []call
		for i, c := range calls {
			n, taken := number(replies[i], 0), number(replies[i], 1)
			if n == wakeBatch {
				c.args = []any{service, c.args[1].(int) + int(taken), wakeBatch}
				more = append(more, c)
			}
		}
		calls = more
	}
	return nil
}

// Revive implements [store.Queue].
func (q *queue) Revive(ctx context.Context, key store.QueueKey) error {
	return found(q.runKey(ctx, reviveScript, key))
}

// Expire implements [store.Queue].
func (q *queue) Expire(ctx context.Context, key store.QueueKey, reason string) error {
	return found(q.runKey(ctx, expireScript, key, store.QueueOutcome{Error: reason}.Cut().Error))
}

// Drop implements [store.Queue].
func (q *queue) Drop(ctx context.Context, key store.QueueKey) error {
	return found(q.runKey(ctx, dropScript, key, rand.Text()[:16]))
}

// found returns [store.ErrNotFound] if a script has returned 0.
func found(n int, err error) error {
	if err == nil && n == 0 {
		return store.ErrNotFound
	}
	return err
}

// Replace implements [store.Queue].
func (q *queue) Replace(ctx context.Context, key store.QueueKey, old, payload []byte) error {
	_, err := q.runKey(ctx, replaceScript, key, old, payload)
	return err
}

// number returns an integer of a reply of a script, or 0.
func number(reply []any, i int) int64 {
	if i >= len(reply) {
		return 0
	}
	switch v := reply[i].(type) {
	case int64:
		return v
	case string:
		n, _ := strconv.ParseFloat(v, 64)
		return int64(n)
	}
	return 0
}

// text returns a string of a reply of a script, or "".
func text(reply []any, i int) string {
	if i >= len(reply) {
		return ""
	}
	s, _ := reply[i].(string)
	return s
}

// millis returns a Unix time in milliseconds as a time. 0 is the zero time.
func millis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// parseEntry parses what describe in the scripts returns.
func parseEntry(reply any) store.QueueEntry {
	r, _ := reply.([]any)
	e := store.QueueEntry{
		QueueKey: store.QueueKey{Service: text(r, 0), AppID: text(r, 1), ID: text(r, 2)},
		Created:  time.UnixMilli(number(r, 4)), Since: time.UnixMilli(number(r, 5)),
		Attempts: int(number(r, 6)), Dead: number(r, 7) == 1, Error: text(r, 8),
		Next: millis(number(r, 9)),
	}
	if len(r) > 3 && r[3] != nil {
		e.Payload = []byte(text(r, 3))
	}
	return e
}
