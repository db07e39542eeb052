"""h11 as a parser for the reader: for interpreters without httptools wheels, and the oracle in tests.

h11 accepts Transfer-Encoding together with Content-Length; ``head.interpret``, which judges every head whichever
parser has cut it, does not.
"""

from __future__ import annotations

from typing import Final, final

import h11

from aioserve.errors import RequestError
from aioserve.http.tables import REQUEST_FIELDS
from aioserve.types import Header

#: The reader bounds what it feeds; h11's own bound only has to lie above any limit that can be configured.
INCOMPLETE_EVENT_LIMIT: Final = 1024 * 1024 * 1024


@final
class H11Parser:
    """One message through an ``h11.Connection`` of its own: h11 cannot go on without a response being sent on it."""

    __slots__ = ("_connection", "body", "fields", "message_complete", "noticed")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the last message."""
        self.fields: list[Header] = []
        self.noticed: list[Header] = []
        self.body: list[bytes] = []
        self.message_complete: bool = False
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=INCOMPLETE_EVENT_LIMIT)

    def feed(self, data: bytes) -> None:
        """Parse ``data``, which ends at or before the end of the message."""
        try:
            self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                if isinstance(event, h11.Request):
                    self.fields = list(event.headers)
                    self.noticed = [field for field in self.fields if field[0] in REQUEST_FIELDS]
                elif isinstance(event, h11.Data):
                    self.body.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.fields = list(event.headers)
                    self.message_complete = True
        except h11.RemoteProtocolError as error:
            raise RequestError(400, str(error)) from error
