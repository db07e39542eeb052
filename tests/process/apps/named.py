"""Two applications for mounts: each says who it is, where it thinks it is, and what its own lifespan left."""

import json


def named(name):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["owner"] = name
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        shown = {"name": name, **{key: scope[key] for key in ("path", "root_path", "state")}}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(shown).encode()})

    return app


main, api, admin = named("main"), named("api"), named("admin")
