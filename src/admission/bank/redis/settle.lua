-- A replica tells what it spent, and asks.
-- ARGV: `close` if it is its last word, and what `codec::tell` writes.
local place = 0
local function next_text()
  place = place + 1
  return ARGV[place]
end
local function next_number()
  return tonumber(next_text())
end

local closing = next_text() == 'close'
local name = next_text()
local epoch, seq, known, at = next_number(), next_number(), next_number(), next_number()
local cap, held, foreign = next_number(), next_number(), next_number()
local balance, ask, floor = next_number(), next_number(), next_number()
local reserve, reserve_ask, waiting = next_number(), next_number(), next_number() == 1
local reading = { next_number(), next_number(), next_number() }
local paused_known, paused = next_number(), next_text()
if closing then
  ask, reserve, reserve_ask = 0, 0, 0
end

local me = M[name]
if S.epoch == 0 or S.epoch ~= epoch or not me then
  return { 'strange', S.epoch }
end
if seq < me.seq then
  return { 'stale' }
end

local function allotments(each)
  for _ = 1, next_number() do
    each(next_text(), next_number(), next_number(), next_number(), next_number())
  end
end

-- What was spent, and what is still held.
local function report()
  for _ = 1, next_number() do
    change(next_text(), next_number())
  end
  local here = place
  allotments(function(caller, own)
    S.issued = S.issued + own - named_by(name, caller)
    set_named(name, caller, own)
  end)
  place = here
  S.issued = S.issued + balance + reserve - (me.out + me.reserve + me.unnamed)
  me.out, me.reserve, me.unnamed = balance, reserve, 0
  me.seq, me.awaited, me.heard, me.heard_raw = seq, false, S.now, TIME
  me.ends = math.max(me.ends, minute(math.max(S.now, at)) + LEASE_MINUTES)
  -- It tells on, so it got the last answer.
  me.sure = me.last
end

local function note()
  if reading[1] and (not S.reading or S.reading[3] < reading[3]) then
    S.reading = reading
  end
  if paused ~= '' then
    S.paused, S.paused_version = paused, S.paused_version + 1
  end
end

-- How much may be issued to this replica before the others have to be answered.
local function room()
  local least, now = math.huge, minute(S.now)
  for other, member in pairs(M) do
    if other ~= name and not member.awaited and now <= member.ends then
      for _, mark in ipairs({ member.sure, member.last }) do
        least = math.min(least, over(mark[3] - (S.issued - mark[2])))
      end
    end
  end
  return least
end

-- Whether every replica that seems to be alive knows of this one.
local function is_known()
  for other, member in pairs(M) do
    local recent = not member.awaited and S.now < member.heard + KNOWN_WITHIN_MS
    if other ~= name and recent and member.sure[1] < me.born then
      return false
    end
  end
  return true
end

local function grant()
  local gathered = S.now >= S.gathering
  if gathered and not S.hold_set and foreign then
    S.hold = math.min(foreign, math.floor(over(cap - committed()) / 2))
    S.hold_set = true
  end
  local free, most = 0, room()
  if gathered and is_known() then
    free = over(cap - committed())
  end
  local function take(wanted, guaranteed)
    local granted = math.min(wanted, most, math.max(over(free - held), math.min(guaranteed, free)))
    free, most = free - granted, most - granted
    return granted
  end
  local short, all = false, 0
  local unnamed = S.hold + number(redis.call('HGET', BOOKS, 'u:' .. LOST_NAMES))
  for _, member in pairs(M) do
    unnamed = unnamed + member.unnamed
  end
  local allotted = {}
  allotments(function(caller, own, wanted, guaranteed, ceiling)
    local sums = redis.call('HMGET', BOOKS, 'u:' .. caller, 'n:' .. caller)
    local may = over(ceiling - number(sums[1]) - number(sums[2]) - unnamed)
    local granted = take(math.min(wanted, may), guaranteed)
    short = short or granted < wanted
    if granted > 0 then
      set_named(name, caller, own + granted)
    end
    allotted[#allotted + 1] = granted
    all = all + granted
  end)
  local granted = take(ask, floor)
  short = short or granted < ask
  local living, now = 0, minute(S.now)
  for _, member in pairs(M) do
    if member.awaited or now <= member.ends then
      living = living + 1
    end
  end
  local kept = math.min(reserve_ask, math.floor(math.min(over(free - held), most) / (4 * math.max(living, 1))))
  S.issued = S.issued + all + granted + kept
  if short and waiting then
    S.wanted_at, S.wanted_by = S.now, name
  end
  me.out, me.reserve = me.out + granted, me.reserve + kept
  me.granted = { granted, kept, allotted }
  me.last = { S.version, S.issued, math.ceil(over(cap - committed()) / 2) }
end

if seq > me.seq then
  S.now = math.max(S.now, at)
  tidy()
  me = M[name]
  if not me then
    save()
    return { 'strange', S.epoch }
  end
  -- Whose lease has ended is forgotten by others, who have to hear of it again as of one that comes.
  if minute(S.now) > me.ends then
    S.version = S.version + 1
    me.born = S.version
  end
  find(name)
  report()
  note()
  grant()
end
local said = answer(name, known, paused_known)
if closing and holds(me) == 0 then
  M[name] = nil
end
save()
return said
