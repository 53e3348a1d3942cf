-- A replica says what it remembers of data that are lost. ARGV: what `codec::memory` writes.
local place = 0
local function next_text()
  place = place + 1
  return ARGV[place]
end
local function next_number()
  return tonumber(next_text())
end

local name = next_text()
local epoch, fresh, at, version, half = next_number(), next_number(), next_number(), next_number(), next_number()
local stale, last = next_number() == 1, next_number() == 1
local paused_version, paused = next_number(), next_text()
S.now = math.max(S.now, at)
begin(fresh)
if epoch ~= S.epoch and epoch ~= 0 then
  save()
  return { S.epoch, 0, 0 }
end
-- Nothing is granted while somebody is in the middle of it.
S.gathering = math.max(S.gathering, S.now + GATHER_MS)
local known = {}
for nth = 1, next_number() do
  known[nth] = { next_text(), next_number(), next_number(), next_number(), next_number() }
end
for _ = 1, next_number() do
  recall(next_text(), next_number())
end
for _, one in ipairs(known) do
  local other, seq, out, named, ends = unpack(one)
  local member = M[other]
  if not member then
    member = new_member(true, ends)
    member.born = 1
    M[other] = member
  end
  if member.awaited and seq >= member.seq then
    S.issued = S.issued + out + named - holds(member)
    member.seq, member.out, member.unnamed = seq, out, named
    member.ends = math.max(member.ends, ends)
  end
end
if version > S.hold_version then
  S.hold, S.hold_version, S.hold_set = half, version, true
  S.hold_doubt = S.hold_doubt or stale
end
S.version = math.max(S.version, version)
if paused_version > S.paused_version then
  S.paused_version, S.paused = paused_version, paused
end
local me = M[name]
if not me then
  save()
  return { S.epoch, 0, 0 }
end
me.heard, me.heard_raw = S.now, TIME
if last then
  S.gathering = math.min(S.gathering, math.max(S.now, S.born + GATHER_MS))
end
save()
return { S.epoch, me.seq, 1 }
