"""A connection ends that bindings were granted over: they are asked for again at once, and not without end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sipengine.events import RegistrationState as State
from sipengine.events import Trigger
from sipengine.exceptions import FlowClosed
from sipengine.uac.reconnect import LASTING, SPREAD
from tests.sipengine.uac.registrar import Answer, Network, account, granting

pytestmark = pytest.mark.rfc("5626", "4.5")

OVER_TCP = {"auth_proxy": "sip:192.0.2.9:5070;transport=tcp"}


def connected(accounts: int = 1, answer: Answer | None = None) -> Network:
    """Accounts that registered over one connection, long enough ago for it to have lasted."""
    network = Network(answer or granting())
    network.endpoint.add_listener("tcp", "192.0.2.1", 5060)
    for number in range(1, accounts + 1):
        network.registrations.change(account(number, **OVER_TCP), network.now)
    network.run(LASTING + 1)
    assert len(network.sent) == accounts and network.last().state is State.REGISTERED
    return network


def cut(network: Network) -> float:
    """The connection of the last REGISTER ends; returns when."""
    network.endpoint.flow_failed(network.sent[-1].flow, FlowClosed("reset by peer"), network.now)
    network.settle()
    return network.now


def test_the_account_registers_at_once_over_a_new_connection() -> None:
    network = connected()
    first, at = network.sent[0], cut(network)
    told = network.last()
    assert (told.state, told.cause, told.next_attempt_at) == (State.REGISTERED, "connection_lost", at)
    network.run(0.1)
    again = network.sent[-1]
    assert len(network.sent) == 2 and again.at == at and again.flow is not first.flow
    assert again.message.call_id == first.message.call_id and again.contact == first.contact
    assert (network.last().cause, network.last().trigger) == ("", Trigger.RECOVERY)
    network.run(590)
    assert len(network.sent) == 3, "the refresh that was planned before is not sent too"


def test_accounts_of_one_connection_come_back_spread() -> None:
    network = connected(50)
    at = cut(network)
    network.run(SPREAD + 0.1)
    times = sorted(sent.at for sent in network.sent[50:])
    assert len(times) == 50 and times[-1] <= at + SPREAD and len(set(times)) > 40


def test_a_registrar_that_ends_each_connection_is_asked_less_and_less_often() -> None:
    network = connected(answer=granting(3600))
    times = []
    for _ in range(12):
        at = cut(network)
        due = network.last().next_attempt_at
        assert due is not None
        network.run(due - at + 0.1)
        times.append(due - at)
    assert times[0] == 0 and times[1] >= 5
    assert all(b > 1.5 * a for a, b in pairwise(times[2:7])) and max(times) <= 900 + SPREAD
    network.run(LASTING)
    assert cut(network) == network.last().next_attempt_at, "one that lasted is the first again"


def test_a_datagram_that_cannot_be_sent_ends_no_connection() -> None:
    network = Network(granting())
    network.registrations.change(account(), network.now)
    network.run(1)
    network.endpoint.flow_failed(network.sent[-1].flow, FlowClosed("no route"), network.now)
    network.run(10)
    assert len(network.sent) == 1


@pytest.mark.parametrize("change", [{"enabled": False}, {"auth_proxy": "sip:192.0.2.9:5070"}])
def test_a_connection_that_carries_nothing_any_more_ends_unnoticed(change: dict[str, object]) -> None:
    network = connected()
    old = network.sent[-1].flow
    network.registrations.change(account(1, **{**OVER_TCP, **change}), network.now)
    network.run(5)
    sent = len(network.sent)
    network.endpoint.flow_failed(old, FlowClosed("idle"), network.now)
    network.run(10)
    assert len(network.sent) == sent


def test_an_account_that_is_gone_is_forgotten() -> None:
    network = connected()
    network.registrations.remove("acc000001", network.now)
    network.run(5)
    assert not network.registrations.reconnect._of and not network.registrations.reconnect._flows
