-- Buyers at a counter: each request is a new buyer with a new key and a random journey.
--
-- Before this text stand: STOPS; RUNS, the names of runs from 0 on, and HOW_MANY there are; WIDTH,
-- how many of them are bought at the same time; TWICE, whether each order is asked for twice; LOOKS,
-- how often somebody looks at a run before an order; EXTRA, further lines of the request's head.
-- Arguments: a tag that keeps this crowd's buyers apart from every other's, the place in the list
-- of runs where it begins, the step to the next place (1 or -1), and how many orders of one thread
-- a run gets before the crowd goes on to the next ones.
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
local stops = {}
local head, ahead, buyer, begin, step, each
-- Seven digits from the first order on, so that all bodies have the same length.
local FIRST = 1000000
local count = FIRST
local asked, looks = nil, 0

function init(args)
  buyer = args[1] .. id .. "-"
  begin, step, each = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  for i = 0, STOPS - 1 do stops[i] = string.format("T%02d", i) end
  local length = #run_is + #RUNS[0] + #from_is + #stops[0] + #to_is + #stops[0]
    + #buyer_is + #(buyer .. count) + #ends
  ahead = " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\n" .. EXTRA
  head = "POST /v1/orders" .. ahead .. "Content-Type: application/json\r\nContent-Length: "
    .. length .. "\r\nX-Buyer-Id: "
  math.randomseed(id * 7919 + begin * 104729 + 1)
end

local function journey()
  local from, to = random(0, STOPS - 1), random(0, STOPS - 2)
  if to >= from then return stops[from], stops[to + 1] end
  return stops[to], stops[from]
end

function request()
  if asked then
    local again = asked
    asked = nil
    return again
  end
  local place = floor((count - FIRST) / (each * WIDTH)) * WIDTH
  if WIDTH > 1 then place = place + random(0, WIDTH - 1) end
  local run = RUNS[(begin + step * place) % HOW_MANY]
  local from, to = journey()
  if looks < LOOKS then
    looks = looks + 1
    return "GET /v1/runs/" .. run .. "?from=" .. from .. "&to=" .. to .. ahead .. "\r\n"
  end
  looks = 0
  count = count + 1
  local name = buyer .. count
  local order = head .. name .. "\r\nIdempotency-Key: " .. name .. "\r\n\r\n"
    .. run_is .. run .. from_is .. from .. to_is .. to .. buyer_is .. name .. ends
  if TWICE then asked = order end
  return order
end
