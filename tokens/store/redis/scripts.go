package redis

import (
	"fmt"
	"hash/fnv"

	goredis "github.com/redis/go-redis/v9"
)

// Everything lies in 16 buckets. What is in braces decides in a cluster where a key lies, so each bucket is whole on one
// server, where a script can work on it, and a cluster shares the buckets out.
//
//	wxproxy:{0a}:records    hash        key of the record → record
//	wxproxy:{0a}:names      sorted set  the same keys, all with score 0: in order of their bytes
//	wxproxy:{0a}:changes    sorted set  key → number of its newest change; the newest 4,000 keys
//	wxproxy:{0a}:head       hash        n: number of the newest change; id: random, from the bucket's first change
//	wxproxy:{0a}:lock:KEY   string      who holds the lock of KEY; ends with its lease
//	wxproxy:{0a}:want:KEY   string      there while another process waits for that lock
//	wxproxy:{0a}:ping       string      written to see whether writing works; ends after a minute
//	wxproxy:{00}:format     string      format of all this
const buckets = 16

// format is the version of what stands above.
const format = 1

// logged is how many keys the list of a bucket's changes holds.
const logged = 4000

// names are the keys of Redis that belong to a bucket.
type names struct{ records, names, changes, head, lock, want, ping string }

func bucket(prefix string, i int) names {
	p := fmt.Sprintf("%s:{%02x}:", prefix, i)
	return names{records: p + "records", names: p + "names", changes: p + "changes", head: p + "head", lock: p + "lock:", want: p + "want:", ping: p + "ping"}
}

func formatKey(prefix string) string { return prefix + ":{00}:format" }

// bucketOf spreads keys evenly; it is part of the format.
func bucketOf(key string) int {
	h := fnv.New32a()
	h.Write([]byte(key))
	return int(h.Sum32() % buckets)
}

// take locks a key for ARGV[1] (a random owner) and reads the record. It answers with {record}, or with the
// milliseconds that the lease of another still has, and leaves word that it waits. Sent twice, it finds the lock to be the
// owner's already.
var take = goredis.NewScript(`
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

// extend begins the lease anew; 0: the lock is not the owner's any more.
var extend = goredis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
`)

// release unlocks, if the lock is still the owner's; 2: another process waits for it.
var release = goredis.NewScript(`
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  return 1 + redis.call('EXISTS', KEYS[2])
end
return 0
`)

// save writes the record (an empty one: deletes it), notes the change and unlocks; 0: the lock was lost, nothing was done; 2:
// another process waits for it.
//
// A lock that is nobody's counts as ours while the record is the one that was read (ARGV[4] is its SHA-1, "" where there
// was none): nobody has come between, and what is to be saved exists once. That is so after a Redis that was away for
// longer than the lease, and after a failover that has lost the lock.
//
// Sent twice because the answer was lost, it finds its own record.
var save = goredis.NewScript(`
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
    redis.call('HSET', head, 'id', owner)
  end
  redis.call('ZADD', changes, n, key)
  redis.call('ZREMRANGEBYRANK', changes, 0, -1 - logged)
end
if holder == owner then
  redis.call('DEL', lock)
end
return 1 + redis.call('EXISTS', want)
`)

// page gives {keys, records}: as many as ARGV[3] in the range of keys.
const page = `
local keys = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
if #keys == 0 then
  return {{}, {}}
end
return {keys, redis.call('HMGET', KEYS[2], unpack(keys))}
`

// news gives {id, n, everything, keys}: which keys have changed since change ARGV[2] of the log ARGV[1]. everything is 1
// where that cannot be told: another log (Redis was emptied), one that has gone backwards, or one that does not reach back so
// far. An empty ARGV[1] is the log of a bucket that was empty.
const news = `
local changes, head = KEYS[1], KEYS[2]
local id, since, logged = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local is = redis.call('HMGET', head, 'id', 'n')
local now, n = is[1] or '', is[2] or '0'
if now == id and tonumber(n) == since then
  return {now, n, 0, {}}
end
if (id ~= '' and now ~= id) or tonumber(n) < since then
  return {now, n, 1, {}}
end
if redis.call('ZCARD', changes) >= logged then
  local first = redis.call('ZRANGE', changes, 0, 0, 'WITHSCORES')
  if tonumber(first[2]) > since + 1 then
    return {now, n, 1, {}}
  end
end
return {now, n, 0, redis.call('ZRANGEBYSCORE', changes, '(' .. since, '+inf')}
`
