"""What `uac_replace_from` and `uac_replace_to` make of a name-addr."""

from __future__ import annotations

import pytest

from sipengine.exceptions import LocalProtocolError
from sipengine.uac.replace import replaced


@pytest.mark.parametrize(("current", "display", "uri", "becomes"), [
    (b'"Bob" <sip:bob@a.example>', b"sip:88@b.example", None, b'"Bob" <sip:88@b.example>'),
    (b'"Bob" <sip:bob@a.example>', "sip:88@b.example", None, b'"Bob" <sip:88@b.example>'),
    (b"sip:bob@a.example", b"sip:88@b.example;x=y", None, b"<sip:88@b.example;x=y>"),
    (b"sip:bob@a.example;x=y", b"", None, b"<sip:bob@a.example>"),
    (b'"Bob" <sip:bob@a.example>', "Bj\u00f6rn", "", '"Bj\u00f6rn" <sip:bob@a.example>'.encode()),
    (b'"Bob" <sip:bob@a.example>', b"", b"sip:88@b.example", b"<sip:88@b.example>"),
    (b'"Bob" <sip:bob@a.example>', b"batman", b"", b"batman <sip:bob@a.example>"),
    (b'"Bob" <sip:bob@a.example>', b"", b"", b"<sip:bob@a.example>"),
    (b"<sip:bob@a.example>", b'a "quoted", name', b"", b'"a \\"quoted\\", name" <sip:bob@a.example>'),
    (b"<sip:bob@a.example>", b'"as it is"', b"sip:x@y", b'"as it is" <sip:x@y>'),
])
def test_display_name_and_uri_change_apart(
    current: bytes, display: bytes | str, uri: bytes | str | None, becomes: bytes
) -> None:
    assert replaced(b"From: " + current + b";tag=1", display, uri) == becomes


@pytest.mark.parametrize(("display", "uri"), [
    (b"a\r\nVia: x", b""), (b"a", b"sip:x\n@y"), (b"sip:x>@y", None), (b"no-uri", None), (b"sip:x y@z", None),
])
def test_what_would_break_the_line_is_refused(display: bytes, uri: bytes | None) -> None:
    with pytest.raises(LocalProtocolError):
        replaced(b"From: <sip:bob@a.example>;tag=1", display, uri)
