-- What wrk has seen, as one line of JSON.

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"micros":%d,"requests":%d,"refused":%d,"lost":%d,'
      .. '"p50":%d,"p90":%d,"p99":%d,"p999":%d,"max":%d}\n',
    summary.duration, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency:percentile(99.9), latency.max))
end
