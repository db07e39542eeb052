"""Says its whole scope, but for objects that are the process's own; ``/imported`` where the module was imported."""

import os

IMPORTED = os.getpid()
print(f"imported in {IMPORTED}", flush=True)


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    if scope["path"] == "/sleep":
        # Until the client has left.
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        print("left", flush=True)
        return
    said = {name: value for name, value in scope.items() if name != "state"}
    said["extensions"] = {name: value for name, value in scope["extensions"].items() if name != "aioserve.offload"}
    body = repr(said).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
