"""What each side of a call may see: the identities of From and To, and which fields stay hidden (RFC 3261 §12.2).

Absolute values of both views are kept, never a difference: a peer that alters a display name breaks nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from sipengine.message.fields import CANONICAL

ANONYMOUS = b"<sip:anonymous@anonymous.invalid>"
VERSION = b"1"
MAX_TOKEN = 200
"""Characters: the token travels in each request and response of the call, twice in some (sip-requirements K5)."""

HIDEABLE = (
    b"p-asserted-identity", b"p-preferred-identity", b"remote-party-id", b"diversion", b"history-info", b"reply-to",
    b"referred-by", b"identity",
)  # fmt: skip
"""Fields whose removal from the first request holds for the whole call; the bit of each is its index."""
HIDEABLE_BITS = {CANONICAL[name]: 1 << i for i, name in enumerate(HIDEABLE)}

_FIELDS = [
    frozenset(CANONICAL[name] for i, name in enumerate(HIDEABLE) if bits >> i & 1)
    for bits in range(1 << len(HIDEABLE))
]
_FROM, _TO, _CONTACT, _ANONYMOUS, _KEY, _TRUNK, _SHIFT, _INCOMING = 1, 2, 4, 8, 16, 32, 64, 128


class Views(NamedTuple):
    """name-addr values without header parameters; b"" pairs were not changed."""

    from_caller: bytes = b""
    """From as the caller wrote it."""
    from_callee: bytes = b""
    """From as the callee sees it."""
    to_caller: bytes = b""
    to_callee: bytes = b""
    hidden: int = 0
    """Fields that never pass from the caller to the callee, as bits of `HIDEABLE`."""
    contact: bool = False
    """Whether the caller's Contact user is hidden."""

    def hidden_fields(self) -> frozenset[bytes]:
        return _FIELDS[self.hidden]


def pack(views: Views, key: bytes, l_uuid: bytes = b"", incoming: bool = False, shift: int = 0) -> bytes | None:
    """Bytes to seal; None when a value is too long.

    `key`: the call's key as 16 hex digits, or b"".  `l_uuid`: the account of the call, whose provider is
    the callee's side, with `incoming` the caller's.  `shift`: what the callee's side has CSeq ahead of the caller's.
    """
    flags = 0
    parts: list[bytes] = []
    values: list[bytes] = []
    if views.from_callee:
        flags |= _FROM
        values.append(views.from_caller)
        if views.from_callee == ANONYMOUS:
            flags |= _ANONYMOUS
        else:  # mostly the same display name with another URI
            same = views.from_caller.find(b":", 0, 255) + 1
            if views.from_callee[:same] != views.from_caller[:same]:
                same = 0
            values.append(bytes((same,)) + views.from_callee[same:])
    if views.to_callee:
        flags |= _TO
        values += (views.to_caller, views.to_callee)
    if views.contact:
        flags |= _CONTACT
    if key:
        flags |= _KEY
        parts.append(bytes.fromhex(key.decode()))
    if l_uuid:
        flags |= _TRUNK | _INCOMING if incoming else _TRUNK
        values.append(l_uuid)
    if shift:
        flags |= _SHIFT
        values.append(shift.to_bytes((shift.bit_length() + 7) // 8, "big"))
    for value in values:
        if len(value) > 255:
            return None
        parts.append(bytes((len(value),)) + value)
    return bytes((flags, views.hidden)) + b"".join(parts)


def unpack(data: bytes) -> tuple[Views, bytes, bytes, bool, int]:
    """Inverse of `pack`; only for what our own seal protected."""
    flags, hidden = data[0], data[1]
    at = 2
    key = b""
    if flags & _KEY:
        key = data[2:10].hex().encode()
        at = 10
    values: list[bytes] = []
    while at < len(data):
        end = at + 1 + data[at]
        values.append(data[at + 1 : end])
        at = end
    from_caller = from_callee = to_caller = to_callee = b""
    if flags & _FROM:
        from_caller = values.pop(0)
        if flags & _ANONYMOUS:
            from_callee = ANONYMOUS
        else:
            rest = values.pop(0)
            from_callee = from_caller[: rest[0]] + rest[1:]
    if flags & _TO:
        to_caller, to_callee = values.pop(0), values.pop(0)
    l_uuid = values.pop(0) if flags & _TRUNK else b""
    shift = int.from_bytes(values.pop(0), "big") if flags & _SHIFT else 0
    views = Views(from_caller, from_callee, to_caller, to_callee, hidden, bool(flags & _CONTACT))
    return views, key, l_uuid, bool(flags & _INCOMING), shift


def bound_to(call_id: bytes, caller_tag: bytes) -> bytes:
    """Associated data of a call's token: it opens in no other call, and by its tag it tells who speaks."""
    return b"%b\0%b\0%b" % (VERSION, call_id, caller_tag)
