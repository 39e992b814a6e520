"""Tokens that only we can read or make: AES-256-GCM, base64url (what a Record-Route or a Contact carries for us).

The key's id travels in front, so keys rotate; the caller's `bound_to` binds a token to its call.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

NONCE = 12
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
FORBIDDEN = ("via", "cseq", "from", "rout", "cont", "call-", "max-", "event")
"""No token holds one of these in any case: careless peers find header fields by a bare substring (SIPp does)."""


def _misleads(token: bytes) -> bool:
    """Whether one of FORBIDDEN is in a token; written out because it is asked twice a call."""
    text = token.decode().lower()  # `in` is four times faster on str
    return (
        "via" in text or "cseq" in text or "from" in text or "rout" in text or "cont" in text or "call-" in text
        or "max-" in text or "event" in text
    )


class Sealer:
    def __init__(self, keys: Sequence[bytes], nonce: Callable[[], bytes]) -> None:
        """`keys`: 32 bytes each, newest first; only the first one seals."""
        self._nonce = nonce
        self._keys = [(sha256(b"seal key id" + key).digest()[:1], AESGCM(key)) for key in keys]

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        key_id, key = self._keys[0]
        while True:
            nonce = self._nonce()
            raw = key_id + nonce + key.encrypt(nonce, plain, bound_to)
            token = binascii.b2a_base64(raw, newline=False).translate(_TO_URL).rstrip(b"=")
            if not _misleads(token):
                return token

    def open(self, token: bytes, bound_to: bytes) -> bytes | None:
        """What was sealed; None for a token that is not ours, altered, or of another call."""
        try:
            raw = binascii.a2b_base64(token.translate(_FROM_URL) + b"=" * (-len(token) % 4))
        except binascii.Error:
            return None
        if len(raw) < 1 + NONCE + 16:
            return None
        for key_id, key in self._keys:
            if raw[:1] == key_id:
                try:
                    return key.decrypt(raw[1 : 1 + NONCE], raw[1 + NONCE :], bound_to)
                except InvalidTag:
                    continue
        return None
