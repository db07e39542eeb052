from __future__ import annotations

import contextvars
import uuid

from aioserve.offloading import carried
from aioserve.offloading.bound import REQUEST
from aioserve.offloading.carried import REQUEST_ID

USER = contextvars.ContextVar("user", default="nobody")


def within(*settings, request_id=""):
    """What is carried out of a context with these variables set."""

    def look():
        for variable, value in settings:
            variable.set(value)
        return carried.pack(request_id)

    return contextvars.Context().run(look)


def test_nothing_is_carried_where_there_is_nothing():
    assert within() is None


def test_plain_values_of_variables_of_modules_are_carried():
    along = within((USER, "ann"))
    assert carried.unpack(along).run(USER.get) == "ann"


def test_the_id_of_the_request_is_carried():
    along = within(request_id="abc")
    assert carried.unpack(along).run(REQUEST_ID.get) == "abc"


def test_each_call_has_a_context_of_its_own():
    along = within((USER, "ann"))
    carried.unpack(along).run(USER.set, "bob")
    assert carried.unpack(along).run(USER.get) == "ann"
    assert USER.get() == "nobody"


def test_what_is_not_plain_stays():
    assert within((USER, object())) is None
    assert within((USER, ["a"])) is None


def test_long_texts_stay():
    assert within((USER, "x" * 2000)) is None


def test_a_uuid_is_plain():
    value = uuid.uuid4()
    assert carried.unpack(within((USER, value))).run(USER.get) == value


def test_a_variable_that_is_in_no_module_stays():
    hidden = contextvars.ContextVar("hidden")
    assert within((hidden, "x")) is None


def test_the_request_itself_stays():
    assert within((REQUEST, 5)) is None


def test_a_variable_that_the_other_side_does_not_have_is_passed_over():
    along = ((("tests.pure.offloading.test_carried", "GONE", 1),), "abc")
    assert carried.unpack(along).run(REQUEST_ID.get) == "abc"


def test_a_module_that_is_not_there_is_not_the_calls_error():
    along = ((("there_is_no_such_module", "USER", "ann"), (__name__, "USER", "bob")), "abc")
    assert carried.unpack(along).run(USER.get) == "bob"
