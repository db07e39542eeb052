"""Signals to stop before there is anybody to handle them."""

import signal

import pytest

from aioserve.worker.early import Early, StoppedEarly


@pytest.mark.parametrize(
    "name", ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGALRM"]
)
def test_whoever_has_called_the_server_has_its_own_handlers_back(name):
    number = signal.Signals[name]

    def mine(_number, _frame): ...

    before = signal.signal(number, mine)
    try:
        with Early():
            signal.signal(number, signal.SIG_DFL)  # as a loop leaves it behind
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)


def test_a_signal_interrupts_what_is_imported_and_is_named():
    early = Early()
    with pytest.raises(StoppedEarly), early:
        signal.raise_signal(signal.SIGTERM)
    assert early.why == "SIGTERM: stopped before the application was imported"


def test_a_signal_that_was_swallowed_is_known():
    early = Early()
    with early:
        with pytest.raises(StoppedEarly):
            signal.raise_signal(signal.SIGQUIT)
        assert early.settle()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
