"""Branches, tags and keys out of the host's entropy, drawn in large pieces (RFC 3261 §8.1.1.7, §19.3)."""

from __future__ import annotations

from collections.abc import Callable

POOL = 4096


class Identifiers:
    __slots__ = ("_at", "_count", "_entropy", "_hex", "_prefix", "_raw", "_raw_at")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._hex = b""
        self._at = 0
        self._raw = b""
        self._raw_at = 0
        self._count = 0
        self._prefix = ""

    def hex(self) -> bytes:
        """Sixteen hex digits, 64 random bits: a branch, a tag or a key that nobody can guess."""
        at = self._at
        if at >= len(self._hex):
            self._hex = self._entropy(POOL).hex().encode()
            at = 0
        self._at = at + 16
        return self._hex[at : at + 16]

    def key(self) -> str:
        """Sixteen hex digits that nobody else gives: ten random ones and a count, so that rows under them lie together.
        """
        count = self._count
        if not count:
            self._prefix = self._entropy(5).hex()
        self._count = (count + 1) & 0xFFFFFF
        return f"{self._prefix}{count:06x}"

    def nonce(self) -> bytes:
        """Twelve random bytes."""
        at = self._raw_at
        if at + 12 > len(self._raw):
            self._raw = self._entropy(POOL)
            at = 0
        self._raw_at = at + 12
        return self._raw[at : at + 12]
