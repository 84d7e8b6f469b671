-- Sells one seat of a run; a repeated request gets the answer that it got before.
--
-- KEYS: the run's seats, the orders of all runs, the number of the last order.
-- ARGV: the request's key, the run, the first stop and the last. LEGS and SEATS stand before this
-- text. Answers nothing when no seat is free on all legs, else "run from to seat number".
--
-- A run is one string. Eight seats are a group: a byte for each leg, with a bit for each seat
-- that is taken on it. So the legs of a journey lie side by side, string.byte and bit.bor tell
-- in two calls which of eight seats are free on all of them, and one SETRANGE takes a seat.
-- A bitmap for each leg, with BITOP, BITPOS and a SETBIT for each leg of the journey, needs nearly
-- twice as many commands, which is where a script's time goes. Behind the groups there is a
-- byte for each journey: the group before which it finds nothing. Nobody gives seats back here;
-- who did would lower it.

local had = redis.call('HGET', KEYS[2], ARGV[1])
if had then return had end

local from, to = tonumber(ARGV[3]), tonumber(ARGV[4])
local GROUPS = math.ceil(SEATS / 8)
-- Read at once, since a further command costs more than a few dozen bytes.
local NEAR = 4
local byte, bor, band, lshift = string.byte, bit.bor, bit.band, bit.lshift

local hint = GROUPS * LEGS + from * LEGS + to - 1
local group = byte(redis.call('GETRANGE', KEYS[1], hint, hint))
if not group then
  group = 0
  redis.call('SET', KEYS[1], string.rep('\0', (GROUPS + LEGS) * LEGS))
end
local begun = group

local function found()
  while group < GROUPS do
    local near = redis.call('GETRANGE', KEYS[1], group * LEGS, (group + NEAR) * LEGS - 1)
    for i = 0, math.min(NEAR, GROUPS - group) - 1 do
      local first, last = i * LEGS + from + 1, i * LEGS + to
      local taken = bor(byte(near, first, last))
      if taken ~= 255 then
        group = group + i
        return taken, { byte(near, first, last) }
      end
    end
    group = group + NEAR
  end
  group = GROUPS
end

local taken, legs = found()
if group > begun then redis.call('SETRANGE', KEYS[1], hint, string.char(group)) end
if not taken then return false end

local seat = 0
while band(taken, lshift(1, seat)) ~= 0 do seat = seat + 1 end
for i = 1, #legs do legs[i] = bor(legs[i], lshift(1, seat)) end
redis.call('SETRANGE', KEYS[1], group * LEGS + from, string.char(unpack(legs)))

local number = redis.call('INCR', KEYS[3])
local order = table.concat({ ARGV[2], from, to, group * 8 + seat, number }, ' ')
redis.call('HSET', KEYS[2], ARGV[1], order)
return order
