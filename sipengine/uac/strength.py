"""Which realms have taken a strong digest, so that nobody on the way can ask for a weak one instead (RFC 7616 §5.8).

An account whose realm once let it through with a SHA-2 answers no challenge for MD5 any more, unless it says itself
which digest is its weakest.  Does not judge what an HA1 allows: one of MD5 answers MD5 only.
"""

from __future__ import annotations

from collections.abc import Iterable

from sipengine.uac.digest import Challenge, Credentials

CAPACITY = 10_000
WEAK = b"MD5"


class Strength:
    """By user name and realm."""

    def __init__(self) -> None:
        self._strong: dict[tuple[bytes, bytes], None] = {}

    def took(self, answers: Iterable[tuple[Challenge, Credentials]]) -> None:
        """A request with these answers was let through."""
        for challenge, credentials in answers:
            if challenge.algorithm != WEAK:
                self.learn(credentials.username, challenge.realm)

    def learn(self, username: bytes, realm: bytes) -> None:
        """Take up what was known before a restart."""
        if len(self._strong) >= CAPACITY:
            del self._strong[next(iter(self._strong))]
        self._strong[username, realm] = None

    def allows(self, challenge: Challenge, credentials: Credentials) -> bool:
        """Whether these credentials may answer this challenge."""
        if challenge.algorithm != WEAK:
            return True
        if credentials.weakest:
            return credentials.weakest == WEAK
        return (credentials.username, challenge.realm) not in self._strong
