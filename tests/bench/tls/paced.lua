-- Each of 64 connections asks about 90 times a second, not in step: below what any of the servers can do, so that the
-- times say how long an answer takes and not how long the queue is.
function init(args)
  math.randomseed(7)
end

function delay()
  return math.random(4, 18)
end
