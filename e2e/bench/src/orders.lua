-- Buyers at a counter: each request is a new buyer with a new key and a random journey.
--
-- STOPS and RUNS stand before this text. Arguments: a tag that keeps this crowd's buyers apart
-- from every other's, the place in the list of runs where it begins, the step to the next place
-- (1 or -1), and how many orders of one thread a run gets before the crowd goes on to the next.
--
-- Requests are put together by hand, since wrk.format costs more than the server does, and there
-- is no response(): it would make wrk keep and parse every answer.

local threads = 0

function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

local run_is, from_is, to_is = '{"run":"', '","from":"', '","to":"'
local buyer_is, ends = '","class":"Second","passengers":[{"document":"', '"}]}'

local random, floor = math.random, math.floor
local stops, runs = {}, {}
local head, buyer, begin, step, each
-- Seven digits from the first order on, so that all bodies have the same length.
local FIRST = 1000000
local count = FIRST

function init(args)
  buyer = args[1] .. id .. "-"
  begin, step, each = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  for i = 0, STOPS - 1 do stops[i] = string.format("T%02d", i) end
  for i = 0, RUNS - 1 do runs[i] = string.format("H%04d/2027-02-01", i) end
  local length = #run_is + #runs[0] + #from_is + #stops[0] + #to_is + #stops[0]
    + #buyer_is + #(buyer .. count) + #ends
  head = "POST /v1/orders HTTP/1.1\r\nHost: " .. wrk.headers["Host"]
    .. "\r\nContent-Type: application/json\r\nContent-Length: " .. length
    .. "\r\nX-Buyer-Id: "
  math.randomseed(id * 7919 + begin * 104729 + 1)
end

function request()
  local run = runs[(begin + step * floor((count - FIRST) / each)) % RUNS]
  count = count + 1
  local from, to = random(0, STOPS - 1), random(0, STOPS - 2)
  if to >= from then
    to = to + 1
  else
    from, to = to, from
  end
  local name = buyer .. count
  return head .. name .. "\r\nIdempotency-Key: " .. name .. "\r\n\r\n"
    .. run_is .. run .. from_is .. stops[from] .. to_is .. stops[to] .. buyer_is .. name .. ends
end
