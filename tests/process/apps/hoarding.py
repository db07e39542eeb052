"""An application that takes all descriptors that there are, and gives them back."""

import os

held = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["path"] == "/take":
        try:
            while True:
                held.append(os.dup(2))
        except OSError:
            pass
        # One for the operating system's sake: without any, Python could not even import.
        os.close(held.pop())
    elif scope["path"] == "/give":
        while held:
            os.close(held.pop())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
