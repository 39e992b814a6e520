"""Nonces that servers gave us, used again with a rising count, so that the next request needs no challenge (RFC 7616
§3.3, §3.4; RFC 3261 §22.3).

By server address and credentials: a nonce is its server's, and nobody else gets to see an answer to it.  Where servers
do not take a nonce twice, it is not tried for an hour.  Bounded; nothing is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from sipengine.message.message import Message
from sipengine.transport.flow import Address
from sipengine.uac.digest import Challenge, Credentials, answer

CAPACITY = 20_000
REFUSALS = 2
"""In a row; after them nonces of this server are used once each, for `PAUSE` seconds."""
PAUSE = 3600.0
AGE = 3600.0
"""Seconds after it was last taken in which a nonce is tried unasked."""

_NEXT = re.compile(rb'(?:^|[\s,])nextnonce\s*=\s*"([^"\\\r\n]+)"', re.IGNORECASE)

Realm = tuple[bool, bytes]
"""Whether a proxy asks, and its realm."""


class Learnt:
    """A challenge and the credentials that answer it; counts how often its nonce was used."""

    __slots__ = ("challenge", "credentials", "nc", "refused", "silent_until", "taken_at")

    def __init__(self, challenge: Challenge, credentials: Credentials, now: float) -> None:
        self.challenge = challenge
        self.credentials = credentials
        self.nc = 0
        self.taken_at = now
        self.refused = 0
        """How often in a row a nonce used unasked was refused."""
        self.silent_until = 0.0

    def line(self, method: bytes, uri: bytes, cnonce: bytes, body: bytes) -> bytes:
        """The header line for one request; the count rises with each (RFC 7616 §3.4: nc)."""
        self.nc += 1
        name, value = answer(
            self.challenge, self.credentials, method, uri, nc=self.nc, cnonce=cnonce, body=body
        )
        return name + b": " + value

    def usable(self, now: float) -> bool:
        """Whether it may be tried without being asked."""
        return self.silent_until <= now < self.taken_at + AGE and bool(self.challenge.qop)

    def refuse(self, now: float) -> None:
        """It was refused unasked; after some in a row it is not tried for a while."""
        self.refused += 1
        if self.refused >= REFUSALS:
            self.disbelieve(now)

    def disbelieve(self, now: float) -> None:
        """Do not try it, nor its successors, for a while."""
        self.refused, self.silent_until = 0, now + PAUSE


class Nonces:
    def __init__(self) -> None:
        self._learnt: dict[tuple[Address, Credentials], dict[Realm, Learnt]] = {}

    def __len__(self) -> int:
        return len(self._learnt)

    def learn(
        self, server: Address, challenge: Challenge, credentials: Credentials, refused: bool, now: float
    ) -> Learnt:
        """Take up a challenge; `refused`: it came though the request carried an answer that nobody had asked for."""
        by_realm = self._learnt.get((server, credentials))
        if by_realm is None:
            if len(self._learnt) >= CAPACITY:
                del self._learnt[next(iter(self._learnt))]
            by_realm = self._learnt[server, credentials] = {}
        realm = challenge.proxy, challenge.realm
        before = by_realm.get(realm)
        if before is not None and refused:
            before.refuse(now)
        if before is not None and before.challenge.nonce == challenge.nonce:
            return before
        if before is None and len(by_realm) >= 4:
            by_realm.clear()
        learnt = by_realm[realm] = Learnt(challenge, credentials, now)
        if before is not None:
            learnt.refused, learnt.silent_until = before.refused, before.silent_until
        return learnt

    def forget(self, server: Address, credentials: Credentials, realm: Realm) -> None:
        """Show this server no answer for that realm until it asks for one."""
        self._learnt.get((server, credentials), {}).pop(realm, None)

    def known(self, server: Address, credentials: Iterable[Credentials], now: float) -> dict[Realm, Learnt]:
        """What this server is likely to ask for, and the answer that it took last."""
        found: dict[Realm, Learnt] = {}
        if not self._learnt:
            return found
        for secret in credentials:
            for realm, learnt in self._learnt.get((server, secret), {}).items():
                if realm not in found and learnt.usable(now):
                    found[realm] = learnt
        return found

    def accepted(self, answers: dict[Realm, Learnt], message: Message, unasked: bool, now: float) -> None:
        """A request with these answers was let through."""
        for (proxy, _), learnt in answers.items():
            learnt.taken_at = now
            if unasked:
                learnt.refused = 0
            name = b"Proxy-Authentication-Info" if proxy else b"Authentication-Info"
            following = _NEXT.search(message.get(name) or b"")
            # RFC 7616 §3.5: the server wants this one from now on. A repeated 2xx says it again, and the count goes on.
            if following is not None and following[1] != learnt.challenge.nonce:
                learnt.challenge = replace(learnt.challenge, nonce=following[1])
                learnt.nc = 0
