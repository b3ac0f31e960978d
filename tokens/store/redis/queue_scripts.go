package redis

import goredis "github.com/redis/go-redis/v9"

// The queue is in the same buckets as the records. The AppID of an entry
// decides on its bucket, so all entries of one event are in one. These are the
// keys of the queue in a bucket, below wxproxy:{0a}:queue: each. KEY is
// SERVICE/APPID/ID, and a lane is SERVICE/APPID. SEQ is the number of the entry
// in the bucket, with 14 digits. Times are Unix times in milliseconds.
//
//	items            hash        KEY → payload
//	events           hash        ID → what is known of its entries, see below
//	order            sorted set  SERVICE/APPID/SEQ/ID of waiting entries,
//	                             all with score 0: a lane is a range
//	waiting:SERVICE  sorted set  APPID/SEQ/ID of waiting entries → created
//	dead:SERVICE     sorted set  APPID/SEQ/ID of dead entries → created
//	due:SERVICE      sorted set  APPID of lanes that wait or are taken →
//	                             when it is due, or when its lease ends
//	lanes            hash        lane → "LEASE TRIED", if it is taken (LEASE
//	                             is not empty), or its last try failed (at
//	                             the time TRIED)
//	sizes            hash        SERVICE → bytes of its payloads, for all
//	                             services with entries or lanes
//	seq              string      the last SEQ
//	clock            string      expires at clockEnd
//	known:KEY        string      token of the Add that added KEY; expires
//	dropped:KEY      string      token of the Drop that removed KEY;
//	                             expires after a minute
//	rebuilding       string      the process that rebuilds all but items and
//	                             events; expires
//
// events has JSON: {lane: [SEQ, created, since, attempts, 1 if dead, error]}.
//
// KEYS[1] of each script is the part of these names before "items". The scripts
// form the others themselves: they have the same part in braces, so a cluster
// has them on the same node.
//
// The format has the same version as before the queue existed: processes that
// do not know the queue use none of these keys.

// queuePrelude begins each script of the queue.
//
// The time is that of Redis. It is read from the time that is left of a key:
// docs/redis.md does not let the user of wxproxy call TIME.
const queuePrelude = `
local p = KEYS[1]
local items, events, order = p .. 'items', p .. 'events', p .. 'order'
local lanes, sizes = p .. 'lanes', p .. 'sizes'

local clockEnd = 4102444800000
local left = redis.call('PTTL', p .. 'clock')
if left < 0 then
  redis.call('DEL', p .. 'clock') -- see takeScript
  redis.call('SET', p .. 'clock', 1, 'PXAT', clockEnd)
  left = redis.call('PTTL', p .. 'clock')
end
local now = clockEnd - left

-- read returns what is known of the entries of an event, by lane.
local function read(id)
  local raw = redis.call('HGET', events, id)
  return raw and cjson.decode(raw) or {}
end

local function write(id, all)
  if next(all) then
    redis.call('HSET', events, id, cjson.encode(all))
  else
    redis.call('HDEL', events, id)
  end
end

local function nextSeq()
  local n = redis.call('INCR', p .. 'seq')
  if n == 1 then -- higher than all before, also if the number was lost
    n = now
    redis.call('SET', p .. 'seq', string.format('%d', n))
  end
  return n
end

local function member(appid, id, e)
  return appid .. '/' .. string.format('%014d', e[1]) .. '/' .. id
end

-- enter adds an entry to the sets, and returns whether it was not there.
local function enter(service, appid, id, e, bytes)
  if redis.call('HEXISTS', sizes, service) == 0 then
    redis.call('UNLINK', p .. 'waiting:' .. service, p .. 'dead:' .. service,
      p .. 'due:' .. service)
    redis.call('HSET', sizes, service, 0)
  end
  local m, set = member(appid, id, e), e[5] == 1 and 'dead:' or 'waiting:'
  if redis.call('ZADD', p .. set .. service, e[2], m) == 1 then
    redis.call('HINCRBY', sizes, service, bytes)
  end
  if e[5] ~= 1 then
    redis.call('ZADD', order, 0, service .. '/' .. m)
  end
end

-- leave removes an entry from the sets.
local function leave(service, appid, id, e, bytes)
  local m = member(appid, id, e)
  redis.call('ZREM', order, service .. '/' .. m)
  local n = redis.call('ZREM', p .. 'waiting:' .. service, m)
  if n + redis.call('ZREM', p .. 'dead:' .. service, m) > 0 then
    redis.call('HINCRBY', sizes, service, 0 - bytes)
  end
end

-- tidy forgets a service that has neither entries nor lanes that are taken.
local function tidy(service)
  if redis.call('EXISTS', p .. 'waiting:' .. service, p .. 'dead:' .. service,
    p .. 'due:' .. service) == 0 then
    redis.call('HDEL', sizes, service)
  end
end

-- drop removes an entry, of which all is what is known of its event.
local function drop(service, appid, id, all)
  local lane = service .. '/' .. appid
  local key = lane .. '/' .. id
  if all[lane] then
    leave(service, appid, id, all[lane], redis.call('HSTRLEN', items, key))
    all[lane] = nil
    write(id, all)
  end
  redis.call('HDEL', items, key)
  tidy(service)
end

-- bury makes a waiting entry dead.
local function bury(service, appid, id, e)
  local bytes = redis.call('HSTRLEN', items, service .. '/' .. appid .. '/' .. id)
  leave(service, appid, id, e, bytes)
  e[5] = 1
  enter(service, appid, id, e, bytes)
end

-- first returns the member of the first waiting entry of a lane in order.
local function first(lane)
  return redis.call('ZRANGEBYLEX', order, '[' .. lane .. '/', '(' .. lane .. '0', 'LIMIT', 0, 1)[1]
end

-- state returns the lease of a lane, and when its last try failed.
local function state(lane)
  local lease, tried = string.match(redis.call('HGET', lanes, lane) or '', '^(%w*) (%d+)$')
  return lease or '', tonumber(tried or 0)
end

-- setDue makes a lane due, or forgets it if it has no waiting entries.
local function setDue(service, appid, due)
  local lane = service .. '/' .. appid
  if first(lane) then
    redis.call('ZADD', p .. 'due:' .. service, due, appid)
  else
    redis.call('ZREM', p .. 'due:' .. service, appid)
    redis.call('HDEL', lanes, lane)
    tidy(service)
  end
end

-- hasten makes a lane due after the pause min since its last try, unless it is
-- due earlier, or a process has taken it.
local function hasten(service, appid, min)
  local set = p .. 'due:' .. service
  local lease, tried = state(service .. '/' .. appid)
  local due = redis.call('ZSCORE', set, appid)
  if lease ~= '' and due then
    return
  end
  local at = now
  if tried <= now and tried + min > now then
    at = tried + min
  end
  if not due or tonumber(due) > at then
    redis.call('ZADD', set, at, appid)
  end
end

-- describe returns an entry for the caller, as parseEntry takes it.
local function describe(service, appid, id, e, withPayload)
  local lane, due = service .. '/' .. appid, 0
  if e[5] ~= 1 and first(lane) == service .. '/' .. member(appid, id, e) then
    due = tonumber(redis.call('ZSCORE', p .. 'due:' .. service, appid) or now)
  end
  local key = lane .. '/' .. id
  return {service, appid, id, withPayload and redis.call('HGET', items, key) or false,
    e[2], e[3], e[4], e[5], e[6], due}
end
`

func newQueueScript(body string) *goredis.Script { return goredis.NewScript(queuePrelude + body) }

// addScript adds entries and returns how many. Sent twice because the reply was
// lost, it counts those that it has added.
var addScript = newQueueScript(`
local known, token, min, appid = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local added = 0
for i = 5, #ARGV, 4 do
  local service, id, created, payload = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local lane = service .. '/' .. appid
  local key = lane .. '/' .. id
  local by = redis.call('GET', p .. 'known:' .. key)
  if by == token then
    added = added + 1
  elseif not by and redis.call('HEXISTS', items, key) == 0 then
    if known ~= '0' then
      redis.call('SET', p .. 'known:' .. key, token, 'PX', known)
    end
    local all = read(id)
    all[lane] = {nextSeq(), created, now, 0, 0, ''}
    redis.call('HSET', items, key, payload)
    write(id, all)
    enter(service, appid, id, all[lane], #payload)
    hasten(service, appid, min)
    added = added + 1
  end
end
return added
`)

// restoreScript adds entries that are not there, with all that is in them.
var restoreScript = newQueueScript(`
local min = tonumber(ARGV[1])
for i = 2, #ARGV, 9 do
  local service, appid, id, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 8]
  local lane = service .. '/' .. appid
  local key = lane .. '/' .. id
  if redis.call('HEXISTS', items, key) == 0 then
    local all = read(id)
    local e = {nextSeq()}
    for n = 3, 6 do
      e[n - 1] = tonumber(ARGV[i + n])
    end
    e[6] = ARGV[i + 7]
    all[lane] = e
    redis.call('HSET', items, key, payload)
    write(id, all)
    enter(service, appid, id, e, #payload)
    if e[5] ~= 1 then
      hasten(service, appid, min)
    end
  end
end
return 1
`)

// dueScript returns {APPID, time, …} for each of the services ARGV[2],
// ARGV[4]…: at most ARGV[3], ARGV[5]… lanes that are due. A time that is more
// than ARGV[1] ahead counts as now.
var dueScript = newQueueScript(`
local reply = {}
for i = 2, #ARGV, 2 do
  local set = p .. 'due:' .. ARGV[i]
  local due = redis.call('ZRANGEBYSCORE', set, '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[i + 1])
  local far = redis.call('ZRANGEBYSCORE', set, '(' .. now + ARGV[1], '+inf',
    'LIMIT', 0, ARGV[i + 1])
  for _, appid in ipairs(far) do
    due[#due + 1] = appid
    due[#due + 1] = tostring(now)
  end
  reply[#reply + 1] = due
end
return reply
`)

// takeScript takes the lanes ARGV[4], ARGV[5] (SERVICE, APPID), …, that are
// still due, for the lease ARGV[1], and returns their first entries. Sent twice
// because the reply was lost, it returns those that it has taken.
//
// It works in a Redis whose memory is full, and so does settleScript: Redis
// rejects the first command of a script that could need more memory, but no
// later ones. The DEL does nothing else.
//
// It stops when it has read 16 MiB. It skips entries that are in the sets only:
// a part of the bucket was lost.
var takeScript = newQueueScript(`
local token, lease, ahead = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- firstOf returns the first entry of a lane, or nil.
local function firstOf(lane, service, appid)
  for _ = 1, 100 do
    local m = first(lane)
    if not m then
      return nil
    end
    local id = string.match(m, '([^/]*)$')
    local all = read(id)
    local e = all[lane]
    if e and e[5] ~= 1 and redis.call('HEXISTS', items, lane .. '/' .. id) == 1 then
      return id, e
    end
    if e and e[5] ~= 1 then
      drop(service, appid, id, all)
    end
    redis.call('ZREM', order, m)
    redis.call('ZREM', p .. 'waiting:' .. service, string.sub(m, #service + 2))
  end
end

redis.call('DEL', p .. 'none')
local reply, bytes = {}, 0
for i = 4, #ARGV, 2 do
  local service, appid = ARGV[i], ARGV[i + 1]
  local lane = service .. '/' .. appid
  local due = tonumber(redis.call('ZSCORE', p .. 'due:' .. service, appid) or now)
  local owner, tried = state(lane)
  if bytes < 16777216 and (owner == token or due <= now or due > now + ahead) then
    local id, e = firstOf(lane, service, appid)
    if id then
      redis.call('HSET', lanes, lane, token .. ' ' .. tried)
      redis.call('ZADD', p .. 'due:' .. service, now + lease, appid)
      local d = describe(service, appid, id, e, true)
      bytes = bytes + #d[4]
      reply[#reply + 1] = d
    else
      setDue(service, appid, now)
    end
  end
end
return reply
`)

// settleScript settles the entry ARGV[1]/ARGV[2]/ARGV[3], if the lane still
// has the lease ARGV[4]. The result ARGV[5] is a [store.QueueResult]. Sent
// twice, it changes nothing more.
var settleScript = newQueueScript(`
redis.call('DEL', p .. 'none')
local service, appid, id, result = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local lane = service .. '/' .. appid
local all = read(id)
local owner = state(lane)
local isOwner = owner ~= '' and owner == ARGV[4]
if result == '1' then
  drop(service, appid, id, all)
elseif isOwner and all[lane] then
  local e = all[lane]
  e[4], e[6] = e[4] + 1, ARGV[7]
  if result == '3' then
    bury(service, appid, id, e)
  end
  write(id, all)
end
if isOwner then
  if result == '2' and all[lane] then
    redis.call('HSET', lanes, lane, ' ' .. string.format('%d', now))
    setDue(service, appid, now + ARGV[6])
  else
    redis.call('HDEL', lanes, lane)
    setDue(service, appid, now)
  end
elseif owner == '' and not first(lane) then
  setDue(service, appid, now)
end
return 1
`)

// wakeScript makes lanes of the service ARGV[1] due that are not yet. Of these
// it looks at ARGV[3] at most, and skips the first ARGV[2]. It returns how many
// it has looked at, and how many of them a process has taken.
var wakeScript = newQueueScript(`
local set = p .. 'due:' .. ARGV[1]
local ahead = redis.call('ZRANGEBYSCORE', set, '(' .. now, '+inf', 'LIMIT', ARGV[2], ARGV[3])
local taken = 0
for _, appid in ipairs(ahead) do
  if state(ARGV[1] .. '/' .. appid) == '' then
    redis.call('ZADD', set, now, appid)
  else
    taken = taken + 1
  end
end
return {#ahead, taken}
`)

// reviveScript makes the entry ARGV[1]/ARGV[2]/ARGV[3] due. It returns 0 if
// there is none.
var reviveScript = newQueueScript(`
local service, appid, id = ARGV[1], ARGV[2], ARGV[3]
local lane = service .. '/' .. appid
local all = read(id)
local e = all[lane]
local bytes = redis.call('HSTRLEN', items, lane .. '/' .. id)
if not e or redis.call('HEXISTS', items, lane .. '/' .. id) == 0 then
  return 0
end
if e[5] == 1 then
  leave(service, appid, id, e, bytes)
  e[5], e[3] = 0, now
end
enter(service, appid, id, e, bytes)
write(id, all)
hasten(service, appid, 0)
return 1
`)

// expireScript makes the entry ARGV[1]/ARGV[2]/ARGV[3] dead unless it is being
// delivered. It returns 0 if there is none.
var expireScript = newQueueScript(`
local service, appid, id = ARGV[1], ARGV[2], ARGV[3]
local lane = service .. '/' .. appid
local all = read(id)
local e = all[lane]
if not e then
  return 0
end
local due = tonumber(redis.call('ZSCORE', p .. 'due:' .. service, appid) or now)
local isFirst = first(lane) == service .. '/' .. member(appid, id, e)
if e[5] ~= 1 and (state(lane) == '' or due <= now or not isFirst) then
  bury(service, appid, id, e)
  e[6] = ARGV[4]
  write(id, all)
  if not first(lane) then
    setDue(service, appid, now)
  end
end
return 1
`)

// dropScript removes the entry ARGV[1]/ARGV[2]/ARGV[3]. It returns 0 if there
// is none. Sent twice, it finds the token of the first time. A lane that a
// process has taken stays taken.
var dropScript = newQueueScript(`
local service, appid, id, token = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local lane = service .. '/' .. appid
local key = lane .. '/' .. id
local all = read(id)
if not all[lane] and redis.call('HEXISTS', items, key) == 0 then
  return redis.call('GET', p .. 'dropped:' .. key) == token and 1 or 0
end
drop(service, appid, id, all)
redis.call('SET', p .. 'dropped:' .. key, token, 'PX', 60000)
if state(lane) == '' and not first(lane) then
  setDue(service, appid, now)
end
return 1
`)

// replaceScript replaces the payload of the entry ARGV[1]/ARGV[2]/ARGV[3] if it
// is ARGV[4].
var replaceScript = newQueueScript(`
local key = ARGV[1] .. '/' .. ARGV[2] .. '/' .. ARGV[3]
if redis.call('HGET', items, key) == ARGV[4] then
  redis.call('HSET', items, key, ARGV[5])
  redis.call('HINCRBY', sizes, ARGV[1], #ARGV[5] - #ARGV[4])
end
return 1
`)

// sizesScript returns {whole, {SERVICE, waiting, dead, bytes, oldest}, …}.
// oldest is "" if there is none. whole is 0 if a part of the bucket was lost,
// and no process rebuilds it.
var sizesScript = newQueueScript(`
-- isKnown reports whether something is known of a member of a set.
local function isKnown(service, m)
  local appid, id = string.match(m or '', '^([^/]*)/[^/]*/(.*)$')
  return not m or read(id)[service .. '/' .. appid] ~= nil
end

local all = redis.call('HGETALL', sizes)
local reply, waiting, dead, whole = {1}, 0, 0, true
for i = 1, #all, 2 do
  local service = all[i]
  local w = redis.call('ZCARD', p .. 'waiting:' .. service)
  local d = redis.call('ZCARD', p .. 'dead:' .. service)
  local oldest = redis.call('ZRANGE', p .. 'waiting:' .. service, 0, 0, 'WITHSCORES')
  local buried = redis.call('ZRANGE', p .. 'dead:' .. service, 0, 0)
  whole = whole and (w == 0 or redis.call('EXISTS', p .. 'due:' .. service) == 1) and
    isKnown(service, oldest[1]) and isKnown(service, buried[1])
  waiting, dead = waiting + w, dead + d
  reply[#reply + 1] = {service, w, d, tonumber(all[i + 1]), oldest[2] or ''}
end
whole = whole and waiting == redis.call('ZCARD', order) and
  waiting + dead == redis.call('HLEN', items)
if not whole and redis.call('EXISTS', p .. 'rebuilding') == 0 then
  reply[1] = 0
end
return reply
`)

// findScript returns the entries of the event ARGV[1], with their payloads.
var findScript = newQueueScript(`
local reply = {}
for lane, e in pairs(read(ARGV[1])) do
  local service, appid = string.match(lane, '^(.*)/(.*)$')
  reply[#reply + 1] = describe(service, appid, ARGV[1], e, true)
end
return reply
`)

// readScript returns the entries ARGV[2], ARGV[3]… (SERVICE/APPID/SEQ/ID)
// that there are, and how many of these names it has looked at. ARGV[1] is 1
// for entries with payloads; then it stops when it has read 4 MiB.
var readScript = newQueueScript(`
local reply, bytes = {}, 0
for i = 2, #ARGV do
  local service, appid, id = string.match(ARGV[i], '^([^/]*)/([^/]*)/[^/]*/(.*)$')
  local e = read(id)[service .. '/' .. appid]
  if e then
    local d = describe(service, appid, id, e, ARGV[1] == '1')
    bytes = bytes + (d[4] and #d[4] or 0)
    reply[#reply + 1] = d
  end
  if bytes > 4194304 then
    return {i - 1, reply}
  end
end
return {#ARGV - 1, reply}
`)

// rebuildScript enters some more entries into the sets, from the cursor ARGV[1]
// on. It returns the next one. From the cursor 0 on it empties them first, and
// returns "" if another process does the same.
//
// A lane that was taken is due when ARGV[3] has passed: the end of its lease
// was lost. An entry of which nothing is known is taken for a new one. ARGV[2]
// names the process.
var rebuildScript = newQueueScript(`
if ARGV[1] == '0' then
  if not redis.call('SET', p .. 'rebuilding', ARGV[2], 'NX', 'PX', 10000) and
    redis.call('GET', p .. 'rebuilding') ~= ARGV[2] then
    return ''
  end
  redis.call('UNLINK', order, sizes)
end
redis.call('SET', p .. 'rebuilding', ARGV[2], 'PX', 10000)
local page = redis.call('HSCAN', items, ARGV[1], 'COUNT', 20)
for i = 1, #page[2], 2 do
  local key, bytes = page[2][i], #page[2][i + 1]
  local service, appid, id = string.match(key, '^([^/]*)/([^/]*)/(.*)$')
  local lane = service .. '/' .. appid
  local all = read(id)
  local e = all[lane]
  if not e then
    e = {nextSeq(), now, now, 0, 0, ''}
    all[lane] = e
    write(id, all)
  end
  enter(service, appid, id, e, bytes)
  if e[5] ~= 1 and not redis.call('ZSCORE', p .. 'due:' .. service, appid) then
    local due = state(lane) == '' and now or now + ARGV[3]
    redis.call('ZADD', p .. 'due:' .. service, due, appid)
  end
end
if page[1] == '0' then
  redis.call('DEL', p .. 'rebuilding')
end
return page[1]
`)
