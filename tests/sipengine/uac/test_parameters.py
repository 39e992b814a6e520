"""The seed's registration parameters in the engine, and the switch for all sending."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sipengine.configuration import Configuration
from sipengine.events import RegistrationState as State
from sipengine.events import Trigger
from tests.sipengine.uac.registrar import Network, account, granting
from tests.sipengine.uac.test_registration import registered


def test_retry_interval_bounds_the_pauses_and_never_gives_up() -> None:
    network = Network(lambda message: (500, "No", []), configuration=Configuration(reg_retry_interval=30))
    network.registrations.change(account(), network.now)
    network.run(3600)
    gaps = [after.at - before.at for before, after in pairwise(network.sent)]
    assert gaps[0] < 8, "the first retry is as soon as ever"
    assert 24 <= max(gaps) <= 33 and len(gaps) > 100


def test_retry_interval_does_not_undercut_retry_after() -> None:
    answer = (500, "No", ["Retry-After: 120"])
    network = Network(lambda message: answer, configuration=Configuration(reg_retry_interval=30))
    network.registrations.change(account(), network.now)
    network.run(110)
    assert len(network.sent) == 1


def test_random_delay_spreads_the_first_registers_of_a_start() -> None:
    network = Network(granting(), configuration=Configuration(reg_random_delay=60))
    for number in range(1, 51):
        network.registrations.load(account(number), None, network.now)
    network.registrations.load(account(51, reg_delay=5), None, network.now)
    begun = network.now
    network.run(61)
    first = {sent.message.from_.uri: sent.at - begun for sent in reversed(network.sent)}
    assert len(first) == 51
    assert min(first.values()) < 10 and max(first.values()) > 50, "over the whole time"
    assert first[b"sip:trunk51@provider.example"] == pytest.approx(5, abs=0.1)


def test_reg_delay_holds_a_new_account_back_and_an_order_does_not_wait() -> None:
    network = Network(granting())
    for number in (1, 2, 3):
        network.registrations.change(account(number, reg_delay=30), network.now)
    begun = network.now
    network.run(1)
    assert network.sent == [] and network.last().next_attempt_at == begun + 30
    network.registrations.register("acc000002", network.now)
    network.registrations.change(account(3, reg_delay=30, enabled=False), network.now)
    network.run(28)
    assert [sent.message.from_.uri for sent in network.sent] == [b"sip:trunk2@provider.example"]
    network.run(2)
    assert network.last(1).state is State.REGISTERED and network.last(1).trigger is Trigger.CHANGE
    assert network.last(3).state is State.DISABLED and len(network.sent) == 2


@pytest.mark.parametrize(("default", "row", "port"), [
    ("udp:192.0.2.1:5090", "", 5090), ("udp:192.0.2.1:5090", "udp:192.0.2.1:5060", 5060),
    ("tcp:192.0.2.1:5090", "", 5060), ("udp:127.0.0.1:5090", "", 5060), ("", "", 5060),
])
def test_default_socket_is_used_where_it_leads_to_the_target(default: str, row: str, port: int) -> None:
    network = Network(granting(), configuration=Configuration(default_socket=default))
    network.endpoint.add_listener("udp", "192.0.2.1", 5090)
    network.endpoint.add_listener("udp", "127.0.0.1", 5090)
    registered(network, socket=row)
    assert network.sent[0].flow.listener.port == port


def test_switched_off_nothing_is_sent_but_an_operators_orders() -> None:
    network = Network(granting(60))
    registered(network)
    network.registrations.switch(False, network.now)
    network.run(58)
    assert len(network.sent) == 1, "no refresh"
    held = network.last()
    assert (held.state, held.cause, held.next_attempt_at) == (State.REGISTERED, "inactive", None)
    network.run(10)
    assert (network.last().state, network.last().bound_until_at) == (State.UNREGISTERED, None), "it lapsed"
    network.registrations.change(account(2), network.now)
    network.run(1000)
    assert len(network.sent) == 1
    assert network.registrations.register("acc000001", network.now)
    network.run(100)
    assert len(network.sent) == 2, "the order went out, its refresh did not"
    network.registrations.unregister("acc000001", network.now)
    network.run(1)
    assert network.sent[-1].expires == 0


def test_switched_on_again_what_was_held_is_served() -> None:
    network = Network(granting())
    network.registrations.switch(False, network.now)
    for number in (1, 2):
        network.registrations.load(account(number), None, network.now)
    network.registrations.load(account(3, enabled=False), None, network.now)
    network.run(5)
    network.registrations.change(account(2, enabled=False), network.now)
    network.run(5)
    assert network.sent == [] and network.last(2).state is State.DISABLED
    network.registrations.switch(True, network.now)
    network.run(1)
    assert [sent.message.from_.uri for sent in network.sent] == [b"sip:trunk1@provider.example"]
    assert network.last().state is State.REGISTERED and network.last().trigger is Trigger.GUARD


def test_what_waits_for_its_turn_is_taken_back() -> None:
    network = Network(None)
    for number in range(1, 101):
        network.registrations.change(account(number), network.now)
    network.settle()
    under_way = len(network.sent)
    assert 0 < under_way < 100
    network.registrations.switch(False, network.now)
    network.run(10)
    assert len(network.sent) == under_way
    network.answer = granting()
    network.registrations.switch(True, network.now)
    network.run(60)
    assert all(network.last(number).state is State.REGISTERED for number in range(1, 101))
