-- What a browser sends: twelve headers, the cookie another one in each request.
local before, after, count

function init(args)
  before = table.concat({
    "GET / HTTP/1.1",
    "Host: " .. wrk.headers["Host"],
    "Connection: keep-alive",
    'sec-ch-ua: "Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"',
    "sec-ch-ua-mobile: ?0",
    'sec-ch-ua-platform: "Linux"',
    "Upgrade-Insecure-Requests: 1",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site: none",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    "Cookie: theme=dark; session=",
  }, "\r\n")
  after = "\r\n\r\n"
  count = 10000000
end

function request()
  count = count + 1
  return before .. count .. after
end
