"""Branches, tags and keys out of the host's entropy, drawn in large pieces (RFC 3261 §8.1.1.7, §19.3)."""

from __future__ import annotations

from collections.abc import Callable

POOL = 4096


class Identifiers:
    __slots__ = ("_at", "_entropy", "_hex", "_raw", "_raw_at")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._hex = b""
        self._at = 0
        self._raw = b""
        self._raw_at = 0

    def hex(self) -> bytes:
        """Sixteen hex digits, 64 random bits: a branch, a tag or a key that nobody can guess."""
        at = self._at
        if at >= len(self._hex):
            self._hex = self._entropy(POOL).hex().encode()
            at = 0
        self._at = at + 16
        return self._hex[at : at + 16]

    def nonce(self) -> bytes:
        """Twelve random bytes."""
        at = self._raw_at
        if at + 12 > len(self._raw):
            self._raw = self._entropy(POOL)
            at = 0
        self._raw_at = at + 12
        return self._raw[at : at + 12]
