"""The codec `kamailio`: the seed module's Record-Route values, bit for bit."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("value", [b"", b"*", b"AAAA", b"/////w--", b"AAAAAFpXIiJPQREIbQ-"])
def test_a_value_of_another_uri_changes_nothing(value: bytes) -> None:
    assert KamailioCodec("", "vsf", "vst").decode(value, b"sip:88@b.org") == b""
