package redis

import (
	"fmt"
	"hash/fnv"

	goredis "github.com/redis/go-redis/v9"
)

// bucketCount is the number of buckets. In a cluster, the part of a key in
// braces decides on which node it is stored. So each bucket is on one node as a
// whole, where a script can change it atomically, and a cluster spreads the
// buckets over its nodes. These are the keys of one bucket:
//
//	wxproxy:{0a}:records    hash        key of the record → record
//	wxproxy:{0a}:names      sorted set  the same keys, all with score 0, so in byte order
//	wxproxy:{0a}:changes    sorted set  key → number of its last change, for the last 4,000 keys
//	wxproxy:{0a}:head       hash        n: number of the last change
//	                                    id: random; another one after records were lost
//	wxproxy:{0a}:lock:KEY   string      owner of the lock of KEY; expires with the lease
//	wxproxy:{0a}:want:KEY   string      exists while another process waits for that lock
//	wxproxy:{0a}:claim:KEY  string      random; expires with the claim
//	wxproxy:{0a}:ping       string      written by Ping; expires after a minute
//	wxproxy:{00}:format     string      version of this format, once for all buckets
const bucketCount = 16

// format is the version of the format above, including bucketOf. oldestFormat is
// the first version that can be read: it differs in the names of the records
// only, see package namespace.
const (
	format       = 2
	oldestFormat = 1
)

// changeLogSize is the maximum number of keys in the change log of a bucket. It
// is far more than one bucket changes between two polls.
const changeLogSize = 4000

// bucketKeys are the names of a bucket's keys in Redis. lock, want and claim
// are prefixes, to which the key of the record or the claim is appended.
type bucketKeys struct{ records, names, changes, head, lock, want, claim, ping string }

func newBucketKeys(prefix string, i int) bucketKeys {
	p := fmt.Sprintf("%s:{%02x}:", prefix, i)
	return bucketKeys{
		records: p + "records", names: p + "names", changes: p + "changes", head: p + "head",
		lock: p + "lock:", want: p + "want:", claim: p + "claim:", ping: p + "ping",
	}
}

func formatKey(prefix string) string { return prefix + ":{00}:format" }

// bucketOf returns the number of the bucket that holds a record. It spreads
// keys evenly. It is part of the format: changing it would hide all records.
func bucketOf(key string) int {
	h := fnv.New32a()
	h.Write([]byte(key))
	return int(h.Sum32() % bucketCount)
}

// acquireScript acquires a lock for a random owner and reads the record.
//
// It returns {record} if the owner holds the lock now. Otherwise it leaves a
// note that another process waits, and returns the milliseconds that are left
// of the other lease. Sent twice, it finds that the owner holds the lock
// already.
var acquireScript = goredis.NewScript(`
local lock, records, want = KEYS[1], KEYS[2], KEYS[3]
local owner, lease, key = ARGV[1], ARGV[2], ARGV[3]
if not redis.call('SET', lock, owner, 'NX', 'PX', lease) then
  if redis.call('GET', lock) ~= owner then
    redis.call('SET', want, 1, 'PX', 500)
    return redis.call('PTTL', lock)
  end
  redis.call('PEXPIRE', lock, lease)
end
redis.call('DEL', want)
return {redis.call('HGET', records, key)}
`)

// extendScript restarts the lease. It returns 0 if the owner does not hold the
// lock any more.
var extendScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
`)

// releaseScript releases the lock if the owner holds it. It returns 2 if
// another process waits for it, 1 if none does, and 0 if the owner did not hold
// it.
var releaseScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  return 1 + redis.call('EXISTS', KEYS[2])
end
return 0
`)

// saveScript saves the record (or deletes it, if the record is empty), appends
// the change to the log and releases the lock. It returns 2 if another process
// waits for the lock, 1 if none does, and 0 if the lock was lost and nothing
// was saved.
//
// A lock without an owner counts as held if the record is still the one that
// was read. ARGV[4] is its SHA-1, or "" if there was none. No other process has
// written in between, and WeChat issues the new record's refresh token only
// once. This happens after Redis was unreachable for longer than the lease, and
// after a failover that lost the lock.
//
// Sent twice because the reply was lost, it finds its own record and returns 1.
var saveScript = goredis.NewScript(`
local lock, records, names, changes, head, want = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local owner, key, record, read, logged = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local holder = redis.call('GET', lock)
local old = redis.call('HGET', records, key)
if holder ~= owner then
  if (old or '') == record then
    return 1
  end
  if holder or (old and redis.sha1hex(old) or '') ~= read then
    return 0
  end
end
if record ~= '' then
  redis.call('HSET', records, key, record)
  redis.call('ZADD', names, 0, key)
elseif old then
  redis.call('HDEL', records, key)
  redis.call('ZREM', names, key)
end
if old or record ~= '' then
  local n = redis.call('HINCRBY', head, 'n', 1)
  if n == 1 then
    redis.call('HSETNX', head, 'id', owner)
  end
  redis.call('ZADD', changes, n, key)
  redis.call('ZREMRANGEBYRANK', changes, 0, -1 - logged)
end
if holder == owner then
  redis.call('DEL', lock)
end
return 1 + redis.call('EXISTS', want)
`)

// copyScript saves a copy of a damaged record. It is not logged as a change:
// no process reads it.
var copyScript = goredis.NewScript(`
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('ZADD', KEYS[2], 0, ARGV[1])
`)

// claimScript returns 1 if the owner has claimed the key, and 0 if another one
// has. Sent twice because the reply was lost, it finds its own claim.
var claimScript = goredis.NewScript(`
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 1
end
return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0
`)

// upgradeScript writes the version of the format unless a newer one is stored.
var upgradeScript = goredis.NewScript(`
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1])
end
return 1
`)

// pageScript returns {keys, records}: at most ARGV[3] records in the range of
// keys from ARGV[1] to ARGV[2].
const pageScript = `
local keys = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
if #keys == 0 then
  return {{}, {}}
end
return {keys, redis.call('HMGET', KEYS[2], unpack(keys))}
`

// changesScript returns {id, n, all, keys}: the position of the change log, and
// the keys that have changed since change ARGV[2] of the log ARGV[1].
//
// A bucket without a log gets one with the id ARGV[4]: it is new, or it lost
// its records. A log that has gone backwards gets that id, too: a failover or a
// restart lost changes. So every process, also one that starts later, finds
// another id after a loss.
//
// all is 1 if the changed keys are unknown: the log has another id, or does not
// reach back that far.
const changesScript = `
local changes, head = KEYS[1], KEYS[2]
local id, since, logged, fresh = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local is = redis.call('HMGET', head, 'id', 'n')
local now, n = is[1] or '', is[2] or '0'
if now == '' or (now == id and tonumber(n) < since) then
  now = fresh
  redis.call('HSET', head, 'id', now)
end
if now ~= id then
  return {now, n, 1, {}}
end
if tonumber(n) == since then
  return {now, n, 0, {}}
end
if redis.call('ZCARD', changes) >= logged then
  local first = redis.call('ZRANGE', changes, 0, 0, 'WITHSCORES')
  if tonumber(first[2]) > since + 1 then
    return {now, n, 1, {}}
  end
end
return {now, n, 0, redis.call('ZRANGEBYSCORE', changes, '(' .. since, '+inf')}
`
