-- Draws blocks of one class of one run, and leases them to whoever drew.
--
-- KEYS[1]  the class's stock: a hash of `at`, the pool's offset that the whole set was folded
--          to, and one field for each block: '' if it is free, or the end of its lease.
-- ARGV     how many blocks; the lowest `at` that serves the caller; how long a lease lasts;
--          how long the stock is kept untouched. Times are milliseconds.
--
-- A leased block is in no one's hands until a Take says so in the pool's partition. It does
-- not come back by itself when its lease ends, because the Take may be there and not here:
-- then the caller is told that the set is stale, and writes it anew from its fold.

local stock = KEYS[1]
local want, floor = tonumber(ARGV[1]), tonumber(ARGV[2])
local lease_ms, keep_ms = tonumber(ARGV[3]), tonumber(ARGV[4])

local at = redis.call('HGET', stock, 'at')
if not at then
  return {'missing'}
end
if tonumber(at) < floor then
  return {'stale', at}
end

-- This server's clock only: no two clocks are compared.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local free, ended = {}, false
local fields = redis.call('HGETALL', stock)
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name ~= 'at' then
    if value == '' then
      free[#free + 1] = tonumber(name)
    else
      local lease_end = tonumber(value)
      -- One that ends later than any can was given before the clock was set back.
      if lease_end <= now or lease_end > now + lease_ms then
        ended = true
      end
    end
  end
end

if #free == 0 then
  return {ended and 'stale' or 'empty', at}
end

table.sort(free)
local answer = {'drawn', at}
for i = 1, math.min(want, #free) do
  redis.call('HSET', stock, free[i], now + lease_ms)
  answer[#answer + 1] = free[i]
end
redis.call('PEXPIRE', stock, keep_ms)
return answer
