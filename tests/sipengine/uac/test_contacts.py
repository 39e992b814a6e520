"""Which of the Contacts in a 200 to REGISTER is ours, and how long it is granted (sip-requirements H4)."""

from __future__ import annotations

import pytest

from sipengine.events import RegistrationState as State
from sipengine.message import Message, parse
from sipengine.uac.binding import granted_seconds
from sipengine.uac.contacts import listed, ours, stale
from tests.sipengine.uac.registrar import Network, Reply, account, granting

pytestmark = [pytest.mark.checklist("H4"), pytest.mark.rfc("3261", "10.2.4")]

SENT = b"sip:acc1@192.0.2.1:5060"
NUMBER = b"sip:4930@192.0.2.1:5060;line=acc1"


def answer(*contacts: str) -> bytes:
    lines = [
        "SIP/2.0 200 OK", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", "From: <sip:a@b>;tag=1",
        "To: <sip:a@b>;tag=2", "Call-ID: c", "CSeq: 1 REGISTER", *[f"Contact: {contact}" for contact in contacts],
        "Content-Length: 0", "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(("contacts", "seconds"), [
    (("<sip:acc1@192.0.2.7:5060>;expires=3000", "<sip:acc1@192.0.2.1:5060>;expires=60"), 60),
    (("<sip:acc1@192.0.2.1:5060>;expires=60", "<sip:acc1@192.0.2.7:5060>;expires=3000"), 60),
    (("<sip:acc1@192.0.2.1:5060>;expires=3000", "<sip:acc1@192.0.2.7:5060>;expires=60"), 3000),
    (("<sip:acc1@192.0.2.1:5060>;expires=0", "<sip:acc1@192.0.2.7:5060>;expires=3000"), None),
    (("<sip:acc1@203.0.113.1:1>;expires=3000", "<sip:acc1@203.0.113.1:2>;expires=60"), 60),
    (("<sip:acc1@203.0.113.1:1>;expires=0", "<sip:acc1@203.0.113.1:2>;expires=60"), 60),
    (("<sip:%61cc1@192.0.2.1:5060;ob>;expires=90", "<sip:acc1@192.0.2.1:5061>;expires=80"), 90),
    (("<sip:other@192.0.2.1:5060>;expires=9", "<sip:acc1@10.0.0.1>;expires=90"), 90),
    (("<sip:other@192.0.2.1:5060>;expires=9", "<sip:more@10.0.0.1>;expires=90"), None),
    (("<sip:rewritten@10.0.0.1>;expires=90",), 90),
])  # fmt: skip
def test_the_contact_that_was_sent_counts_and_of_rewritten_ones_the_shortest(
    contacts: tuple[str, ...], seconds: int | None
) -> None:
    message = parse(answer(*contacts))
    assert granted_seconds(message, ours(listed(message), SENT, b"acc1", b""), 600) == seconds


@pytest.mark.parametrize(("contacts", "ours_are"), [
    (("<sip:4930@192.0.2.7;line=acc2>", "<sip:4930@10.0.0.1;line=acc1>"), [1]),
    (("<sip:4930@192.0.2.7:5060>", "<sip:4930@192.0.2.1:5060>"), [1]),  # the registrar dropped the parameter
    (("<sip:4930@192.0.2.7:5060>", "<sip:else@192.0.2.1:5060>"), [0]),
    (("<sip:4930@192.0.2.7;line=acc1>", "<sip:4930@192.0.2.1:5060;line=acc1>"), [1]),
    (("<sip:x@192.0.2.7>", "<sip:y@192.0.2.8>"), []),
    (("<sip:x@192.0.2.7>", "<tel:+4930>", "*"), [0]),
])  # fmt: skip
def test_by_line_then_by_user_then_the_only_one(contacts: tuple[str, ...], ours_are: list[int]) -> None:
    found = listed(parse(answer(*contacts)))
    assert ours(found, NUMBER, b"4930", b"acc1") == [found[number] for number in ours_are]


def test_a_shrunken_grant_beside_an_earlier_address_is_refreshed_in_time() -> None:
    """The earlier binding lives for long; ours would have lapsed at its end."""
    network = Network(granting())
    network.registrations.change(account(), network.now)
    network.run(1)
    earlier = "<sip:acc000001@192.0.2.7:5060>;expires=3000"
    network.answer = lambda message: (200, "OK", [f"Contact: {earlier}, <sip:acc000001@192.0.2.1:5060>;expires=60"])
    network.registrations.register("acc000001", network.now)
    network.run(1)
    last = network.last()
    assert (last.state, last.granted) == (State.REGISTERED, 60)
    network.run(60)
    assert network.sent[-1].at - last.at < 60


@pytest.mark.parametrize(("sent", "user", "line", "contacts", "stale_are"), [
    (SENT, b"acc1", b"", ("<sip:acc1@192.0.2.1:5060>", "<sip:acc1@10.0.0.1>", "<sip:phone@10.0.0.1>"), [1]),
    (SENT, b"acc1", b"", ("<sip:acc1@192.0.2.1:5060>", "<sip:acc1@10.0.0.1>;expires=0"), []),
    (NUMBER, b"4930", b"acc1", (
        "<sip:4930@192.0.2.1:5060;line=acc1>", "<sip:4930@10.0.0.1;line=acc1>", "<sip:4930@10.0.0.1;line=acc2>",
    ), [1]),
])  # fmt: skip
def test_earlier_addresses_of_ours(
    sent: bytes, user: bytes, line: bytes, contacts: tuple[str, ...], stale_are: list[int]
) -> None:
    found = listed(parse(answer(*contacts)))
    assert stale(found, ours(found, sent, user, line), user, line) == [found[number] for number in stale_are]


def test_an_operators_register_takes_earlier_addresses_back() -> None:
    kept = ["<sip:acc000001@203.0.113.9>;expires=2000", "<sip:phone@203.0.113.9>;expires=2000"]

    def answer_with_old(message: Message) -> Reply:
        removed = [value.decode().partition(";expires=0")[0] for value in message.get_all(b"Contact")[1:]]
        kept[:] = [contact for contact in kept if contact.partition(";")[0] not in removed]
        code, reason, headers = granting()(message) or (500, "", [])
        return code, reason, [*headers, *(f"Contact: {contact}" for contact in kept)]

    network = Network(answer_with_old)
    network.registrations.change(account(), network.now)
    network.run(700)
    assert len(network.sent) == 2 and network.last().stale == "sip:acc000001@203.0.113.9"
    assert all(len(sent.message.get_all(b"Contact")) == 1 for sent in network.sent), "nothing goes unasked"
    network.registrations.register("acc000001", network.now)
    network.run(1)
    assert network.sent[-1].message.get_all(b"Contact")[1:] == [b"<sip:acc000001@203.0.113.9>;expires=0"]
    assert network.last().stale == "" and kept == ["<sip:phone@203.0.113.9>;expires=2000"]
    network.run(700)
    assert len(network.sent[-1].message.get_all(b"Contact")) == 1
