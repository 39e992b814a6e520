"""uac_replace_from and uac_replace_to: the new name-addr of a From or To (kamailio-uac g.1).

Tags and other header parameters are never touched here.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sipengine.exceptions import LocalProtocolError
from sipengine.message.fields import CACHE_LIMIT
from sipengine.message.values import NameAddr, name_addr_of

_BREAKS = re.compile(rb"[\r\n\0]")
_NO_URI = re.compile(rb"[\x00-\x20<>]")
_WORDS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.!%*_+`'~ ")


def replaced(line: bytes, display_or_uri: bytes | str, second: bytes | str | None = None) -> bytes:
    """The name-addr that stands for that of a From or To line: of a display name and a URI, or of a URI alone.

    An empty display name removes the name, an empty URI leaves the URI, and a URI alone leaves the name.  Raises
    LocalProtocolError for what would break its line.
    """
    first = display_or_uri.encode() if isinstance(display_or_uri, str) else display_or_uri
    if isinstance(second, str):
        second = second.encode()
    display, uri = (None, first) if second is None else (first, second)
    if display is None or not uri:
        old = NameAddr.parse(name_addr_of(line))
        display = old.display if display is None else display
        uri = uri or old.uri
    if display and _BREAKS.search(display):
        raise LocalProtocolError("a display name holds CR, LF or NUL")
    _check_uri(uri)
    return b"%b <%b>" % (quoted(display), uri) if display else b"<%b>" % uri


@lru_cache(CACHE_LIMIT)
def _check_uri(uri: bytes) -> None:
    if _NO_URI.search(uri) or uri.find(b":") < 1:
        raise LocalProtocolError(f"{uri.decode(errors='replace')} is no URI for From or To")


def quoted(display: bytes) -> bytes:
    """A display name as it may stand in front of '<': tokens and quoted strings as they are, the rest quoted."""
    if _WORDS.issuperset(display) or (len(display) > 1 and display[:1] == b'"' and display[-1:] == b'"'):
        return display
    return b'"' + display.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
