"""The lifespan of one application: its ``startup`` before the first request, its ``shutdown`` after the last.

One task runs the application's lifespan for as long as the worker serves; it is over when ``shutdown`` has returned,
or ``startup`` has raised or was cancelled. Every wait has a limit. Knows nothing of the server around it.

    NEW --startup()--> STARTING --startup.complete--> SERVING --shutdown()--> STOPPING --> OVER
                          |                              `-- the application leaves early: logged --> OVER
                          |-- startup.failed, time is up, or "on" and it raised or returned: BootError --> OVER
                          `-- "auto" and it raised or returned: not supported, which is fine --> OVER

ASGI, lifespan specification: an exception for a lifespan scope means that the application does not support it and the
server must go on without. ``startup.failed`` is always a failure.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import TYPE_CHECKING, Any, Final, Literal

from aioserve.errors import AppError, BootError
from aioserve.importer import headline, trim
from aioserve.worker.places import frames

if TYPE_CHECKING:
    from aioserve.types import ASGIApp, Message

log = logging.getLogger("aioserve")

#: Seconds that an application has to return after its last word or after it was cancelled. Those that loop round
#: ``receive`` never do by themselves; Starlette and the like return within the same turn of the loop.
LEAVE_SECONDS: Final = 1.0


class Stage(enum.Enum):
    NEW = enum.auto()
    STARTING = enum.auto()
    SERVING = enum.auto()
    STOPPING = enum.auto()
    OVER = enum.auto()


class Lifespan:
    """``name`` is the application's in messages, such as ``main:app`` or ``/api (api:app)``. Times are seconds."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        mode: Literal["auto", "on", "off"],
        startup_timeout: float,
        shutdown_timeout: float,
        name: str,
        leave_timeout: float = LEAVE_SECONDS,
    ) -> None:
        #: What the application has put there during startup; every request gets a shallow copy.
        self.state: dict[str, Any] = {}
        self.name = name
        self._app = app
        self._mode = mode
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._leave_timeout = leave_timeout
        self._stage = Stage.NEW
        self._task: asyncio.Task[None] | None = None
        self._events: asyncio.Queue[str] = asyncio.Queue()
        self._asked = False
        self._reply: asyncio.Future[Message | None] | None = None
        self._error: BaseException | None = None

    async def startup(self) -> None:
        """Return once the application may be served. Raises ``BootError``; there is nothing to shut down then."""
        if self._mode == "off":
            return
        self._stage = Stage.STARTING
        task = asyncio.get_running_loop().create_task(self._run(), name=f"lifespan of {self.name}")
        task.add_done_callback(self._left)
        self._task = task
        try:
            await self._start(task)
        except BaseException:
            self._stage = Stage.OVER
            await self._end(task)
            raise

    async def shutdown(self) -> bool:
        """Let the application clean up; whether it did, in time and without an error."""
        task = self._task
        if self._stage is not Stage.SERVING or task is None:
            return self._stage is Stage.NEW or self._error is None
        self._stage = Stage.STOPPING
        try:
            reply = await self._say("lifespan.shutdown", self._shutdown_timeout)
            await asyncio.wait((task,), timeout=self._leave_timeout)
        except TimeoutError:
            self._too_late(task)
            return False
        finally:
            self._stage = Stage.OVER
            await self._end(task)
        return self._judge(reply)

    async def _start(self, task: asyncio.Task[None]) -> None:
        try:
            reply = await self._say("lifespan.startup", self._startup_timeout)
        except TimeoutError:
            message = f"{self.name}: startup was not complete after {self._startup_timeout:g} s"
            raise BootError(message, _where(task).lstrip()) from None
        if reply is None:
            self._without_startup()
        elif reply["type"] == "lifespan.startup.failed":
            # Frameworks raise after saying so, and the exception tells it better.
            await asyncio.wait((task,), timeout=self._leave_timeout)
            raise self._failed(reply)
        else:
            self._stage = Stage.SERVING
            log.info("%s: startup complete", self.name)
            if task.done():
                self._left_early()

    def _judge(self, reply: Message | None) -> bool:
        failed = reply is not None and reply["type"] == "lifespan.shutdown.failed"
        if failed and reply is not None and reply.get("message"):
            log.error("%s: shutdown failed: %s", self.name, reply["message"])
        elif self._error is not None:
            log.error("%s: shutdown failed\n%s", self.name, trim(self._error))
        elif failed:
            log.error("%s: shutdown failed", self.name)
        else:
            # One that returns without shutdown.complete has nothing to say, which is no failure.
            log.info("%s: shutdown complete", self.name)
        return not failed and self._error is None

    def _too_late(self, task: asyncio.Task[None]) -> None:
        log.error("%s: shutdown was not complete after %g s%s", self.name, self._shutdown_timeout, _where(task))

    async def _say(self, event: str, seconds: float) -> Message | None:
        """Deliver ``event`` and return the answer, None if the application left without one; else TimeoutError."""
        reply = self._reply = asyncio.get_running_loop().create_future()
        self._events.put_nowait(event)
        await asyncio.wait((reply,), timeout=seconds)
        if not reply.done():
            raise TimeoutError
        answer: Message | None = reply.result()
        return answer

    def _without_startup(self) -> None:
        """The application has left before it said a word about its startup."""
        error = self._error
        self._stage = Stage.OVER
        if self._mode == "on":
            if error is None:
                raise BootError(f"{self.name}: it returned from its lifespan without lifespan.startup.complete")
            raise BootError(f"{self.name}: startup failed: {headline(error)}", trim(error))
        self._error = None
        if error is not None and self._asked:
            # Going on is what ASGI demands, but one that has read lifespan.startup and then broke is most likely one
            # whose startup is broken, and its author wants to see that.
            log.warning("%s: raised during lifespan startup, serving without it\n%s", self.name, trim(error))
        else:
            log.info("%s: does not support lifespan%s", self.name, f" ({headline(error)})" if error else "")

    def _failed(self, reply: Message) -> BootError:
        """The failure in one line and in full; Starlette's message is a traceback, and its exception the same."""
        message = str(reply.get("message") or "").strip()
        if self._error is not None:
            return BootError(f"{self.name}: startup failed: {headline(self._error)}", trim(self._error))
        lines = message.splitlines()
        if len(lines) > 1:
            return BootError(f"{self.name}: startup failed: {lines[-1]}", message)
        return BootError(f"{self.name}: startup failed{': ' if message else ''}{message}")

    # The task.

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # foreign code: startup() and shutdown() judge it
            self._error = error

    async def _receive(self) -> Message:
        event = await self._events.get()
        self._asked = True
        return {"type": event}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        expected = {Stage.STARTING: "lifespan.startup.", Stage.STOPPING: "lifespan.shutdown."}.get(self._stage, "-")
        if kind not in {expected + "complete", expected + "failed"} or self._reply is None or self._reply.done():
            raise AppError(f"{kind!r} was sent when it was not due (lifespan is {self._stage.name.lower()})")
        self._reply.set_result(message)

    def _left(self, task: asyncio.Task[None]) -> None:
        """The task is over, in whatever way: nobody must wait for an answer any more."""
        if task.cancelled() and self._error is None and self._stage is not Stage.OVER:
            self._error = AppError("the lifespan task was cancelled")
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(None)
        elif self._stage is Stage.SERVING:
            self._left_early()

    def _left_early(self) -> None:
        self._stage = Stage.OVER
        if self._error is not None:
            log.error("%s: its lifespan broke while it was serving\n%s", self.name, trim(self._error))
        else:
            log.warning("%s: returned from its lifespan while it was serving: it will see no shutdown", self.name)

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Cancel the task if it still runs, so that none is left behind."""
        if task.done():
            return
        task.cancel()
        _, pending = await asyncio.wait((task,), timeout=self._leave_timeout)
        if pending:
            log.error("%s: its lifespan does not end when it is cancelled%s", self.name, _where(task))


def _where(task: asyncio.Task[Any]) -> str:
    """The places in which ``task`` waits, outermost first, one per line: what a time limit has struck."""
    places = [
        f'\n  File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_name}'
        for frame in frames(task)
        if frame.f_code.co_filename != __file__
    ]
    return "\nIt was waiting here:" + "".join(places) if places else ""
