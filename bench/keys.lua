-- wrk script: requests over KEYS keys, in the same shuffled order in every run.
--
--   wrk -s keys.lua URL -- METHOD PREFIX SUFFIX [preload]
--
-- sends METHOD PREFIX..key..SUFFIX. Every request is built in init(), in the order it will be sent: what remains per
-- request is one lookup in memory that lies in sequence, so that the load generator is not what gets measured. With
-- `preload`, a line on stderr says when every key has been answered.

local KEYS = 100000
local requests = {}
local position = 0

-- Fisher and Yates's shuffle of 0..KEYS-1, drawn from Lehmer's generator MINSTD (its products stay below 2^53, where
-- doubles are exact).
local function shuffled()
  local order, state = {}, 1
  for i = 0, KEYS - 1 do
    order[i] = i
  end
  for i = KEYS - 1, 1, -1 do
    state = (state * 16807) % 2147483647
    local j = state % (i + 1)
    order[i], order[j] = order[j], order[i]
  end
  return order
end

-- 100 bytes that differ from key to key.
local function value(key)
  return key .. string.rep("x", 100 - #key)
end

-- wrk calls `response` only when it is defined, and the calls cost time: measured runs go without.
local function announce_preloaded()
  local answered = 0
  response = function()
    answered = answered + 1
    -- Somewhat more than once around: wrk's own probe takes the first request and does not send it.
    if answered == KEYS + 1000 then
      io.stderr:write("preloaded\n")
      io.stderr:flush()
    end
  end
end

function init(args)
  local method, prefix, suffix = args[1], args[2], args[3]
  local order = shuffled()
  for i = 0, KEYS - 1 do
    local key = string.format("key:%06d", order[i])
    local body = method == "PUT" and value(key) or nil
    requests[i] = wrk.format(method, prefix .. key .. suffix, nil, body)
  end
  if args[4] == "preload" then
    announce_preloaded()
  end
end

function request()
  position = position + 1
  if position == KEYS then
    position = 0
  end
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
