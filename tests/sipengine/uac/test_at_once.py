"""One account at several registrars at the same time."""

from __future__ import annotations

from sipengine.events import FurtherChanged
from sipengine.events import RegistrationState as State
from sipengine.exceptions import FlowClosed
from sipengine.message import Message
from sipengine.uac.account import UacAccount
from tests.sipengine.uac.registrar import Network, Reply, account, granting

FIRST, SECOND, THIRD = ("192.0.2.9", 5070), ("192.0.2.31", 5060), ("192.0.2.32", 5060)
URIS = ("sip:192.0.2.31", "sip:192.0.2.32")


class Several(Network):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.further: list[FurtherChanged] = []

    def settle(self) -> None:
        self.further += [event for event in self.endpoint.events if isinstance(event, FurtherChanged)]
        super().settle()

    def states(self) -> dict[str, State]:
        return {event.registrar: event.state for event in self.further}

    def at(self, remote: tuple[str, int], since: float = 0.0) -> list[int]:
        """Seconds asked for in the REGISTERs to one registrar."""
        return [sent.expires for sent in self.sent if sent.remote == remote and sent.at >= since]


def row(*uris: str, **changes: object) -> UacAccount:
    return account(registrars=uris or URIS, at_once=True, **changes)


def start(network: Several) -> Several:
    network.registrations.change(row(), network.now)
    network.run(1)
    return network


def test_each_registrar_has_a_binding_of_its_own_and_the_first_tells_the_state() -> None:
    network = start(Several(granting(60)))
    network.run(600)
    assert all(len(network.at(remote)) > 10 for remote in (FIRST, SECOND, THIRD))
    assert len({sent.message.call_id for sent in network.sent}) == 3
    assert len({sent.contact for sent in network.sent}) == 1
    assert network.last().state is State.REGISTERED
    assert network.states() == dict.fromkeys(URIS, State.REGISTERED)


def test_one_that_fails_is_no_concern_of_the_others() -> None:
    def refuse(message: Message) -> Reply:
        return 403, "Forbidden", []

    network = Several(granting(60))
    network.answers[SECOND] = refuse
    start(network)
    network.run(300)
    assert network.states() == {URIS[0]: State.REFUSED, URIS[1]: State.REGISTERED}
    assert network.last().state is State.REGISTERED and not network.last().failures


def test_orders_edits_and_deletion_concern_all() -> None:
    network = start(Several(granting()))
    since = network.now
    network.registrations.unregister("acc000001", network.now)
    network.run(1)
    network.registrations.register("acc000001", network.now)
    network.run(1)
    assert all(network.at(remote, since) == [0, 600] for remote in (FIRST, SECOND, THIRD))
    since = network.now
    network.registrations.change(row(enabled=False), network.now)
    network.run(1)
    network.registrations.change(row(), network.now)
    network.run(1)
    assert all(network.at(remote, since) == [0, 600] for remote in (FIRST, SECOND, THIRD))
    since = network.now
    network.registrations.remove("acc000001", network.now)
    network.run(1)
    assert all(network.at(remote, since) == [0] for remote in (FIRST, SECOND, THIRD))
    assert not network.registrations._all


def test_a_registrar_that_is_taken_off_the_list_loses_its_binding_alone() -> None:
    network = start(Several(granting()))
    since = network.now
    network.registrations.change(row(URIS[1]), network.now)
    network.run(1)
    assert network.at(SECOND, since) == [0] and 0 not in network.at(THIRD, since) + network.at(FIRST, since)
    network.registrations.change(account(), network.now)
    network.run(1)
    assert network.at(THIRD, since)[-1] == 0


def test_a_registrar_that_answers_after_it_was_taken_off_the_list_is_told_as_gone_last() -> None:
    network = Several(granting(), latency=1.0)
    network.registrations.change(row(), network.now)
    network.run(0.5)
    network.registrations.change(account(), network.now)
    network.run(10)
    last = {event.registrar: event.gone for event in network.further}
    assert last == dict.fromkeys(URIS, True)
    assert network.at(SECOND)[-1] == network.at(THIRD)[-1] == 0


def test_a_lost_connection_is_that_of_one_binding() -> None:
    network = Several(granting())
    network.endpoint.add_listener("tcp", "192.0.2.1", 5060)
    network.registrations.change(row("sip:192.0.2.31;transport=tcp"), network.now)
    network.run(200)
    flow = next(sent.flow for sent in network.sent if sent.remote == SECOND)
    since = network.now
    network.endpoint.flow_failed(flow, FlowClosed("reset by peer"), network.now)
    network.settle()
    network.run(3)
    assert network.at(SECOND, since) == [600] and network.at(FIRST, since) == []
