"""An application that answers with what it saw, and writes it down: one line of JSON for each request.

Text in JSON stands for bytes, as in Latin-1. The file is named by WITNESS; workers share it, since a short write at the
end of a file is one piece (write(2), O_APPEND).
"""

import json
import os

FILE = os.open(os.environ["WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def text(data):
    return data.decode("latin-1")


def pairs(headers):
    return [[text(name), text(value)] for name, value in headers]


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, trailers, complete = b"", [], False
    while not complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message["body"]
        trailers = message.get("trailers", [])
        complete = not message["more_body"]
    answer = json.dumps(
        {
            "method": scope["method"],
            "path": text(scope["raw_path"]),
            "query": text(scope["query_string"]),
            "version": scope["http_version"],
            "headers": pairs(scope["headers"]),
            "body": text(body),
            "trailers": pairs(trailers),
            "complete": complete,
        }
    ).encode()
    os.write(FILE, answer + b"\n")
    if complete:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": answer})
