-- KEYS: cell, run. ARGV: a run made up.
local time = redis.call('TIME')
redis.call('SET', KEYS[2], ARGV[1], 'NX')
local held = redis.call('HMGET', KEYS[1], 'version', 'value')
return { time[1], time[2], redis.call('GET', KEYS[2]), held[1] or '0', held[2] }
