-- Writes the whole stock of one class of one run from a node's fold of the pool.
--
-- KEYS[1]  the class's stock, as draw.lua has it.
-- ARGV     the pool's offset that the node has folded to; how long a lease lasts; how long the
--          stock is kept untouched; then every block that is in the pool at that offset.
--          Times are milliseconds.
--
-- It never goes back: a node that is behind would bring back blocks that are taken. At the
-- same offset it does write, because a block whose lease has ended, and whose Take is not
-- there, is free again. Leases that have not ended are kept: their Takes are on the way.

local stock = KEYS[1]
local offset = ARGV[1]
local lease_ms, keep_ms = tonumber(ARGV[2]), tonumber(ARGV[3])

local at = redis.call('HGET', stock, 'at')
if at and tonumber(at) > tonumber(offset) then
  return {'newer', at}
end

-- This server's clock only: no two clocks are compared.
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local leased = {}
local fields = redis.call('HGETALL', stock)
for i = 1, #fields, 2 do
  local name, value = fields[i], fields[i + 1]
  if name ~= 'at' and value ~= '' then
    local lease_end = tonumber(value)
    if lease_end > now and lease_end <= now + lease_ms then
      leased[name] = value
    end
  end
end

redis.call('DEL', stock)
local batch = {'at', offset}
for i = 4, #ARGV do
  batch[#batch + 1] = ARGV[i]
  batch[#batch + 1] = leased[ARGV[i]] or ''
  -- Lua's stack holds some thousands of values, and a run has more blocks than that at most.
  if #batch >= 1000 then
    redis.call('HSET', stock, unpack(batch))
    batch = {}
  end
end
if #batch > 0 then
  redis.call('HSET', stock, unpack(batch))
end
redis.call('PEXPIRE', stock, keep_ms)
return {'stored', offset}
