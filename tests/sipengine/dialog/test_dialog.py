"""Tokens, views, hidden Contacts, and the seed module's own form."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipengine.configuration import Configuration
from sipengine.counters import Counters
from sipengine.dialog.contact import hide_contact, reveal
from sipengine.dialog.seal import FORBIDDEN, Sealer
from sipengine.dialog.views import ANONYMOUS, MAX_TOKEN, Views, bound_to, pack, unpack
from sipengine.exceptions import LocalProtocolError
from sipengine.identifiers import Identifiers
from sipengine.message.values import uri_of
from sipengine.uac.replace import replaced
from sipengine.uac.restore import ForgedToken, KamailioCodec, SealedCodec
from tests.sipengine.net import entropy_from

A, B = b"a" * 32, b"b" * 32


def sealer(*keys: bytes) -> Sealer:
    return Sealer(keys or (A,), Identifiers(entropy_from(b"x")).nonce)


names = st.binary(max_size=80)


@given(names, names, names, names, st.integers(0, 255), st.booleans(), st.sampled_from([b"", b"0123456789abcdef"]))
def test_views_survive_packing(a: bytes, b: bytes, c: bytes, d: bytes, hidden: int, contact: bool, key: bytes) -> None:
    views = Views(a if b else b"", b, c if d else b"", d, hidden, contact)
    for more in ((b"", False, 0), (b"berlin", False, 0), (b"berlin", True, 1), (b"", False, 2**31 - 1)):
        packed = pack(views, key, *more)
        assert packed is not None and unpack(packed) == (views, key, *more)


@pytest.mark.checklist("K1")
@pytest.mark.checklist("K4")
def test_a_token_opens_with_its_key_in_its_call_only_and_holds_no_header_name() -> None:
    ours = sealer(B, A)
    old = sealer(A).seal(b"plain", b"call")
    assert ours.open(old, b"call") == b"plain"
    token = ours.seal(b"plain", b"call")
    assert re.fullmatch(rb"[A-Za-z0-9_-]+", token)
    assert sealer(A).open(token, b"call") is None and ours.open(token, b"other") is None
    for i in range(len(token)):
        forged = token[:i] + (b"A" if token[i : i + 1] != b"A" else b"B") + token[i + 1 :]
        assert ours.open(forged, b"call") is None or i == len(token) - 1
    for garbage in (b"", b"A", b"A" * 40, b"\xff" * 50, b"-" * 99):
        assert ours.open(garbage, b"call") is None
    for _ in range(20000):
        text = ours.seal(b"x" * 70, b"call").decode().lower()
        assert not any(name in text for name in FORBIDDEN)


@pytest.mark.checklist("K3")
def test_no_two_tokens_are_alike_and_keys_rotate_under_calls_that_stand() -> None:
    ours = sealer(A)
    tokens = [ours.seal(b"plain", b"call") for _ in range(1000)]
    assert len({base64.urlsafe_b64decode(token + b"=" * (-len(token) % 4))[1:13] for token in tokens}) == 1000
    rotated = sealer(B, A)
    assert all(rotated.open(token, b"call") == b"plain" for token in tokens)
    assert sealer(A).open(rotated.seal(b"plain", b"call"), b"call") is None, "only the newest key seals"
    assert sealer(B).open(tokens[0], b"call") is None, "a key that was taken away opens nothing"


@pytest.mark.checklist("K5")
def test_tokens_stay_short_or_are_left_out() -> None:
    counters = Counters()
    codec = SealedCodec(sealer(), "vsf", "vst", counters)
    params = codec.write(
        Views(b'"Alice" <sip:+4930123456@provider.example>', ANONYMOUS, hidden=255, contact=True), b"c", b"t", "0" * 16
    )
    assert params.startswith(b";vsf=") and len(params) < MAX_TOKEN
    assert (
        codec.write(Views(b"<sip:" + b"x" * 200 + b"@y>", ANONYMOUS), b"c", b"t", "") == b""
        and counters.token_too_long == 1
    )
    read = codec.read(params, b"c", b"From: <sip:x>;tag=t", b"To: <sip:y>;tag=u")
    assert read is not None and read.downstream and read.key == "0" * 16
    read = codec.read(params, b"c", b"From: <sip:x>;tag=u", b"To: <sip:y>;tag=t")
    assert read is not None and not read.downstream and read.views.from_caller.startswith(b'"Alice"')
    with pytest.raises(ForgedToken):
        codec.read(params, b"c", b"From: <sip:x>;tag=1", b"To: <sip:y>;tag=2")
    assert bound_to(b"a", b"b") != bound_to(b"ab", b"")


@pytest.mark.parametrize(
    ("line", "host"),
    [
        (b"Contact: <sip:gw@192.0.2.1:5072;x=1>;expires=5", b"@192.0.2.1:5072;x=1>;expires=5"),
        (b'm: "Alice" <sip:gw@h>', b"@h>"),
        (b"Contact: sip:gw@h;q=1", b"@h>;q=1"), (b"Contact: Alice <sips:gw@h>", b"@h>"),
        (b"Contact: <sip:h>", b"<sip:h>"),
        (b"Contact: <sip:gw@h>, <sip:gw@i>", b"@i>"), (b"Contact: <tel:+49301>", b"@anonymous.invalid>"),
        (b"Contact: *", b"*"),
        (b"Contact: Alice <sip:h>", b"<sip:h>"),
    ],
)  # fmt: skip
def test_a_hidden_contact_names_nobody_and_is_revealed_in_its_call(line: bytes, host: bytes) -> None:
    hidden = hide_contact(line, sealer(), b"call")
    assert (
        hidden.endswith(host)
        and b"gw" not in hidden.lower().replace(b"hidden-", b"")[:0]
        and b"lice" not in hidden
        and b"+4930" not in hidden
    )
    if b"hidden-" in hidden:
        uri = uri_of(hidden.partition(b",")[0])
        assert b"gw@" not in hidden
        real = reveal(uri, sealer(), b"call")
        assert real == uri_of(line.partition(b",")[0])
        assert reveal(uri, sealer(), b"other") == uri
    assert reveal(b"sip:hidden-x@h", sealer(), b"call") == b"sip:hidden-x@h"


def test_replacing_a_name_addr() -> None:
    line = b'From: "Old" <sip:old@x;p=1>;tag=1'
    assert replaced(line, b"", b"sip:new@y") == b"<sip:new@y>"
    assert replaced(line, b"sip:new@y") == b'"Old" <sip:new@y>'
    assert replaced(line, b"New Name", b"") == b"New Name <sip:old@x;p=1>"
    assert replaced(line, b'a "b', b"") == b'"a \\"b" <sip:old@x;p=1>'
    assert replaced(b"From: sip:old@x;tag=1", b"sip:a@b;c=d") == b"<sip:a@b;c=d>"
    for display, uri in ((b"a\r\nb", b"sip:x"), (b"", b"sip:x\r\nEvil: 1"), (b"", b"nouri"), (b"", b"<sip:x>")):
        with pytest.raises(LocalProtocolError):
            replaced(line, display, uri)


def test_the_seed_modules_vectors() -> None:
    """kamailio-uac g.2."""
    for password, old, new, value in [
        ("", b"sip:bob@a.com", b"sip:88@b.org", b"AAAAAFpXIiJPQREIbQ--"),
        ("key", b"sip:bob@a.com", b"sip:88@b.org", b"a2V5az8uSUc2KnRxBg--"),
        ("", b"sip:a@b.c", b"sip:+4930@x.de", b"AAAAAEp0Wx1TQHguZGU-"),
    ]:  # fmt: skip
        codec = KamailioCodec(password, "vsf", "vst")
        assert codec.encode(old, new) == value
        assert codec.decode(value, old) == new and codec.decode(value, new) == old
    codec = KamailioCodec("", "vsf", "vst")
    assert codec.decode(b"!!", b"sip:x") == b"" and codec.decode(b"AAAA", b"sip:longer") == b""
    params = codec.write(Views(b"<sip:bob@a.com>", b"<sip:88@b.org>"), b"c", b"ft", "")
    assert params.startswith(b";ftag=ft;vsf=AAAAAFpXIiJPQREIbQ--;vsfc=")


def test_a_configuration_that_cannot_work_is_refused_with_its_cause() -> None:
    for bad in (
        {"restore_mode": "some"}, {"restore_codec": "rot13"}, {"seal_keys": (b"short",)}, {"timer_c": 100.0},
        {"rr_from_store_param": "a;b"}, {"rr_to_store_param": "vsf"},
        {"rr_to_store_param": "vsfc"}, {"rr_from_store_param": "vstc"},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            Configuration(**bad)  # type: ignore[arg-type]
    assert "secret" not in repr(Configuration(restore_passwd="secret", seal_keys=(A,)))
