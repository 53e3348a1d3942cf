-- The books of one org, as every script of the bank begins: a transliteration of `shared/state.rs` and `shared/rules.rs`.
-- Before it stand the constants of those. What is not `local` to a function is read once and written once, by `save`.
-- KEYS: the books, what is held in callers' names (hashes), cells by minute, cells by version (sorted sets).
local BOOKS, OWN, MINUTES, CHANGED = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local clock = redis.call('TIME')
local TIME = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local S, M

-- Zero is added, so that no negative zero is written.
local function text(number)
  return string.format('%.0f', number + 0)
end

local function number(said)
  return tonumber(said or 0)
end

local function minute(ms)
  return math.floor(ms / 60000)
end

local function over(number)
  return math.max(number, 0)
end

local function load()
  local held = redis.call('HMGET', BOOKS, 's', 'm')
  if held[1] and held[2] then
    S, M = cmsgpack.unpack(held[1]), cmsgpack.unpack(held[2])
    -- A store that makes room may drop one key of several: what is left is not the truth.
    local whole = redis.call('ZCARD', MINUTES) == S.cells and redis.call('ZCARD', CHANGED) == S.cells
    if whole and redis.call('HLEN', OWN) == S.owned then
      return
    end
  end
  S, M = { epoch = 0, now = 0 }, {}
end

local function begin(fresh)
  if S.epoch ~= 0 then
    return
  end
  redis.call('DEL', BOOKS, OWN, MINUTES, CHANGED)
  M = {}
  S = {
    epoch = math.max(fresh, 1), born = S.now, now = S.now, version = 0, sum = 0, issued = 0,
    gathering = S.now + GATHER_MS, cells = 0, owned = 0, kept = 0,
    hold = 0, hold_version = 0, hold_doubt = false, hold_set = false,
    wanted_at = 0, wanted_by = '', reading = false, paused = '', paused_version = 0,
  }
end

local function save()
  local hour = math.floor(TIME / 3600000)
  local fresh = S.kept ~= hour
  S.kept = hour
  redis.call('HSET', BOOKS, 's', cmsgpack.pack(S), 'm', cmsgpack.pack(M))
  if fresh then
    for _, key in ipairs(KEYS) do
      redis.call('PEXPIRE', key, KEEP_MS)
    end
  end
end

local function new_member(awaited, ends)
  local none = { 0, 0, NO_HALF }
  return {
    seq = 0, born = 0, heard = 0, heard_raw = 0, ends = ends, out = 0, reserve = 0, named = 0, unnamed = 0,
    sure = none, last = none, awaited = awaited, lost = false, granted = { 0, 0, {} },
  }
end

-- The names of all members that `wanted` likes, in order.
local function members(wanted)
  local names = {}
  for name, member in pairs(M) do
    if wanted(name, member) then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

local function is_awaited(_, member)
  return member.awaited
end

local function holds(member)
  return member.out + member.reserve + member.unnamed + member.named
end

local function first()
  return over(minute(S.now) + 1 - WINDOW_MINUTES)
end

local function committed()
  local sum = S.sum + S.hold
  for _, member in pairs(M) do
    sum = sum + holds(member)
  end
  return sum
end

local function minute_of(key)
  return tonumber(string.match(key, '^%d+'))
end

local function caller_of(key)
  return string.match(key, '^%d+:%d:(.*)$')
end

-- Cells are `calls` or `calls:base`.
local function cell(key)
  local held = redis.call('HGET', BOOKS, 'c:' .. key)
  if not held then
    return nil, 0
  end
  local calls, base = string.match(held, '^(%d+):?(%d*)$')
  return tonumber(calls), tonumber(base) or 0
end

local function write(key, calls, base)
  local held = text(calls)
  if base > 0 then
    held = held .. ':' .. text(base)
  end
  redis.call('HSET', BOOKS, 'c:' .. key, held)
end

local function change(key, calls)
  if minute_of(key) < first() or calls == 0 then
    return 0
  end
  local before, base = cell(key)
  if not before then
    before = 0
    S.cells = S.cells + 1
    redis.call('ZADD', MINUTES, minute_of(key), key)
  end
  local after = over(before + calls)
  S.version = S.version + 1
  write(key, after, base)
  redis.call('ZADD', CHANGED, text(S.version), key)
  local by = after - before
  S.sum = over(S.sum + by)
  redis.call('HINCRBY', BOOKS, 'u:' .. caller_of(key), text(by))
  S.issued = S.issued + by
  return by
end

local function recall(key, calls)
  local _, base = cell(key)
  if calls > base and minute_of(key) >= first() then
    change(key, calls - base)
    write(key, (cell(key)), calls)
  end
end

local function release()
  local gone = redis.call('ZRANGEBYSCORE', MINUTES, '-inf', '(' .. first(), 'LIMIT', 0, RELEASED_AT_ONCE)
  for _, key in ipairs(gone) do
    local calls = cell(key)
    local sum = 'u:' .. caller_of(key)
    redis.call('HDEL', BOOKS, 'c:' .. key)
    redis.call('ZREM', MINUTES, key)
    redis.call('ZREM', CHANGED, key)
    S.cells = S.cells - 1
    S.sum = S.sum - calls
    if redis.call('HINCRBY', BOOKS, sum, text(-calls)) == 0 then
      redis.call('HDEL', BOOKS, sum)
    end
  end
end

local function named_by(name, caller)
  return number(redis.call('HGET', OWN, name .. ':' .. caller))
end

local function set_named(name, caller, calls)
  local member = M[name]
  if not member then
    return
  end
  local field, before = name .. ':' .. caller, named_by(name, caller)
  if calls == 0 then
    S.owned = S.owned - redis.call('HDEL', OWN, field)
  else
    S.owned = S.owned + redis.call('HSET', OWN, field, text(calls))
  end
  member.named = member.named + calls - before
  if redis.call('HINCRBY', BOOKS, 'n:' .. caller, text(calls - before)) == 0 then
    redis.call('HDEL', BOOKS, 'n:' .. caller)
  end
end

-- The callers in whose names `name` holds anything, in order.
local function callers_of(name)
  local callers, own = {}, name .. ':'
  if M[name].named == 0 then
    return callers
  end
  for _, field in ipairs(redis.call('HKEYS', OWN)) do
    if string.sub(field, 1, #own) == own then
      callers[#callers + 1] = string.sub(field, #own + 1)
    end
  end
  table.sort(callers)
  return callers
end

local function lose(name)
  local member = M[name]
  local lost = {}
  local function book(caller, calls)
    if calls > 0 then
      lost[#lost + 1] = { text(member.ends) .. ':0:' .. caller, calls }
    end
  end
  book(LOST_LEASES, member.out + member.reserve)
  book(LOST_NAMES, member.unnamed)
  local callers = callers_of(name)
  for _, caller in ipairs(callers) do
    book(caller, named_by(name, caller))
  end
  S.hold_doubt = S.hold_doubt or member.awaited
  S.issued = S.issued - holds(member)
  member.out, member.reserve, member.unnamed, member.awaited = 0, 0, 0, false
  for _, caller in ipairs(callers) do
    set_named(name, caller, 0)
  end
  for _, booked in ipairs(lost) do
    change(booked[1], booked[2])
  end
  member.lost = lost
end

local function find(name)
  local member = M[name]
  local lost = member.lost
  member.lost = false
  for _, booked in ipairs(lost or {}) do
    local key, calls = booked[1], booked[2]
    local caller = string.match(key, '^%d+:%d+:(.*)$')
    change(key, -calls)
    S.issued = S.issued + calls
    if caller == LOST_LEASES then
      member.out = member.out + calls
    elseif caller == LOST_NAMES then
      member.unnamed = member.unnamed + calls
    else
      set_named(name, caller, calls)
    end
  end
end

-- Holds back no longer, once nobody is awaited any more.
local function end_hold()
  local remembered = S.hold_version > 0
  if remembered then
    if #members(is_awaited) > 0 then
      return
    end
  elseif minute(S.now) <= minute(S.born) + LEASE_MINUTES + GRACE_MINUTES then
    return
  end
  local calls, doubt = S.hold, S.hold_doubt
  S.hold, S.hold_doubt = 0, false
  if remembered and doubt then
    local by = change(text(minute(S.now)) .. ':0:' .. LOST_NAMES, calls)
    S.issued = S.issued - by
  end
end

local function tidy()
  release()
  local now = minute(S.now)
  local ended = members(function(_, member)
    return now > member.ends + GRACE_MINUTES and (holds(member) > 0 or member.awaited)
  end)
  for _, name in ipairs(ended) do
    lose(name)
  end
  local gone = members(function(_, member)
    return now > member.ends + WINDOW_MINUTES
  end)
  for _, name in ipairs(gone) do
    M[name] = nil
  end
  if S.now >= S.gathering and S.hold_set then
    end_hold()
  end
end

-- What `name` is told, who knows cells up to version `known` and pauses up to `paused_known`.
local function answer(name, known, paused_known)
  local me = M[name]
  if not me then
    return { 'strange', S.epoch }
  end
  local keys = redis.call('ZRANGEBYSCORE', CHANGED, '(' .. text(known), '+inf', 'LIMIT', 0, CELLS_AT_ONCE + 1)
  local more, through, cells = 0, S.version, {}
  if #keys > CELLS_AT_ONCE then
    more, keys[#keys] = 1, nil
    through = number(redis.call('ZSCORE', CHANGED, keys[#keys]))
  end
  for _, key in ipairs(keys) do
    cells[#cells + 1] = key
    cells[#cells + 1] = (cell(key))
  end
  local now, others, known_ones = minute(S.now), 0, {}
  local all = members(function()
    return true
  end)
  for _, other in ipairs(all) do
    local member = M[other]
    if other ~= name then
      others = others + holds(member)
    end
    if member.awaited or holds(member) > 0 or now <= member.ends then
      local line = { other, member.seq, member.out + member.reserve, member.unnamed + member.named, member.ends }
      for _, said in ipairs(line) do
        known_ones[#known_ones + 1] = said
      end
    end
  end
  local scarce = 0
  if S.wanted_by ~= name and S.now < S.wanted_at + WANTED_MS then
    scarce = 1
  end
  local recovering = 0
  if S.now < S.gathering or S.hold > 0 or #members(is_awaited) > 0 then
    recovering = 1
  end
  return {
    'settled', S.epoch, S.now, S.version, me.granted[1], me.granted[2], me.ends, through, more, others, me.last[3] + S.hold,
    scarce, recovering, S.paused_version, S.paused_version ~= paused_known and S.paused, S.reading, me.granted[3], cells, known_ones,
  }
end

load()
