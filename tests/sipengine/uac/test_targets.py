"""REGISTER at a name with several servers: which is asked, which rests, and what a Retry-After keeps away."""

from __future__ import annotations

import pytest

from sipengine.events import RegistrationState as State
from sipengine.events import Target
from tests.sipengine.uac.registrar import Network, account, granting

FIRST, SECOND = Target("udp", ("192.0.2.21", 5060)), Target("udp", ("192.0.2.22", 5060))
NAME = "sip:sip.provider.example"


def register(network: Network, targets: list[Target], number: int = 1) -> None:
    network.registrations.change(account(number, auth_proxy=NAME), network.now)
    network.run(0)
    network.endpoint.resolved(network.wanted[-1], targets, network.now)


@pytest.mark.rfc("3263", "4.3")
@pytest.mark.checklist("F5")
def test_a_server_that_failed_a_call_is_not_asked_first() -> None:
    network = Network(granting())
    network.endpoint.rests.failed(*("udp", FIRST.address), network.now)
    register(network, [FIRST, SECOND])
    network.run(1)
    assert [sent.remote for sent in network.sent] == [SECOND.address]


@pytest.mark.rfc("3263", "4.3")
@pytest.mark.checklist("F5")
def test_a_server_that_failed_a_registration_rests_for_calls_too() -> None:
    network = Network(granting())
    network.answers[FIRST.address] = lambda message: (503, "Busy", [])
    register(network, [FIRST, SECOND])
    network.run(1)
    assert network.last().state is State.REGISTERED
    assert network.endpoint.rests.order([FIRST, SECOND], network.now, new=True) == [SECOND, FIRST]
    # Nothing but the far side's own answer lets it serve before its time.
    network.run(28)
    assert network.endpoint.rests.order([FIRST, SECOND], network.now, new=True) == [SECOND, FIRST]


@pytest.mark.checklist("F5")
def test_an_answer_to_the_probe_ends_the_rest() -> None:
    network = Network(granting())
    network.endpoint.rests.failed("udp", FIRST.address, network.now)
    register(network, [FIRST, SECOND])
    network.run(31)
    [options] = [sent for sent in network.sent if sent.message.method == b"OPTIONS"]
    assert options.remote == FIRST.address and not network.endpoint.rests.resting
    assert options.message.get(b"Max-Forwards") == b"70" and options.message.to.tag == b""


@pytest.mark.rfc("3261", "21.5.4")
def test_retry_after_of_the_only_server_holds_for_every_account_but_not_for_an_operator() -> None:
    network = Network(granting())
    network.answers[FIRST.address] = lambda message: (503, "Busy", ["Retry-After: 90"])
    register(network, [FIRST])
    network.run(1)
    asked = len(network.sent)
    register(network, [FIRST], 2)
    network.run(1)
    last = network.last(2)
    assert (last.l_uuid, last.state, last.cause) == ("acc000002", State.FAILING, "busy_503")
    assert len(network.sent) == asked, "nothing was sent"
    assert last.next_attempt_at is not None and last.next_attempt_at - network.now >= 88
    network.answers[FIRST.address] = granting()
    network.registrations.register("acc000002", network.now)
    network.run(0)
    network.endpoint.resolved(network.wanted[-1], [FIRST], network.now)
    network.run(1)
    assert network.last(2).state is State.REGISTERED and not network.endpoint.rests.resting
