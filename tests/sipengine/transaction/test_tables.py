"""Every state and every event of the four machines, the impossible ones included, against the RFCs' figures.

The figures are written out here a second time, so that neither the tables nor the code that runs on them can drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from docs.state_machines import PAGE, page
from sipengine.counters import Counters
from sipengine.exceptions import FlowClosed
from sipengine.message import parse
from sipengine.timerqueue import NEVER
from sipengine.transaction import tables
from sipengine.transaction.client import InviteClient, NonInviteClient
from sipengine.transaction.server import InviteServer, NonInviteServer
from sipengine.transaction.timers import RETRANSMIT, D, I, J, K, L, M, Timers
from sipengine.transport.flow import Flow, Listener

LETTERS = {D: "D", I: "I", J: "J", K: "K", L: "L", M: "M"}
CLIENT_STATES = ("start", "Proceeding", "Completed", "Accepted", "Terminated")
SERVER_STATES = ("Trying", "Proceeding", "Completed", "Confirmed", "Accepted", "Terminated")

# A cell: next state, then what is seen from outside; "-" means that nothing at all happens.
INVITE_CLIENT = """
event          | start                  | Proceeding             | Completed            | Accepted        | Terminated
1xx            | Proceeding pass        | Proceeding pass        | -                    | -               | -
2xx            | Accepted pass M        | Accepted pass M        | -                    | Accepted pass   | -
3xx-6xx        | Completed ack pass D   | Completed ack pass D   | Completed ack        | -               | -
A              | start again wait       | -                      | -                    | -               | -
B              | Terminated tell        | Terminated tell        | -                    | -               | -
D or M         | -                      | -                      | Terminated           | Terminated      | -
flow broken    | Terminated tell        | Terminated tell        | Terminated           | -               | -
"""
NON_INVITE_CLIENT = """
event          | start                  | Proceeding             | Completed            | Accepted        | Terminated
1xx            | Proceeding pass        | Proceeding pass        | -                    | -               | -
2xx            | Completed pass K       | Completed pass K       | -                    | -               | -
3xx-6xx        | Completed pass K       | Completed pass K       | -                    | -               | -
E              | start again wait       | Proceeding again wait  | -                    | -               | -
F              | Terminated tell        | Terminated tell        | -                    | -               | -
K              | -                      | -                      | Terminated           | -               | -
flow broken    | Terminated tell        | Terminated tell        | -                    | -               | -
"""
INVITE_SERVER = """
event      | Trying              | Proceeding          | Completed            | Confirmed  | Accepted      | Terminated
1xx        | Proceeding send     | Proceeding send     | -                    | -          | -             | -
2xx        | Accepted send L     | Accepted send L     | -                    | -          | Accepted send | -
3xx-6xx    | Completed send wait | Completed send wait | -                    | -          | -             | -
again      | -                   | Proceeding last     | Completed last       | -          | -             | -
G          | -                   | -                   | Completed last wait  | -          | -             | -
H, I, L    | -                   | -                   | Terminated           | Terminated | Terminated    | -
ACK        | -                   | -                   | Confirmed I          | -          | -             | -
silent     | Confirmed L         | Confirmed L         | -                    | -          | -             | -
"""
NON_INVITE_SERVER = """
event      | Trying              | Proceeding          | Completed            | Confirmed  | Accepted      | Terminated
1xx        | Proceeding send     | Proceeding send     | -                    | -          | -             | -
2xx        | Completed send J    | Completed send J    | -                    | -          | -             | -
3xx-6xx    | Completed send J    | Completed send J    | -                    | -          | -             | -
again      | -                   | Proceeding last     | Completed last       | -          | -             | -
T2 reached | Proceeding 100      | -                   | -                    | -          | -             | -
J          | -                   | -                   | Terminated           | Terminated | -             | -
ACK        | -                   | -                   | -                    | -          | -             | -
silent     | Confirmed L         | Confirmed L         | -                    | -          | -             | -
"""
FIGURES = {
    InviteClient: ("17.1.1.2", INVITE_CLIENT), NonInviteClient: ("17.1.2.2", NON_INVITE_CLIENT),
    InviteServer: ("17.2.1", INVITE_SERVER), NonInviteServer: ("17.2.2", NON_INVITE_SERVER),
}  # fmt: skip


def cells() -> Iterator[Any]:
    for machine, (section, figure) in FIGURES.items():
        head, *rows = [[cell.strip() for cell in line.split("|")] for line in figure.strip().splitlines()]
        for event, row in enumerate(rows):
            for state, expected in enumerate(row[1:]):
                name = f"{machine.__name__}-{head[state + 1]}-{row[0]}"
                yield pytest.param(
                    machine, state, event, expected, id=name, marks=pytest.mark.rfc("3261", section)
                )


class Layer:
    """What a transaction sees of its layer, written down."""

    def __init__(self, reliable: bool = False) -> None:
        self.out: list[tuple[bytes, Flow]] = []
        self.counters = Counters()
        self.timers = Timers(0.5, 4.0, 5.0)
        self.timers.delays = tuple({letter: 100.0 + letter for letter in range(7)} for _ in range(2))  # type: ignore[assignment]
        self.queue = self
        self.armed: list[float] = []
        self.clients: dict[bytes, Any] = {}
        self.cancels: dict[bytes, Any] = {}
        self.servers: dict[bytes, Any] = {}
        self.forgotten = 0
        self.heard: list[str] = []
        self.flow = Flow(Listener("tcp" if reliable else "udp", "192.0.2.5", 5060, b"192.0.2.5:5060"), ("192.0.2.9", 1))

    def arm(self, owner: Any, delay: float, now: float) -> None:
        owner.due = now + delay
        self.armed.append(delay)

    def forget_client(self, client: Any) -> None:
        self.forgotten += 1

    def own_tag(self, key: bytes) -> bytes:
        return b"t"

    # the user
    def on_response(self, client: Any, status: int, message: Any, now: float) -> None:
        self.heard.append("pass")

    def on_failure(self, client: Any, error: Exception, now: float) -> None:
        self.heard.append("tell")

    def on_server_terminated(self) -> None:
        self.forgotten += 1


HEAD = [b"Via: SIP/2.0/UDP x;branch=z9hG4bKx", b"From: <sip:a@b>;tag=1", b"Call-ID: c"]
RESPONSE = b"SIP/2.0 %d X\r\n" + b"\r\n".join(HEAD) + b"\r\nTo: <sip:c@d>;tag=2\r\nCSeq: 1 INVITE\r\n\r\n"


def client_outcome(machine: Any, state: int, event: int) -> str:
    layer: Any = Layer()
    client: Any
    if machine is InviteClient:
        client = InviteClient(
            layer, b"b", layer.flow, b"sent", layer, b"sip:c@d", HEAD, b"To: <sip:c@d>", b"1"
        )
    else:
        client = NonInviteClient(layer, b"b", b"OPTIONS", layer.flow, b"sent", layer)
    client.state = state
    if state == tables.COMPLETED:
        client.wire = b"ACK again"
    if event < 3:
        client.receive((180, 200, 486)[event], parse(RESPONSE % (180, 200, 486)[event]), 0.0)
    elif event == tables.BROKEN:
        client.fail(FlowClosed("gone"), 0.0)
    else:
        waiting = state <= tables.PROCEEDING
        if waiting != (event in (tables.REPEAT, tables.GIVE_UP)) or state == tables.TERMINATED:
            return impossible(client, event)  # this timer is not armed in this state
        if machine is InviteClient and state == tables.PROCEEDING and event == tables.REPEAT:
            return impossible(client, event)  # §17.1.1.2: a provisional stopped A
        client.wait = 0.5 if event == tables.REPEAT else 32.0
        client.on_timer(0.0)
    seen = []
    for wire, _ in layer.out:
        seen.append("ack" if wire.startswith(b"ACK") else "again")
    seen += layer.heard + armed(layer)
    return outcome(CLIENT_STATES, state, client.state, seen, layer)


def server_outcome(machine: Any, state: int, event: int) -> str:
    layer: Any = Layer()
    server: Any = machine(layer, b"k", layer.flow, [*HEAD, b"To: <sip:c@d>", b"CSeq: 1 INVITE"])
    server.user = layer
    server.state = state
    server.last = b"last" if state in (tables.S_PROCEEDING, tables.S_COMPLETED) else b""
    seen: list[str] = []
    if event < 3:
        allowed = server.respond((180, 200, 486)[event], b"new", 0.0)
        assert allowed is bool(layer.out)
    elif event == tables.REQUEST:
        server.on_retransmission(0.0)
    elif event == tables.ACKED:
        server._happen(tables.ACKED, 0.0)
    elif event == tables.SILENT:
        server.vanish(0.0)
    else:
        repeats = {InviteServer: tables.S_COMPLETED, NonInviteServer: tables.S_TRYING}[machine]
        if event == tables.SLOW and state != repeats:
            return impossible(server, event)
        if event == tables.EXPIRE and (state < tables.S_COMPLETED or state == tables.S_TERMINATED):
            return impossible(server, event)
        server.wait = 0.5 if event == tables.SLOW else 32.0
        server.on_timer(0.0)
    for wire, _ in layer.out:
        seen.append({b"new": "send", b"last": "last"}.get(wire) or wire[8:11].decode())
    return outcome(SERVER_STATES, state, server.state, seen + armed(layer), layer)


def impossible(transaction: Any, event: int) -> str:
    """A timer that this state never has: its cell is empty."""
    return "-" if transaction.TABLE[transaction.state][event] is None else "a transition"


def armed(layer: Any) -> list[str]:
    waits = {100.0 + letter: name for letter, name in LETTERS.items()}
    return [waits.get(delay, "wait") for delay in layer.armed]


def outcome(names: tuple[str, ...], before: int, after: int, seen: list[str], layer: Any) -> str:
    assert bool(layer.forgotten) == (names[after] == "Terminated" and before != after), "kept or forgotten"
    if before == after and not seen:
        return "-"
    return " ".join([names[after], *seen])


@pytest.mark.rfc("6026", "7.1")
@pytest.mark.rfc("6026", "7.2")
@pytest.mark.parametrize(("machine", "state", "event", "expected"), list(cells()))
def test_cell(machine: Any, state: int, event: int, expected: str) -> None:
    happens = client_outcome if machine in (InviteClient, NonInviteClient) else server_outcome
    assert happens(machine, state, event) == expected


def test_no_state_and_no_event_is_forgotten() -> None:
    assert len(list(cells())) == 7 * 5 + 7 * 5 + 8 * 6 + 8 * 6
    for machine, (_, figure) in FIGURES.items():
        rows = figure.strip().splitlines()[1:]
        assert {len(row) for row in machine.TABLE} == {len(rows)}  # type: ignore[attr-defined]
        assert len(machine.TABLE) == rows[0].count("|")  # type: ignore[attr-defined]


@pytest.mark.checklist("C3")
@pytest.mark.rfc("3261", "17")
@pytest.mark.parametrize("reliable", [False, True])
def test_the_values_of_the_timers(reliable: bool) -> None:
    """Table 4: over a reliable transport D, I, J and K are nothing, and nothing is sent again."""
    t1, t2, t4 = 0.5, 4.0, 5.0
    timers = Timers(t1, t2, t4)
    delays = timers.delays[reliable]
    assert delays[L] == delays[M] == timers.timeout == 64 * t1
    assert [delays[letter] for letter in (D, I, J, K)] == ([0.0] * 4 if reliable else [32.0, t4, 64 * t1, t4])
    assert delays[RETRANSMIT] == (64 * t1 if reliable else t1)
    assert timers.slow == 3.5  # RFC 4320 §4.1: when timer E reaches T2


@pytest.mark.rfc("3261", "17.1.1.2")
def test_a_reliable_transport_leaves_nothing_to_wait_for() -> None:
    layer: Any = Layer(reliable=True)
    layer.timers = Timers(0.5, 4.0, 5.0)
    client = NonInviteClient(layer, b"b", b"OPTIONS", layer.flow, b"sent", layer)
    client.start(0.0)
    client.receive(200, parse(RESPONSE % 200), 1.0)
    assert client.state == tables.TERMINATED and layer.forgotten == 1 and client.due == NEVER
    server = NonInviteServer(layer, b"k", layer.flow, [*HEAD, b"To: <sip:c@d>"])
    server.respond(200, b"new", 1.0)
    assert server.state == tables.S_TERMINATED


def test_the_diagrams_are_the_tables() -> None:
    assert PAGE.read_text() == page(), "docs/state-machines.md is old: run `python -m docs.state_machines`"
