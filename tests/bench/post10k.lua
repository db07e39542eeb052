-- The request is the same each time, so wrk makes it once.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("x", 10240)
