"""What the scope says of the client, as JSON, and which process says it."""

import json
import os


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    said = {name: scope[name] for name in ("client", "server", "scheme", "path")}
    said["tls"] = scope["extensions"].get("tls")
    said["pid"] = os.getpid()
    said["names"] = scope["extensions"].get("aioserve.proxy_protocol")
    body = json.dumps(said, default=bytes.decode).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
