"""Client-initiated flows: what REGISTER names, what the registrar's answer makes of it (RFC 5626)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sipengine.events import RegistrationState as State
from sipengine.message import Message
from sipengine.transport.stream import PING
from sipengine.uac.trial import Trial
from tests.sipengine.uac.registrar import Answer, Network, Reply, account, granting

pytestmark = [pytest.mark.checklist("H18"), pytest.mark.rfc("5626", "4.2")]

INSTANCE = "urn:uuid:00000000-0000-1000-8000-000a95a0e128"
FULL = f'<sip:acc000001@192.0.2.1:5060>;+sip.instance="<{INSTANCE}>";reg-id=1'


def keeping(seconds: int = 600, *headers: str) -> Answer:
    """Grants, and says that it keeps the flow."""
    serve = granting(seconds)

    def answer(message: Message) -> Reply:
        code, reason, told = serve(message) or (500, "", [])
        return code, reason, [*told, "Require: outbound", *headers]

    return answer


class Kept(Network):
    """Takes note of keep-alives, which are no messages."""

    def _deliver(self, data: bytes, flow: object) -> None:
        if data == PING:
            self.pings.append(self.now)
        else:
            super()._deliver(data, flow)  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pings: list[float] = []


def start(network: Kept, number: int = 1, **changes: object) -> Kept:
    network.registrations.change(account(number, instance=INSTANCE, **changes), network.now)
    network.run(1)
    return network


def test_register_names_the_instance_and_one_flow() -> None:
    network = start(Kept(keeping()))
    [sent] = network.sent
    assert sent.contact == FULL
    assert sent.message.get(b"Supported") == b"path, outbound"
    assert network.last().state is State.REGISTERED
    network.registrations.unregister("acc000001", network.now)
    network.run(1)
    assert network.sent[-1].contact == f"{FULL};expires=0"


def test_an_account_that_does_not_ask_for_it_sends_none_of_it() -> None:
    network = Kept(granting())
    network.registrations.change(account(), network.now)
    network.run(600)
    assert "instance" not in network.sent[0].contact and network.sent[0].message.get(b"Supported") == b"path"
    assert not network.pings


@pytest.mark.rfc("5626", "4.4.2")
def test_a_udp_flow_is_kept_open_while_the_registrar_counts_on_it() -> None:
    network = start(Kept(keeping()))
    start(network, 2)
    network.run(290)
    waits = [later - before for before, later in pairwise(network.pings)]
    assert len(network.pings) >= 9 and all(24 <= wait <= 29 for wait in waits), "one datagram for both accounts"
    network.answer = granting()
    network.run(600)
    count = len(network.pings)
    network.run(600)
    assert len(network.pings) == count, "without Require: outbound nobody waits for them"


def test_a_binding_that_is_gone_needs_no_flow() -> None:
    network = start(Kept(keeping()))
    network.registrations.change(account(instance=INSTANCE, enabled=False), network.now)
    network.run(100)
    assert not network.pings


@pytest.mark.rfc("5626", "11.6")
def test_a_proxy_that_does_not_speak_it_is_asked_without() -> None:
    serve = granting()

    def answer(message: Message) -> Reply:
        if b"reg-id" in (message.get(b"Contact") or b""):
            return 439, "First Hop Lacks Outbound Support", []
        return serve(message)

    network = start(Kept(answer))
    assert network.last().state is State.REGISTERED
    network.run(1200)
    assert sum("reg-id" in sent.contact for sent in network.sent) == 1, "asked once, and never again"


def test_another_address_replaces_the_one_before_without_a_second_contact() -> None:
    network = start(Kept(keeping()))
    network.registrations._all["acc000001"].binding.contact = "sip:acc000001@198.51.100.1"
    network.registrations.register("acc000001", network.now)
    network.run(1)
    assert network.sent[-1].message.get_all(b"Contact") == [FULL.encode()]


@pytest.mark.checklist("H4")
def test_a_contact_is_ours_by_its_instance() -> None:
    def answer(message: Message) -> Reply:
        return 200, "OK", [
            f'Contact: <sip:x@10.0.0.1>;+sip.instance="<{INSTANCE}>";reg-id=1;expires=70',
            'Contact: <sip:y@10.0.0.2>;+sip.instance="<urn:uuid:else>";expires=60',
        ]  # fmt: skip

    assert start(Kept(answer)).last().granted == 70


def test_the_registrars_time_decides_when_a_connection_is_pinged() -> None:
    network = Kept(keeping(600, "Flow-Timer: 50"))
    network.endpoint.add_listener("tcp", "192.0.2.1", 5060)
    network.registrations.change(account(instance=INSTANCE, auth_proxy="sip:192.0.2.9:5070;transport=tcp"), network.now)
    network.run(1)
    assert network.sent[-1].flow.ping_after == 40.0
    network.answer = keeping(600, "Flow-Timer: 200")
    start(network, 2, auth_proxy="sip:192.0.2.9:5070;transport=tcp")
    assert network.sent[-1].flow is network.sent[0].flow and network.sent[0].flow.ping_after == 40.0, "the soonest"


def test_a_datagram_leaves_as_soon_as_the_registrar_wants() -> None:
    network = start(Kept(keeping(600, "Flow-Timer: 12")))
    network.run(100)
    assert {round(later - before, 1) for before, later in pairwise(network.pings)} == {9.6}


def test_a_trial_does_not_take_the_place_of_the_binding() -> None:
    network = start(Kept(keeping()))
    trial = Trial(network.registrations, account(instance=INSTANCE), (), 5.0)
    trial.register(lambda outcome: None).start(network.now)
    network.run(1)
    assert "instance" not in network.sent[-1].contact


def test_who_begins_with_it_takes_the_binding_without_it_back() -> None:
    """Registrars hold a Contact with and one without instance for two."""
    network = Kept(keeping())
    network.registrations.change(account(), network.now)
    network.run(1)
    network.registrations.change(account(instance=INSTANCE), network.now)
    network.run(1)
    assert [sent.contact for sent in network.sent[1:]] == ["<sip:acc000001@192.0.2.1:5060>;expires=0", FULL]
