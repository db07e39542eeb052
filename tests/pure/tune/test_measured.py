import pytest

from aioserve.tune.load import NoMeasurement, read_wrk
from aioserve.tune.measured import Measured, percentile

REPORT = (
    b"Running 1s test @ http://127.0.0.1:1/\n"
    b'aioserve {"requests": 2000, "seconds": 0.5, "p50": 0.001, "p99": 0.002, "p999": 0.003, '
    b'"connect": 0, "read": 1, "write": 0, "timeout": 0, "status": 7}\n'
)


def test_a_percentile_is_the_value_below_which_that_share_lies():
    values = list(range(1, 1001))
    assert [percentile(values, share) for share in (0.5, 0.99)] == [500, 990]


def test_a_percentile_beyond_which_next_to_nothing_lies_is_not_said():
    assert percentile(list(range(1000)), 0.999) is None
    assert percentile([], 0.5) is None


def test_a_rate_is_requests_per_second():
    assert Measured(requests=10, seconds=2.0).rate == 5.0
    assert Measured(requests=0, seconds=0.0).rate == 0.0


def test_what_is_measured_goes_through_a_pipe():
    measured = Measured(requests=3, seconds=1.5, p50=0.1, errors={"status 500": 2}, behind=4)
    assert Measured.decode(measured.encode()) == measured


def test_the_report_of_wrk_is_read():
    measured = read_wrk(REPORT, 0.4)
    assert (measured.rate, measured.p50, measured.p99, measured.client_cpu) == (4000.0, 0.001, 0.002, 0.4)
    assert measured.p999 is None  # two requests lie beyond it
    assert measured.errors == {"read errors": 1, "status >= 400": 7}


def test_wrk_without_a_report_is_no_measurement():
    with pytest.raises(NoMeasurement, match="unable to connect"):
        read_wrk(b"unable to connect to 127.0.0.1:1 Connection refused\n", 0.0)
