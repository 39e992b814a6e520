"""The simulated registrar keeps RFC 3261 §10.3 and §22.4: what it grants is what the simulation believes."""

from __future__ import annotations

import pytest

from simulation.registrar import Listing, Registrar
from sipengine.message import Message
from sipengine.message.build import request
from sipengine.uac.digest import Credentials, answer, parse_challenge

OURS = "<sip:line1@192.0.2.1:5060>"


class Phone:
    """Registers as it is told, with the credentials of the last challenge."""

    def __init__(self, registrar: Registrar, user: str = "alice", password: bytes = b"secret") -> None:
        self.registrar, self.user, self.password = registrar, user, password
        self.challenge: bytes | None = None
        self.nc = 0

    def send(
        self, cseq: int, *headers: tuple[bytes, bytes], call_id: bytes = b"c1", now: float = 0.0, proof: bool = True
    ) -> tuple[int, list[bytes]]:
        """One REGISTER, and one more where it is challenged."""
        status, lines = self.once(cseq, *headers, call_id=call_id, now=now)
        if status == 401 and proof:
            self.challenge, self.nc = lines[0].partition(b": ")[2], 0
            return self.once(cseq, *headers, call_id=call_id, now=now)
        return status, lines

    def once(
        self, cseq: int, *headers: tuple[bytes, bytes], call_id: bytes = b"c1", now: float = 0.0
    ) -> tuple[int, list[bytes]]:
        return self.registrar.answer(self.message(cseq, *headers, call_id=call_id), b"192.0.2.1:5060", now)

    def message(self, cseq: int, *headers: tuple[bytes, bytes], call_id: bytes = b"c1") -> Message:
        to = b"<sip:%b@p.example>" % self.user.encode()
        given = [(b"To", to), (b"From", to + b";tag=1"), (b"Call-ID", call_id), (b"CSeq", b"%d REGISTER" % cseq)]
        if self.challenge is not None:
            self.nc += 1
            challenge = parse_challenge(self.challenge, proxy=False)
            assert challenge is not None
            credentials = Credentials(self.user.encode(), self.password)
            given.append(answer(challenge, credentials, b"REGISTER", b"sip:p.example", nc=self.nc, cnonce=b"c"))
        return request(b"REGISTER", b"sip:p.example", [*given, *headers])


def contact(text: str) -> tuple[bytes, bytes]:
    return b"Contact", text.encode()


def expires(seconds: int) -> tuple[bytes, bytes]:
    return b"Expires", b"%d" % seconds


def registrar(**more: object) -> Registrar:
    return Registrar(b"p.example", {b"alice": b"secret"}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("headers", "granted"),
    [
        ([contact(OURS), expires(300)], 300),
        ([contact(OURS + ";expires=120"), expires(300)], 120),
        ([contact(OURS)], 3600),
        ([contact(OURS + ";expires=soon")], 3600),
        ([contact(OURS), expires(99_999)], 3600),
        ([contact(OURS), expires(0)], 0),
        ([contact(OURS + ";expires=0"), expires(300)], 0),
        ([], 0),
    ],
)
@pytest.mark.rfc("3261", "10.3")
def test_a_contact_is_bound_for_its_own_expires_then_the_header_then_the_default(
    headers: list[tuple[bytes, bytes]], granted: int
) -> None:
    there = registrar()
    status, lines = Phone(there).send(1, *headers)
    assert status == 200
    assert there.bound_until(b"alice") == granted
    assert lines == ([b"Contact: " + OURS.encode() + b";expires=%d" % granted] if granted else [])


def test_an_interval_below_the_shortest_is_too_brief() -> None:
    there = registrar(shortest=60)
    assert Phone(there).send(1, contact(OURS), expires(59)) == (423, [b"Min-Expires: 60"])
    assert there.bound_until(b"alice") == 0
    assert Phone(there).send(1, contact(OURS), expires(60))[0] == 200


def test_a_binding_lapses_and_is_not_listed_any_more() -> None:
    there = registrar()
    phone = Phone(there)
    phone.send(1, contact(OURS), expires(60))
    assert phone.send(2, now=59.0)[1] == [b"Contact: " + OURS.encode() + b";expires=1"]
    assert phone.send(3, now=60.0) == (200, [])


@pytest.mark.parametrize(
    ("call_id", "cseq", "status"), [(b"c1", 5, 500), (b"c1", 4, 500), (b"c1", 6, 200), (b"c2", 1, 200)]
)
def test_an_older_request_of_the_same_call_id_changes_nothing(call_id: bytes, cseq: int, status: int) -> None:
    there = registrar()
    phone = Phone(there)
    phone.send(5, contact(OURS), expires(60))
    other = contact("<sip:other@192.0.2.7>")
    assert phone.send(cseq, other, contact(OURS), expires(600), call_id=call_id, now=1.0)[0] == status
    assert len(there.tables[b"alice"]) == (2 if status == 200 else 1)
    assert there.bound_until(b"alice") == (601 if status == 200 else 60)


def test_the_star_takes_all_bindings_and_stands_alone_with_expires_0() -> None:
    there = registrar()
    phone = Phone(there)
    phone.send(1, contact(OURS), contact("<sip:other@192.0.2.7>"), expires(60))
    assert phone.send(2, contact("*"), expires(60))[0] == 400
    assert phone.send(3, contact("*"), contact(OURS), expires(0))[0] == 400
    assert len(there.tables[b"alice"]) == 2
    assert phone.send(4, contact("*"), expires(0)) == (200, [])
    assert there.bound_until(b"alice") == 0


def test_who_is_unknown_or_has_another_password_is_not_bound() -> None:
    there = registrar()
    assert Phone(there, "mallory").send(1, contact(OURS))[0] == 404
    assert Phone(there, password=b"guess").send(1, contact(OURS))[0] == 401
    assert there.bound_until(b"alice") == 0


def test_a_count_that_does_not_rise_is_a_replay() -> None:
    there = registrar()
    phone = Phone(there)
    phone.send(1, contact(OURS))
    phone.nc -= 1
    status, lines = phone.once(2, contact(OURS))
    assert status == 401
    assert b"stale=true" in lines[0]


@pytest.mark.parametrize(("more", "later"), [({"nonce_seconds": 30.0}, 31.0), ({"nonce_uses": 1}, 0.0)])
def test_a_nonce_wears_out(more: dict[str, object], later: float) -> None:
    there = registrar(**more)
    phone = Phone(there)
    assert phone.send(1, contact(OURS))[0] == 200
    status, lines = phone.once(2, contact(OURS), now=later)
    assert status == 401
    assert b"stale=true" in lines[0]


@pytest.mark.parametrize(
    ("listing", "lines"),
    [
        (Listing.BY_HEADER, [b"Expires: 60", b"Contact: " + OURS.encode()]),
        (Listing.REWRITTEN, [b"Contact: <sip:gw-1@192.0.2.1:5060>;expires=60"]),
        (Listing.DRESSED, [b'm: "Trunk, the" ' + OURS.encode() + b';q=0.7;EXPIRES=60;received="sip:192.0.2.1:5060"']),
    ],
)
def test_odd_listings_bind_the_same(listing: Listing, lines: list[bytes]) -> None:
    there = registrar(listing=listing)
    assert Phone(there).send(1, contact(OURS), expires(60)) == (200, lines)
    assert list(there.tables[b"alice"]) == [OURS[1:-1].encode()]
