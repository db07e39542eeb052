-- For wrk: asks what it is given, byte by byte, and reports as one line of JSON.
-- Its argument is a file of requests, each behind its length in ten digits.

local requests, turn = {}, 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   while true do
      local length = file:read(10)
      if not length then break end
      requests[#requests + 1] = file:read(tonumber(length))
   end
   file:close()
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      'aioserve {"requests": %d, "seconds": %.6f, "p50": %.6f, "p99": %.6f, "p999": %.6f, '
      .. '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e6, latency:percentile(99) / 1e6, latency:percentile(99.9) / 1e6,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
