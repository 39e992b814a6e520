"""`$uac_req(key)` as a value: types, limits, and what may not stand in a message."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.message import parse
from sipengine.testing import Wire
from sipengine.uac.uac_req import UacRequest
from tests.sipengine.net import entropy_from

TEXTS = {
    "method": (31, "OPTIONS"), "ruri": (1023, "sip:a.example"), "furi": (1023, "sip:b.example"),
    "turi": (1023, "sip:c.example"), "ftag": (127, "abc"), "ttag": (127, "def"), "ouri": (1023, "sip:d.example"),
    "hdrs": (2047, "X-One: 1\r\nX-Two: 2\r\n"), "body": (32767, "v=0\r\n"), "callid": (127, "id@host"),
    "sock": (1023, "udp:192.0.2.1:5060"), "auser": (127, "alice"), "apasswd": (127, "s3cret"), "evparam": (127, "x y"),
}  # fmt: skip
NUMBERS = {"cseqno": 7, "flags": 1, "evroute": 2, "fr_timeout": 500, "fr_inv_timeout": 9000}
RESULTS = ("evcode", "evtype")


def test_the_keys_are_those_of_the_seed() -> None:
    assert set(UacRequest.KEYS) == {"all", *TEXTS, *NUMBERS, *RESULTS}


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_key(key: str) -> None:
    uac_req = UacRequest()
    most, value = TEXTS[key]
    assert uac_req[key] is None and getattr(uac_req, key) == ""
    setattr(uac_req, key, value)
    assert getattr(uac_req, key) == value
    assert uac_req[key] == ("***" if key == "apasswd" else value)
    uac_req[key] = value.encode()
    assert getattr(uac_req, key) == value
    with pytest.raises(TypeError, match=rf"\$uac_req\({key}\) takes text, not int"):
        uac_req[key] = 5
    with pytest.raises(ValueError, match=rf"\$uac_req\({key}\) takes {most} bytes, not {most + 1}"):
        uac_req[key] = "x" * (most + 1)
    assert getattr(uac_req, key) == value, "what was refused changed nothing"
    uac_req[key] = None
    assert uac_req[key] is None


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_key(key: str) -> None:
    uac_req = UacRequest()
    assert uac_req[key] == 0
    uac_req[key] = NUMBERS[key]
    assert uac_req[key] == getattr(uac_req, key) == NUMBERS[key]
    for wrong in ("5", True):
        with pytest.raises(TypeError, match="takes a number"):
            uac_req[key] = wrong
    for wrong in (-1, 2**31):
        with pytest.raises(ValueError, match="takes a number from 0 to"):
            uac_req[key] = wrong
    uac_req[key] = None
    assert uac_req[key] == 0


@pytest.mark.parametrize("key", RESULTS)
def test_a_result_cannot_be_written(key: str) -> None:
    with pytest.raises(ValueError, match="is a result"):
        UacRequest()[key] = 1


def test_all_unsets_every_key_with_the_credentials() -> None:
    uac_req = UacRequest()
    for key, (_, value) in TEXTS.items():
        uac_req[key] = value
    for key, number in NUMBERS.items():
        uac_req[key] = number
    with pytest.raises(TypeError, match="takes None only"):
        uac_req["all"] = 1
    assert uac_req["all"] == uac_req.flags == 1
    uac_req["all"] = None
    assert [uac_req[key] for key in TEXTS] == [None] * len(TEXTS)
    assert [uac_req[key] for key in NUMBERS] == [0] * len(NUMBERS)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(KeyError, match="no key 'onreply'"):
        UacRequest()["onreply"] = "x"
    with pytest.raises(KeyError, match="no key 'onreply'"):
        UacRequest().get("onreply")


@pytest.mark.parametrize(
    "value", ['"Ä \\"x\\" ö" <sip:b>', "Front Desk <sip:b>", "<sip:b;x=y>", "tel:+4930", "<tel:+4930>"]
)
def test_identities_that_fit(value: str) -> None:
    uac_req = UacRequest()
    uac_req.furi = value
    assert uac_req.furi == value


def test_a_copy_is_apart() -> None:
    uac_req = UacRequest()
    uac_req.method, uac_req.flags = "INFO", 1
    copied = uac_req.copy()
    uac_req.method, uac_req.flags = "OPTIONS", 0
    assert (copied.method, copied.flags) == ("INFO", 1)


@pytest.mark.parametrize("key", [key for key in TEXTS if key not in ("body", "hdrs")])
@pytest.mark.parametrize("break_", ["\r\nX: y", "\n", "\r", "\0"])
def test_no_key_breaks_out_of_its_line(key: str, break_: str) -> None:
    with pytest.raises(ValueError, match=rf"\$uac_req\({key}\)"):
        UacRequest()[key] = TEXTS[key][1] + break_


@pytest.mark.parametrize(
    ("hdrs", "problem"),
    [
        ("X-A: 1\r\n\r\nbody", "no `Name: value` in line 2"),
        ("X-A: 1\n X-B: 2", "control character in line 1"),
        ("X-A: 1\0", "control character in line 1"),
        ("X-A: 1\r\n folded", "no `Name: value` in line 2"),
        ("X-A", "no `Name: value` in line 1"),
        ("X A: 1", "no `Name: value` in line 1"),
        ("From: <sip:x>", "may not hold From"),
        ("X-A: 1\r\nf: <sip:x>", "may not hold f,"),
        ("Content-Length: 5", "may not hold Content-Length"),
        ("Proxy-Authorization: Digest x", "may not hold Proxy-Authorization"),
    ],
)
def test_hdrs_are_whole_lines(hdrs: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        UacRequest().hdrs = hdrs


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ruri", "kamailio.org"), ("ruri", "<sip:a>"), ("ruri", "sip:a b"), ("ouri", "sip:"), ("furi", "Alice <sip:a"),
        ("furi", "<sip:a>;tag=x"), ("furi", "<nothing>"), ("turi", "<sip:a>\r\nX: y"), ("callid", "two words"),
        ("furi", "<sip:a><sip:b>"), ("furi", 'A "B <sip:b>'), ("furi", "é <sip:b>"), ("ruri", "sip:é@b"),
        ("ftag", "a;b"),
        ("sock", "192.0.2.1:5060"), ("sock", "udp:192.0.2.1"), ("method", "TWO WORDS"), ("method", "ACK"),
        ("method", "CANCEL"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"\$uac_req\({key}\)"):
        UacRequest()[key] = value


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "method\\) and .*ruri\\) must be set"),
        ({"method": "OPTIONS"}, "must be set"),
        ({"method": "OPTIONS", "ruri": "tel:+4930"}, "ruri\\) is no sip: URI"),
        ({"method": "INFO", "ruri": "sip:a", "ouri": "tel:1"}, "ouri\\) is no sip: URI"),
        ({"method": "MESSAGE", "ruri": "sip:a", "body": "hi"}, "needs a Content-Type"),
        ({"method": "INFO", "ruri": "sip:a", "apasswd": "x"}, "auser\\) is not"),
        ({"method": "INFO", "ruri": "sip:a", "auser": "u", "apasswd": "s3cret", "flags": 1}, "no HA1"),
    ],
)
def test_keys_that_make_no_request(values: dict[str, str], problem: str) -> None:
    uac_req = UacRequest()
    for key, value in values.items():
        uac_req[key] = value
    with pytest.raises(ValueError, match=problem) as caught:
        uac_req.check()
    assert "s3cret" not in str(caught.value)


def test_a_secret_shows_nowhere() -> None:
    uac_req = UacRequest()
    uac_req.apasswd = "s3cret"
    assert "s3cret" not in repr(uac_req) and uac_req["apasswd"] == "***"
    with pytest.raises(ValueError) as caught:
        uac_req.apasswd = "s3cret\r\n"
    assert "s3cret" not in str(caught.value)


NASTY = st.text(
    st.sampled_from("sip:a@b.example;tag=x<>\"\\ ,\t\r\n\0\x7féX-A: 1") | st.characters(), max_size=40,
)
NAMES = ("from", "to", "call-id", "cseq", "via", "content-length", "max-forwards")


@given(st.fixed_dictionaries({
    key: st.just(TEXTS[key][1]) | NASTY | st.tuples(st.just(TEXTS[key][1]), NASTY).map("".join)
    for key in TEXTS if key not in ("auser", "apasswd", "sock")
}))
def test_whatever_is_written_what_leaves_is_the_message_that_was_meant(values: dict[str, Any]) -> None:
    uac_req = UacRequest()
    for key, value in {**values, "ouri": "sip:192.0.2.9"}.items():
        with contextlib.suppress(ValueError):
            uac_req[key] = value
    try:
        uac_req.check()
    except ValueError:
        return
    wire = Wire()
    endpoint = Endpoint(
        Configuration(), application=lambda context: None, admission=lambda flow: True, entropy=entropy_from(b"x"),
    )
    endpoint.add_listener("udp", "192.0.2.5", 5060)
    endpoint.add_listener("tcp", "192.0.2.5", 5060)
    wire.attach(endpoint)
    there = wire.station("192.0.2.9", 5060), wire.station("192.0.2.9", 5060, "tcp")
    assert endpoint.uac_requests.send(uac_req)
    wire.run(0.1)
    [data] = there[0].log + there[1].log
    message = parse(data)
    assert message.method.decode() == uac_req.method and message.ruri.decode() == uac_req.ruri
    assert all(message.keys.count(name.encode()) == 1 for name in NAMES), data
    lines = uac_req.hdrs.removesuffix("\r\n").split("\r\n") if uac_req.hdrs else []
    added = 8 + (uac_req.method in ("INVITE", "SUBSCRIBE", "REFER"))
    assert len(message.lines) - len(lines) <= added, "no line more than was meant"
    assert message.body == uac_req.body.encode("utf-8", "surrogateescape")
    assert message.to.tag.decode() == uac_req.ttag
