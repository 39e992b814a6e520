"""What one copy of a request proves its sender with, for calls and for requests of our own (RFC 3261 §22; RFC 7616).

Says how a challenge is answered and when it is not any more; which credentials answer it, its caller has found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sipengine.message.message import Message
from sipengine.transport.flow import Address
from sipengine.uac.digest import Challenge, Credentials
from sipengine.uac.nonces import Learnt, Nonces, Realm

MAX_TRIES, MAX_STALE = 2, 3
"""Answers to one realm: a second only to another nonce, a third only where the server calls the last one stale."""


class Submission:
    """How one copy of a request proves who sends it."""

    __slots__ = ("answers", "lines", "tries", "unasked")

    def __init__(self, answers: dict[Realm, Learnt], tries: dict[Realm, int], unasked: bool) -> None:
        self.answers = answers
        self.tries = tries
        """How often each realm was answered, over all copies before."""
        self.unasked = unasked
        """Nobody has asked yet: the answers are those that this server took before."""
        self.lines: tuple[bytes, ...] = ()
        """Header lines as sent."""

    @classmethod
    def of_known(cls, nonces: Nonces, server: Address, credentials: Iterable[Credentials], now: float) -> Submission:
        """What this server is likely to ask for."""
        return cls(nonces.known(server, credentials, now), {}, True)

    def challenged(
        self, found: Collection[tuple[Challenge, Credentials]], nonces: Nonces, server: Address, now: float
    ) -> Submission | None:
        """How to answer these challenges to this copy; None where what it answered was refused."""
        answers, tries = self.answers.copy(), self.tries.copy()
        if self.unasked:
            # Nobody asked for these: one whose realm has another name now stays out, since simple servers read only
            # the first answer. A realm of the other kind (401, 407) may still be asked for.
            kinds = {challenge.proxy for challenge, _ in found}
            asked = {(challenge.proxy, challenge.realm) for challenge, _ in found}
            for realm in [realm for realm in answers if realm[0] in kinds and realm not in asked]:
                nonces.forget(server, answers.pop(realm).credentials, realm)
        for challenge, credentials in found:
            realm = challenge.proxy, challenge.realm
            before = answers.get(realm)
            if before is not None and not self.unasked:
                most = MAX_STALE if challenge.stale else MAX_TRIES
                if before.challenge.nonce == challenge.nonce or tries.get(realm, 0) >= most:
                    self.disbelieved(now)
                    return None
            tries[realm] = tries.get(realm, 0) + 1
            refused = before is not None and self.unasked
            answers[realm] = nonces.learn(server, challenge, credentials, refused, now)
        return Submission(answers, tries, False)

    def write(self, method: bytes, uri: bytes, cnonce: bytes, body: bytes) -> tuple[bytes, ...]:
        """Make the header lines of this copy; each nonce's count rises."""
        self.lines = tuple([learnt.line(method, uri, cnonce, body) for learnt in self.answers.values()])
        return self.lines

    def accepted(self, message: Message, nonces: Nonces, now: float) -> None:
        """A 2xx came."""
        nonces.accepted(self.answers, message, self.unasked, now)

    def disbelieved(self, now: float) -> None:
        """The server refused what it was answered: nobody shows it that again unasked."""
        for learnt in self.answers.values():
            learnt.disbelieve(now)
