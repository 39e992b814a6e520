"""OPTIONS between two refreshes: where they go, what counts as an answer, what follows of silence."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from sipengine.events import Reachability as Reach
from sipengine.events import RegistrationState as State
from sipengine.events import Target
from sipengine.exceptions import FlowClosed
from sipengine.message import Message
from sipengine.uac.binding import BindingRecord
from sipengine.uac.qualify import TELL_EVERY, TIMEOUT
from tests.sipengine.uac.registrar import Answer, Network, Reply, Sent, account, challenging, granting

pytestmark = [pytest.mark.checklist("H20"), pytest.mark.rfc("3261", "11.1")]

FIRST, SECOND = Target("udp", ("192.0.2.21", 5060)), Target("udp", ("192.0.2.22", 5060))
NAME = "sip:sip.provider.example"


class Server:
    """Grants what is asked for, and answers OPTIONS with `code`; with None not at all."""

    def __init__(self, code: int | None = 200, *headers: str, then: Answer | None = None) -> None:
        self.code = code
        self.headers = list(headers)
        self.grant = then or granting()

    def __call__(self, message: Message) -> Reply:
        if message.method != b"OPTIONS":
            return self.grant(message)
        return None if self.code is None else (self.code, "Whatever", self.headers)


def asked(network: Network) -> list[Sent]:
    return [sent for sent in network.sent if sent.message.method == b"OPTIONS"]


def registers(network: Network) -> list[Sent]:
    return [sent for sent in network.sent if sent.message.method == b"REGISTER"]


def qualified(server: Answer, seconds: int = 30, **changes: object) -> Network:
    network = Network(server)
    network.registrations.change(account(qualify=seconds, **changes), network.now)
    network.run(seconds + 1)
    return network


def states(network: Network) -> list[tuple[Reach, str]]:
    return [(event.state, event.cause) for event in network.qualified]


def test_the_server_of_the_binding_is_asked_as_the_account() -> None:
    network = qualified(Server())
    [options] = asked(network)
    message = options.message
    assert options.remote == ("192.0.2.9", 5070) and message.ruri == b"sip:provider.example"
    assert b"<sip:trunk1@provider.example>" in (message.get(b"From") or b"")
    assert message.get(b"To") == b"<sip:trunk1@provider.example>" and message.get(b"CSeq") == b"1 OPTIONS"
    [event] = network.qualified
    assert (event.state, event.target, event.cause) == (Reach.REACHABLE, "udp:192.0.2.9:5070", "")
    assert event.round_trip == pytest.approx(0.02) and event.answered_at == pytest.approx(options.at + 0.02)


def test_an_account_without_the_option_asks_nobody() -> None:
    network = qualified(Server(), 0)
    network.run(600)
    assert not asked(network) and not network.qualified


def test_it_is_asked_every_so_many_seconds_and_told_once_a_minute() -> None:
    network = qualified(Server())
    network.run(600)
    gaps = [b.at - a.at for a, b in pairwise(asked(network))]
    assert len(gaps) == 20 and gaps == pytest.approx([30.0] * 20)
    times = [event.at for event in network.qualified]
    assert len(times) == 11 and all(b - a >= TELL_EVERY for a, b in pairwise(times))
    assert len({sent.message.call_id for sent in asked(network)}) == 21


def test_the_first_ones_are_spread() -> None:
    network = Network(Server())
    for number in range(1, 51):
        network.registrations.change(account(number, qualify=30), network.now)
    network.run(31)
    times = sorted(sent.at for sent in asked(network))
    assert times[-1] - times[0] > 25 and max(b - a for a, b in pairwise(times)) < 5


@pytest.mark.parametrize("code", [200, 302, 401, 404, 405, 486, 501, 603])
def test_any_final_answer_is_a_sign_of_life(code: int) -> None:
    network = qualified(Server(code))
    network.run(60)
    assert {event.state for event in network.qualified} == {Reach.REACHABLE}


def test_a_challenge_is_answered_with_the_credentials_of_the_account() -> None:
    register, options = granting(), challenging(Server())
    network = qualified(lambda message: (options if message.method == b"OPTIONS" else register)(message))
    first, second = asked(network)
    assert second.authorized and second.message.get(b"CSeq") == b"2 OPTIONS"
    assert second.message.call_id == first.message.call_id
    assert network.qualified[-1].round_trip == pytest.approx(0.02), "of the one that was answered"


def test_one_loss_is_none() -> None:
    server = Server()
    network = qualified(server)
    for _ in range(3):
        server.code = None
        network.run(30 + TIMEOUT)
        server.code = 200
        network.run(30 - TIMEOUT)
    assert {event.state for event in network.qualified} == {Reach.REACHABLE} and len(registers(network)) == 1


def test_two_losses_are_silence_and_an_answer_ends_it() -> None:
    server = Server()
    network = qualified(server)
    last = network.qualified[-1]
    server.code = None
    network.run(60 + TIMEOUT)
    event = network.qualified[-1]
    assert (event.state, event.cause, event.code) == (Reach.UNREACHABLE, "options_silent", None)
    assert event.answered_at is not None and event.answered_at >= (last.answered_at or 0.0)
    network.run(300)
    assert network.qualified[-1] is event, "more silence is no news"
    server.code = 405
    network.run(31)
    event = network.qualified[-1]
    assert (event.state, event.cause, event.code) == (Reach.REACHABLE, "options_answered", 405)
    assert states(network).count((Reach.REACHABLE, "options_answered")) == 1


def test_silence_of_a_server_that_answered_refreshes_at_once() -> None:
    server = Server()
    network = qualified(server)
    server.code = None
    network.run(60 + TIMEOUT)
    silent_at = network.qualified[-1].at
    assert [sent.at for sent in registers(network)][1:] == [silent_at]
    hint = next(event for event in network.events if event.cause == "options_silent")
    assert (hint.state, hint.final, hint.bound_until_at) == (State.REGISTERED, False, network.events[1].bound_until_at)
    network.run(200)
    assert len(registers(network)) == 2, "once: it registers well, whatever it does with OPTIONS"
    assert (network.last().state, network.last().cause) == (State.REGISTERED, "")


def test_a_server_that_never_answered_changes_nothing() -> None:
    network = qualified(Server(None))
    network.run(200)
    assert states(network) == [(Reach.UNREACHABLE, "options_silent")]
    assert len(registers(network)) == 1 and not network.endpoint.rests.resting


@pytest.mark.rfc("3261", "21.5.4")
def test_503_is_busy_and_moves_nothing() -> None:
    server = Server()
    network = qualified(server)
    server.code = 503
    network.run(61)
    assert states(network)[-1] == (Reach.UNREACHABLE, "options_busy") and len(registers(network)) == 1


@pytest.mark.rfc("3261", "21.5.4")
def test_who_asks_for_a_pause_gets_it() -> None:
    server = Server()
    network = qualified(server)
    server.code, server.headers = 503, ["Retry-After: 90"]
    network.run(61)
    sent = len(network.sent)
    assert states(network)[-1] == (Reach.UNREACHABLE, "options_busy")
    network.run(58)
    assert len(network.sent) == sent and network.last().state is State.REGISTERED
    server.code = 200
    network.run(61)
    assert states(network)[-1] == (Reach.REACHABLE, "options_answered")


@pytest.mark.rfc("3263", "4.3")
def test_the_binding_moves_to_the_next_server_and_options_with_it() -> None:
    network = Network()
    first, second = Server(), Server()
    network.answers = {FIRST.address: first, SECOND.address: second}
    network.registrations.change(account(qualify=30, auth_proxy=NAME), network.now)
    network.run(0)
    network.endpoint.resolved(network.wanted.pop(), [FIRST, SECOND], network.now)
    network.run(31)
    assert {sent.remote for sent in network.sent} == {FIRST.address}
    network.answers[FIRST.address] = lambda message: None
    network.run(60 + TIMEOUT)
    network.endpoint.resolved(network.wanted.pop(), [FIRST, SECOND], network.now)
    moved_at = network.now
    network.run(1)
    assert registers(network)[-1].remote == SECOND.address, "the silent one rests"
    assert (network.last().state, network.last().target) == (State.REGISTERED, "udp:192.0.2.22:5060")
    assert asked(network)[-1].remote == SECOND.address and asked(network)[-1].at <= moved_at + 0.1
    event = network.qualified[-1]
    assert (event.state, event.cause, event.target) == (Reach.REACHABLE, "options_answered", "udp:192.0.2.22:5060")


def test_it_goes_over_the_connection_of_the_binding() -> None:
    network = Network(Server())
    network.endpoint.add_listener("tcp", "192.0.2.1", 5060)
    network.registrations.change(account(qualify=30, auth_proxy="sip:192.0.2.9:5070;transport=tcp"), network.now)
    network.run(31)
    [register, options] = network.sent
    assert options.message.method == b"OPTIONS" and options.flow is register.flow
    assert network.qualified[-1].target == "tcp:192.0.2.9:5070"


def test_what_cannot_be_sent_is_lost_and_says_why() -> None:
    server = Server()
    network = qualified(server)
    server.code = None
    for _ in range(2):
        network.run(29.5)
        network.run(1)
        network.endpoint.flow_failed(network.sent[-1].flow, FlowClosed("no route to host"), network.now)
        network.settle()
    event = network.qualified[-1]
    assert (event.state, event.cause) == (Reach.UNREACHABLE, "options_silent") and "no route to host" in event.reason


def test_an_edit_works_at_once_and_registers_nothing_anew() -> None:
    network = qualified(Server(), 0)
    row = account()
    network.registrations.change(replace(row, qualify=30), network.now)
    network.run(31)
    before = len(asked(network))
    assert [sent.at for sent in asked(network)] == [1001.0, 1031.0]
    network.registrations.change(replace(row, qualify=300), network.now)
    network.run(0.1)
    assert len(asked(network)) == before + 1, "asked at once, and then in the new rhythm"
    network.run(299)
    assert len(asked(network)) == before + 1
    network.registrations.change(row, network.now)
    network.run(0)
    assert states(network)[-1] == (Reach.UNKNOWN, "") and network.qualified[-1].round_trip is None
    assert len(registers(network)) == 1
    network.run(400)
    assert len(asked(network)) == before + 1


@pytest.mark.parametrize("how", ["disabled", "removed", "unregistered"])
def test_without_a_binding_nobody_is_asked(how: str) -> None:
    network = qualified(Server())
    row = account(qualify=30)
    if how == "disabled":
        network.registrations.change(replace(row, enabled=False), network.now)
    elif how == "removed":
        network.registrations.remove(row.l_uuid, network.now)
    else:
        network.registrations.unregister(row.l_uuid, network.now)
    network.run(1)
    before = len(asked(network))
    network.run(100)
    assert len(asked(network)) == before
    assert states(network)[-1][0] is (Reach.REACHABLE if how == "removed" else Reach.UNKNOWN)
    network.registrations.change(row, network.now)
    network.registrations.register(row.l_uuid, network.now)
    network.run(31)
    assert len(asked(network)) > before and states(network)[-1][0] is Reach.REACHABLE


def test_a_deleted_account_asks_nobody_while_its_last_register_is_under_way() -> None:
    network = qualified(Server())
    network.answer = lambda message: None
    network.registrations.register("acc000001", network.now)
    network.registrations.remove("acc000001", network.now)
    before = len(asked(network))
    network.run(31)
    assert len(asked(network)) == before


def test_silence_does_not_hurry_a_registration_that_fails() -> None:
    server = Server()
    network = qualified(server)
    server.code, server.grant = None, lambda message: (500, "Trouble", [])
    network.registrations.register("acc000001", network.now)
    network.run(60 + TIMEOUT)
    silent_at = network.qualified[-1].at
    assert states(network)[-1] == (Reach.UNREACHABLE, "options_silent")
    assert silent_at not in [sent.at for sent in registers(network)], "it keeps its growing pauses"


def test_an_account_that_never_registers_is_asked_for_at_its_proxy() -> None:
    server = Server()
    network = qualified(server, expires=0)
    options = network.sent[0]
    assert options.at == 1000.0 and options.remote == ("192.0.2.9", 5070)
    server.code = None
    network.run(60 + TIMEOUT)
    assert states(network)[-1] == (Reach.UNREACHABLE, "options_silent") and not registers(network)
    network.registrations.change(account(qualify=30, expires=0, enabled=False), network.now)
    before = len(asked(network))
    network.run(100)
    assert len(asked(network)) == before and states(network)[-1] == (Reach.UNKNOWN, "")


def test_nothing_is_asked_while_sending_is_switched_off() -> None:
    network = qualified(Server())
    network.registrations.switch(False, network.now)
    network.run(100)
    assert len(asked(network)) == 1
    network.registrations.switch(True, network.now)
    network.run(31)
    assert len(asked(network)) == 2


def test_what_was_known_before_a_restart_holds() -> None:
    network = Network(Server(None))
    record = BindingRecord(
        "call", "tag", 7, "sip:acc000001@192.0.2.1:5060", 600, network.now + 600, network.now + 500,
        target="udp:192.0.2.9:5070", reachability=Reach.REACHABLE,
    )  # fmt: skip
    network.registrations.load(account(qualify=30), record, network.now)
    network.run(90 + TIMEOUT)
    assert states(network) == [(Reach.UNREACHABLE, "options_silent")] and len(registers(network)) == 1


def test_what_was_known_before_a_restart_is_forgotten_with_the_option() -> None:
    network = Network(Server())
    record = BindingRecord("call", "tag", 7, reachability=Reach.REACHABLE)
    network.registrations.load(account(), record, network.now)
    network.run(100)
    assert states(network) == [(Reach.UNKNOWN, "")] and not asked(network)


def test_a_tls_server_is_asked_by_name_after_a_restart() -> None:
    network = Network(Server())
    network.endpoint.add_listener("tls", "192.0.2.1", 5061)
    record = BindingRecord(
        "call", "tag", 7, "sip:acc000001@192.0.2.1:5061;transport=tls", 600, network.now + 600, network.now + 500,
        target="tls:192.0.2.21:5061",
    )  # fmt: skip
    row = account(qualify=30, auth_proxy=f"{NAME};transport=tls")
    network.registrations.load(row, record, network.now)
    network.run(31)
    names = ("sip.provider.example",)
    network.endpoint.resolved(network.wanted[-1], [Target("tls", ("192.0.2.21", 5061), names)], network.now)
    network.run(1)
    assert network.sent[-1].flow.names == names


def test_a_register_goes_first() -> None:
    network = qualified(Server(), 0)
    network.registrations.pacing.budget = lambda target: 0.1
    network.registrations.register("acc000001", network.now)  # takes what the budget has at once
    network.registrations.change(account(qualify=30), network.now)
    network.run(1)
    network.registrations.change(account(2), network.now)
    network.run(25)
    assert [sent.message.method for sent in network.sent[2:]] == [b"REGISTER", b"OPTIONS"]
