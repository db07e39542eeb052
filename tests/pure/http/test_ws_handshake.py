"""The opening handshake of a WebSocket, without a socket: which heads ask for one, what they offer, and the 101."""

from __future__ import annotations

import pytest

from aioserve.errors import AppError, RequestError
from aioserve.http.server_fields import ServerFields
from aioserve.http.ws_handshake import accepted, asks_for_websocket, read_offer
from tests.fakes import RecordingSink

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FIELDS = {
    "Host": "test",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def head_of(line="GET /chat HTTP/1.1", body="", **changes):
    """The head of a handshake; fields are changed by name, and removed by None; a list makes several lines."""
    fields = {**FIELDS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [
        f"{name}: {one}"
        for name, value in fields.items()
        if value is not None
        for one in (value if isinstance(value, list) else [value])
    ]
    sink = RecordingSink().feed("\r\n".join([line, *lines, "", body]).encode())
    assert sink.error is None
    return sink.requests[0].head


def offer_of(*, compress=True, **changes):
    return read_offer(head_of(**changes), compress=compress)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Connection": "keep-alive, Upgrade"},
        {"Connection": ["keep-alive", "upgrade"]},
        {"Upgrade": "WebSocket"},
        {"Upgrade": "h2c, websocket"},
    ],
)
def test_an_upgrade_that_both_fields_name_asks_for_a_websocket(changes):
    assert asks_for_websocket(head_of(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": "keep-alive"},
        {"Connection": None},
        {"Connection": "websocket"},
        {"Upgrade": None},
        {"Upgrade": "h2c"},
        {"Upgrade": "websockets"},
        {"line": "GET / HTTP/1.0"},
        {"line": "HEAD / HTTP/1.1"},
        {"line": "POST / HTTP/1.1"},
        {"line": "OPTIONS * HTTP/1.1"},
    ],
)
def test_whatever_else_is_a_plain_request(changes):
    assert not asks_for_websocket(head_of(**changes))


def test_the_key_is_answered_as_the_rfc_shows_it():
    assert offer_of().accept == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, 426),
        ({"Sec_WebSocket_Version": None}, 426),
        ({"Sec_WebSocket_Version": ["13", "13"]}, 426),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": [KEY, KEY]}, 400),
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZQ=="}, 400),
        ({"Sec_WebSocket_Key": KEY.replace("d", "*")}, 400),
        ({"Sec_WebSocket_Key": "=" + KEY}, 400),
        ({"Sec_WebSocket_Protocol": "a b"}, 400),
        ({"Sec_WebSocket_Extensions": "x; ="}, 400),
        ({"Content_Length": "3", "body": "abc"}, 400),
    ],
)
def test_a_handshake_that_is_none_is_refused(changes, status):
    with pytest.raises(RequestError) as caught:
        offer_of(**changes)

    assert caught.value.status == status


@pytest.mark.parametrize(
    ("value", "names"),
    [(None, []), ("a", ["a"]), ("a, b,,c ,", ["a", "b", "c"]), (["v1.chat", "v2.chat"], ["v1.chat", "v2.chat"])],
)
def test_subprotocols_are_a_list_in_the_order_of_the_client(value, names):
    assert offer_of(Sec_WebSocket_Protocol=value).subprotocols == names


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (None, None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
        ),
        # RFC 7692 7.1.2.1: the first one cannot be met, and the client has said what it would take instead.
        (
            ["permessage-deflate; server_max_window_bits=8", "permessage-deflate"],
            "permessage-deflate; server_max_window_bits=12",
        ),
        ("permessage-deflate; unknown=1", None),
    ],
)
def test_the_first_offer_of_compression_that_can_be_met_is_taken(value, answer):
    compression = offer_of(Sec_WebSocket_Extensions=value).compression

    assert (compression and compression.answer) == answer


def test_no_offer_is_looked_at_without_compression():
    assert offer_of(compress=False, Sec_WebSocket_Extensions="permessage-deflate").compression is None


def test_the_windows_are_as_large_as_was_agreed_on():
    offer = offer_of(Sec_WebSocket_Extensions="permessage-deflate; server_max_window_bits=10; client_max_window_bits=9")

    packer, unpacker = offer.compression.packer(), offer.compression.unpacker()

    assert packer.local_max_window_bits == 10
    assert packer.compress_settings == {"memLevel": 5}
    assert unpacker.remote_max_window_bits == 9


def test_each_direction_has_a_window_of_its_own():
    compression = offer_of(Sec_WebSocket_Extensions="permessage-deflate").compression

    assert not hasattr(compression.packer(), "decoder")
    assert not hasattr(compression.unpacker(), "encoder")


def fields_of_server():
    return ServerFields(server=b"aioserve", extra=[(b"X-Extra", b"1")])


def answer(offer, subprotocol=None, headers=()):
    lines = accepted(offer, subprotocol, headers, fields_of_server()).split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    return lines[:-2]


def test_the_101_has_what_was_agreed_on_and_the_servers_fields():
    offer = offer_of(Sec_WebSocket_Protocol="a, b", Sec_WebSocket_Extensions="permessage-deflate")

    assert answer(offer, "b", [(b"Set-Cookie", b"a=1")]) == [
        b"HTTP/1.1 101 Switching Protocols",
        b"upgrade: websocket",
        b"connection: Upgrade",
        b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        b"sec-websocket-protocol: b",
        b"sec-websocket-extensions: permessage-deflate; server_max_window_bits=12",
        b"set-cookie: a=1",
        b"server: aioserve",
        b"X-Extra: 1",
    ]


def test_a_field_of_the_application_replaces_the_servers():
    assert [line for line in answer(offer_of(), headers=[(b"server", b"mine")]) if b"erver" in line] == [
        b"server: mine"
    ]


def test_a_subprotocol_among_the_headers_counts_as_chosen():
    offer = offer_of(Sec_WebSocket_Protocol="a, b")

    assert b"sec-websocket-protocol: a" in answer(offer, None, [(b"sec-websocket-protocol", b"a")])


@pytest.mark.parametrize(
    ("subprotocol", "headers", "said"),
    [
        ("c", [], "has the subprotocol 'c'; the client offers a, b"),
        ("a", [(b"sec-websocket-protocol", b"a")], "sec-websocket-protocol"),
        (None, [(b"sec-websocket-protocol", b"a"), (b"sec-websocket-protocol", b"b")], "sec-websocket-protocol"),
        (None, [(b"Sec-WebSocket-Accept", b"x")], "Sec-WebSocket-Accept"),
        (None, [(b"content-length", b"3")], "content-length"),
        (None, [(b"x", b"a\r\nb: c")], "CR, LF"),
        (None, [("x", "y")], "not pairs of bytes"),
    ],
)
def test_what_cannot_stand_in_a_101_is_the_applications_mistake(subprotocol, headers, said):
    with pytest.raises(AppError, match=said):
        accepted(offer_of(Sec_WebSocket_Protocol="a, b"), subprotocol, headers, fields_of_server())


def test_a_subprotocol_that_nobody_offers_is_said_so():
    with pytest.raises(AppError, match="the client offers none"):
        accepted(offer_of(), "a", [], fields_of_server())
