-- A replica comes. ARGV: its name, and the number of the data if there are none.
local name = ARGV[1]
local alive = false
for _, member in pairs(M) do
  alive = alive or TIME < member.heard_raw + ALIVE_WITHIN_MS
end
-- Where others are alive, time is what they say, also if they only said what they remember.
if not alive or TIME < S.now + STEP_MS then
  S.now = math.max(S.now, TIME)
end
begin(tonumber(ARGV[2]))
tidy()
local all = members(function()
  return true
end)
if #all >= MOST_REPLICAS and not M[name] then
  save()
  return { 'stale' }
end
S.version = S.version + 1
local me = M[name] or new_member(false, 0)
M[name] = me
if me.born == 0 then
  me.born, me.ends, me.granted = S.version, minute(S.now) + LEASE_MINUTES, { 0, 0, {} }
  me.sure = { S.version, S.issued, NO_HALF }
  me.last = me.sure
end
me.heard, me.heard_raw = S.now, TIME
local said = answer(name, 0, 0)
save()
return said
