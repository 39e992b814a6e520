"""The codec `kamailio`: the seed module's Record-Route values, bit for bit."""

from __future__ import annotations

import pytest

from sipengine.dialog.views import Views
from sipengine.uac.restore import KamailioCodec

#: Computed by the seed module's rules; the long one is checked against a public trace of it.
VECTORS = [
    ("", b"sip:bob@a.com", b"sip:88@b.org", b"AAAAAFpXIiJPQREIbQ--"),
    ("key", b"sip:bob@a.com", b"sip:88@b.org", b"a2V5az8uSUc2KnRxBg--"),
    ("", b"sip:a@b.c", b"sip:+4930@x.de", b"AAAAAEp0Wx1TQHguZGU-"),
]


@pytest.mark.parametrize(("password", "original", "new", "value"), VECTORS)
def test_values_are_those_of_the_seed_module(password: str, original: bytes, new: bytes, value: bytes) -> None:
    codec = KamailioCodec(password, "vsf", "vst")
    assert codec.encode(original, new) == value
    assert codec.decode(value, new) == original
    assert codec.decode(value, original) == new


@pytest.mark.parametrize("value", [
    b"", b"*", b"AAAA", b"/////w--", b"AAAAAFpXIiJPQREIbQ-", b"AAAA AFpXIiJPQREIbQ--",
])
def test_a_value_of_another_uri_changes_nothing(value: bytes) -> None:
    assert KamailioCodec("", "vsf", "vst").decode(value, b"sip:88@b.org") == b""


@pytest.mark.parametrize("other", [
    b"sip:", b"rip:bob@a.com", b"sip:b\x01b@a.com", b"sip:b\xffb@a.com", b"sip:bob@a.co<", b"sip:b b@a.com",
    b"sip:bob@a.c:x", b'sip:b"b@a.com', b"sip:@a.com",
])  # fmt: skip
def test_what_is_no_uri_changes_nothing(other: bytes) -> None:
    codec = KamailioCodec("key", "vsf", "vst")
    assert codec.decode(codec.encode(b"sip:88@b.org", other), b"sip:88@b.org") == b""


ORIGINAL, NEW = b"sip:bob@a.com", b"sip:88@b.org"
FROM_BOB = b'"Bob" <sip:bob@a.com>', b"<sip:88@b.org>"


@pytest.mark.parametrize(("views", "params"), [
    (Views(*FROM_BOB), b";ftag=a7;vsf=AAAAAFpXIiJPQREIbQ--;vsfc=%c"),
    (Views(b"", b"", *FROM_BOB), b";ftag=a7;vst=AAAAAFpXIiJPQREIbQ--;vstc=%c"),
    (Views(*FROM_BOB, *FROM_BOB),
     b";ftag=a7;vsf=AAAAAFpXIiJPQREIbQ--;vsfc=%c;vst=AAAAAFpXIiJPQREIbQ--;vstc=%c"),
    (Views(b"<sip:bob@a.com>", b"batman <sip:bob@a.com>"), b""),  # the seed stores nothing for a display name
    (Views(b"<sip:bob@a.com>", b"<sip:%b@a.com>" % (b"x" * 1020)), b""),
    (Views(), b""),
])  # fmt: skip
def test_what_stands_in_the_record_route(views: Views, params: bytes) -> None:
    codec = KamailioCodec("", "vsf", "vst")
    params = params.replace(b"%c", codec._check(ORIGINAL, NEW))
    assert codec.write(views, b"call", b"a7", "") == params
    assert codec.present(b";lr" + params + b";x=y") == params


@pytest.mark.parametrize(("from_", "to", "from_becomes", "to_becomes"), [
    (b'"Bob" <sip:bob@a.com>;tag=a7', b"<sip:c@d.e>;tag=z", b"<sip:88@b.org>", b""),  # downstream: From, O to N
    (b"<sip:c@d.e>;tag=z", b"Anon <sip:88@b.org>;tag=a7", b"", b"<sip:bob@a.com>"),  # upstream: To, N to O
])
@pytest.mark.parametrize("checked", [True, False])
def test_direction_decides_which_header_changes(
    from_: bytes, to: bytes, from_becomes: bytes, to_becomes: bytes, checked: bool
) -> None:
    codec = KamailioCodec("key", "vsf", "vst")
    params = codec.write(Views(*FROM_BOB), b"call", b"a7", "")
    if not checked:  # as Kamailio writes it
        params = params.partition(b";vsfc")[0]
        assert params.endswith(b"a2V5az8uSUc2KnRxBg--")
    found = codec.read(params, b"call", b"From: " + from_, b"To: " + to)
    assert found is not None and not found.whole
    if found.downstream:
        assert (found.views.from_callee, found.views.to_callee) == (from_becomes, to_becomes)
    else:
        assert (found.views.to_caller, found.views.from_caller) == (from_becomes, to_becomes)
