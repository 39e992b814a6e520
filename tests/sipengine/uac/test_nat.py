"""The address that a registrar sees us as: our Contact follows it, once and not with each whim of a NAT."""

from __future__ import annotations

import pytest

from sipengine.configuration import Configuration
from sipengine.events import RegistrationState as State
from sipengine.message import Message
from sipengine.uac.binding import BindingRecord
from tests.sipengine.uac.registrar import Network, account, challenging, granting

LOCAL, PUBLIC, OTHER = "192.0.2.1:5060", "198.51.100.7:40000", "198.51.100.7:40001"


class Nat(Network):
    """The registrar sees requests come from `outside`."""

    outside = PUBLIC

    def _deliver(self, data: bytes, flow: object) -> None:
        super()._deliver(data, flow)  # type: ignore[arg-type]
        host, _, port = self.outside.rpartition(":")
        at, answer, way = self._inbox[-1]
        answer = answer.replace(b";rport\r\n", f";received={host.strip('[]')};rport={port}\r\n".encode(), 1)
        self._inbox[-1] = at, answer, way


def start(network: Network, **changes: object) -> Network:
    network.registrations.change(account(**changes), network.now)
    network.run(2)
    return network


def contacts(message: Message) -> list[str]:
    return [value.decode() for value in message.get_all(b"Contact")]


def named(address: str) -> str:
    return f"<sip:acc000001@{address}>"


@pytest.mark.checklist("H13")
def test_the_contact_follows_at_once_and_takes_the_old_one_back() -> None:
    network = start(Nat(challenging(granting())))
    sent = [sent for sent in network.sent if sent.authorized]
    assert [contacts(each.message) for each in sent] == [
        [named(LOCAL)], [named(PUBLIC), f"{named(LOCAL)};expires=0"],
    ]
    last = network.last()
    assert (last.state, last.contact, last.local_address, last.seen_address) == (
        State.REGISTERED, named(PUBLIC)[1:-1], LOCAL, PUBLIC,
    )
    count = len(network.sent)
    network.run(3600)
    assert all(contacts(each.message) == [named(PUBLIC)] for each in network.sent[count:])
    assert not any(event.final and not event.unchanged for event in network.events if event.at > 1010), "no news"


@pytest.mark.checklist("H13")
def test_a_nat_that_changes_each_time_is_followed_once_in_a_while() -> None:
    network = Nat(granting(60))
    ports = iter(range(40000, 41000))
    deliver = network._deliver

    def elsewhere(data: bytes, flow: object) -> None:
        network.outside = f"198.51.100.7:{next(ports)}"
        deliver(data, flow)

    network._deliver = elsewhere  # type: ignore[method-assign]
    start(network)
    network.run(3600)
    refreshes = 3600 / 36
    assert len(network.sent) <= refreshes * 1.25, "a change costs a REGISTER, and most are not followed"


@pytest.mark.checklist("H13")
def test_a_new_address_is_followed_and_the_way_back_too() -> None:
    network = start(Nat(granting(60)))
    network.outside = OTHER
    network.run(60)
    assert network.last().contact == named(OTHER)[1:-1]
    network.outside = LOCAL
    network.run(60)
    assert network.last().contact == named(LOCAL)[1:-1]


@pytest.mark.checklist("H13")
def test_a_challenge_teaches_nothing() -> None:
    network = start(Nat(lambda message: (403, "Forbidden", [])))
    network.run(600)
    assert {sent.contact for sent in network.sent} == {named(LOCAL)}


@pytest.mark.checklist("H13")
@pytest.mark.parametrize("outside", [
    "0.0.0.0:5060", "224.0.0.1:5060", "169.254.1.1:5060", "192.0.2.1:0", "192.0.2.1:99999", "nowhere:5060", ":5060",
])
def test_an_address_that_cannot_be_meant_is_not_taken(outside: str) -> None:
    network = Nat(granting())
    network.outside = outside
    start(network)
    assert [sent.contact for sent in network.sent] == [named(LOCAL)]


@pytest.mark.checklist("H13")
def test_a_private_address_seen_by_a_public_server_is_not_taken() -> None:
    network = Nat(granting())
    network.outside = "10.1.2.3:5060"
    start(network, auth_proxy="sip:9.9.9.9")
    assert [sent.contact for sent in network.sent] == [named(LOCAL)]


@pytest.mark.parametrize("fixed", ["account", "all", "off"])
def test_a_fixed_contact_stays(fixed: str) -> None:
    configuration = Configuration(
        reg_contact_addr="203.0.113.5" if fixed == "all" else "", reg_learn_address=fixed != "off"
    )
    contact_addr = "pbx.example" if fixed == "account" else ""
    network = start(Nat(granting(), configuration=configuration), contact_addr=contact_addr)
    assert len(network.sent) == 1 and PUBLIC not in network.sent[0].contact


@pytest.mark.checklist("H2")
def test_a_restart_keeps_what_was_learnt() -> None:
    before = start(Nat(granting()))
    last = before.last()
    record = BindingRecord(
        last.call_id, last.from_tag, last.cseq, last.contact, last.granted, last.bound_until_at, last.next_attempt_at,
        last.generation, local_address=last.local_address, seen_address=last.seen_address,
    )
    after = Nat(granting(), now=before.now + 5, seed=999)
    after.registrations.load(account(), record, after.now)
    after.run(600)
    assert [contacts(sent.message) for sent in after.sent] == [[named(PUBLIC)]], "the refresh, at its time"
