-- KEYS: cell, run. ARGV: a run made up, the run and the version that are to be replaced, how many ms to keep it, the value.
local time = redis.call('TIME')
redis.call('SET', KEYS[2], ARGV[1], 'NX')
local run = redis.call('GET', KEYS[2])
local held = redis.call('HMGET', KEYS[1], 'version', 'value')
local version = held[1] or '0'
if run ~= ARGV[2] or version ~= ARGV[3] then
  return { 0, time[1], time[2], run, version, held[2] }
end
version = string.format('%.0f', tonumber(version) + 1)
redis.call('HSET', KEYS[1], 'version', version, 'value', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return { 1, time[1], time[2], run, version, ARGV[5] }
