-- Puts a replica on the roll, or takes it off, and reads the roll.
-- KEYS[1]: a hash of what each replica said, after the time when it said so.
-- ARGV: the replica; what it says of itself, nothing if it leaves; milliseconds after which who is silent is gone; the most replicas.
-- Answers with each replica's id, milliseconds since it was heard, and what it said.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local gone = tonumber(ARGV[3])
local all = redis.call('HGETALL', KEYS[1])
local roll = {}
local others = 0
for i = 1, #all, 2 do
  local id = all[i]
  if id ~= ARGV[1] then
    local heard, said = string.match(all[i + 1], '^(%d+) (.*)$')
    local ago = heard and now - tonumber(heard)
    -- Who was heard in the future was heard by another clock, before a failover.
    if not ago or ago > gone or ago < -gone then
      redis.call('HDEL', KEYS[1], id)
    else
      others = others + 1
      roll[#roll + 1] = id
      roll[#roll + 1] = ago
      roll[#roll + 1] = said
    end
  end
end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
elseif others < tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
  redis.call('PEXPIRE', KEYS[1], gone * 2)
  roll[#roll + 1] = ARGV[1]
  roll[#roll + 1] = 0
  roll[#roll + 1] = ARGV[2]
end
return roll
