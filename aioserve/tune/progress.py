"""How far it is: a bar on a terminal, plain lines elsewhere. What is done and what is left is counted in seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Self, TextIO, final

import click

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

#: The bar redraws itself ten times a second at most; that costs the machine that is measured a thousandth of a CPU.
_WIDTH: Final = 28

#: Up one line and erase it: the bar ends with a line of its own, which is to be as if it had never been.
_ERASE: Final = "\x1b[1A\r\x1b[2K"


@final
class Progress:
    """Use it as a context. ``begin`` says what comes next and how long it will take; ``tick`` moves the bar."""

    def __init__(self, stream: TextIO, total: float) -> None:
        self._stream: Final = stream
        self._terminal: Final = stream.isatty()
        self._done = 0.0  # seconds of the plan
        self._step = 0.0
        self._began = time.monotonic()
        self._total: Final = total
        self._shown = 0
        self._bar: Final[ProgressBar[int]] = click.progressbar(
            None,
            length=max(int(total * 10), 1),
            file=stream,
            width=_WIDTH,
            show_eta=False,
            show_percent=False,
            bar_template="%(bar)s  %(info)s",
            item_show_func=lambda _: self._text(),
        )
        self._what = ""

    def __enter__(self) -> Self:
        if self._terminal:
            self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            self._bar.render_finish()
            self._stream.write(_ERASE)
            self._stream.flush()

    def begin(self, what: str, seconds: float) -> None:
        """Something new begins; what was before is done, however long it took."""
        self._done = min(self._done + self._step, self._total)
        self._step, self._began, self._what = seconds, time.monotonic(), what
        self.tick()

    def line(self, text: str) -> None:
        """A line for who has no bar to look at."""
        if not self._terminal:
            click.echo(text, file=self._stream)

    def tick(self) -> None:
        if self._terminal:
            now = min(self._done + min(time.monotonic() - self._began, self._step), self._total)
            steps = int(now * 10) - self._shown
            self._shown += steps
            # Not update(), which draws only when a whole step is done: what is going on may have changed without one.
            self._bar.current_item = 1
            self._bar.make_step(steps)
            self._bar.render_progress()

    def _text(self) -> str:
        left = max(self._total - self._done - min(time.monotonic() - self._began, self._step), 0.0)
        return f"{left:3.0f} s left  {self._what}"
