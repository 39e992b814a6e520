"""REGISTER at a name with several servers: which is asked, which rests, and what a Retry-After keeps away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sipengine.events import RegistrationState as State
from sipengine.events import Target
from sipengine.message import Message
from tests.sipengine.uac.registrar import Network, Reply, account, granting

TESTDATA = Path(os.environ.get("SIP_TESTDATA", Path(__file__).parents[3] / ".." / "shared" / "testdata"))
CASES = TESTDATA / "dns" / "cases.json"
FIRST, SECOND = Target("udp", ("192.0.2.21", 5060)), Target("udp", ("192.0.2.22", 5060))
NAME = "sip:sip.provider.example"
PRIMARY, STANDBY = ("192.0.2.9", 5070), ("192.0.2.31", 5060)


def silent(message: Message) -> Reply:
    return None


def remotes(network: Network, since: float = 0.0) -> list[tuple[str, int]]:
    """Where REGISTERs went, repeats to one server told once."""
    sent = [each.remote for each in network.sent if each.at >= since and each.message.method == b"REGISTER"]
    return [remote for number, remote in enumerate(sent) if not number or sent[number - 1] != remote]


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


@pytest.mark.checklist("F7")
def test_a_refresh_stays_at_the_server_that_granted() -> None:
    network = Network(granting(60))
    register(network, [FIRST, SECOND])
    network.run(1)
    for _ in range(5):
        asked = len(network.wanted)
        while len(network.wanted) == asked:
            network.run(1)
        network.endpoint.resolved(network.wanted[-1], [SECOND, FIRST], network.now)
        network.run(1)
    assert remotes(network) == [FIRST.address]


def test_a_refresh_goes_elsewhere_when_its_server_is_no_longer_named() -> None:
    network = Network(granting(60))
    register(network, [FIRST])
    network.run(1)
    while len(network.wanted) == 1:
        network.run(1)
    network.endpoint.resolved(network.wanted[-1], [SECOND], network.now)
    network.run(1)
    assert remotes(network) == [FIRST.address, SECOND.address]


@pytest.mark.parametrize("granted", [20, 60])
def test_a_silent_server_is_left_in_time_for_the_binding(granted: int) -> None:
    network = Network(granting(granted))
    register(network, [FIRST, SECOND])
    network.run(1)
    network.answers[FIRST.address] = silent
    while len(network.wanted) == 1:
        network.run(0.5)
    network.endpoint.resolved(network.wanted[-1], [FIRST, SECOND], network.now)
    until = network.last().bound_until_at or 0.0
    network.run(6.5)
    assert network.last().state is State.REGISTERED and network.last().at < until
    assert network.last().target.endswith(SECOND.address[0] + ":5060")


def test_a_server_that_is_at_work_on_it_has_its_full_time() -> None:
    network = Network(lambda message: (100, "Trying", []))
    register(network, [FIRST, SECOND])
    network.run(20)
    assert remotes(network) == [FIRST.address]


def test_the_only_server_has_its_full_time() -> None:
    network = Network(silent)
    network.registrations.change(account(), network.now)
    network.run(31.9)
    assert network.last().state is State.REGISTERING
    network.run(0.2)
    assert network.last().cause == "timeout"


@pytest.mark.checklist("F5")
def test_another_registrar_serves_while_the_first_is_silent_and_no_longer() -> None:
    network = Network(granting(60))
    network.answers[PRIMARY] = silent
    network.registrations.change(account(registrars=("sip:192.0.2.31",)), network.now)
    network.run(7)
    assert network.last().state is State.REGISTERED
    network.run(300)
    # One OPTIONS a rest asks whether the first is back; no REGISTER waits for it.
    assert remotes(network, since=1007.0) == [STANDBY]
    network.answers[PRIMARY] = granting(60)
    back_at = network.now
    network.run(300)
    assert remotes(network, since=back_at)[-1] == PRIMARY
    assert all(event.state is not State.FAILING for event in network.events)


def test_another_registrar_is_not_asked_where_the_first_refuses() -> None:
    network = Network(lambda message: (403, "Forbidden", []))
    network.registrations.change(account(registrars=("sip:192.0.2.31",)), network.now)
    network.run(60)
    assert remotes(network) == [PRIMARY]


def test_a_binding_is_taken_back_where_it_is() -> None:
    network = Network(granting(60))
    network.answers[PRIMARY] = silent
    row = account(registrars=("sip:192.0.2.31",))
    network.registrations.change(row, network.now)
    network.run(8)
    network.answers[PRIMARY] = granting(60)
    network.endpoint.rests.answered("udp", PRIMARY)
    since = network.now
    network.registrations.unregister(row.l_uuid, network.now)
    network.run(1)
    assert remotes(network, since) == [STANDBY]


def failovers() -> dict[str, list[Target]]:
    """Servers of the DNS cases of others that have two for one transport, as their SRV records order them."""
    found: dict[str, list[Target]] = {}
    for case in json.loads(CASES.read_text())["cases"] if CASES.exists() else []:
        for transport in ("udp", "tcp") if "failover" in case["case"] else ():
            records = [record for record in case["records"] if record["name"].startswith(f"_sip._{transport}.")]
            addresses = {record["name"]: record["address"] for record in case["records"] if record["type"] == "A"}
            targets = [
                Target(transport, (addresses[record["target"]], record["port"]))
                for record in sorted(records, key=lambda record: record["priority"])
            ]
            if len(targets) > 1:
                found[f"{case['case']}-{transport}"] = targets
    return found


FAILOVERS = failovers()


@pytest.mark.skipif(not FAILOVERS, reason=f"no test data at {CASES}")
@pytest.mark.rfc("3263", "4.3")
@pytest.mark.parametrize("first", [503, None], ids=["busy", "silent"])
@pytest.mark.parametrize("second", [200, None], ids=["grants", "silent-too"])
@pytest.mark.parametrize("name", FAILOVERS)
def test_failover_cases_of_others(name: str, first: int | None, second: int | None) -> None:
    """Both are tried in the order of their SRV records, the same request with a branch of its own."""
    targets = FAILOVERS[name]
    network = Network()
    network.endpoint.add_listener("tcp", "192.0.2.1", 5060)
    if first is not None:
        network.answers[targets[0].address] = lambda message: (503, "Busy", [])
    if second is not None:
        network.answers[targets[1].address] = granting()
    register(network, targets)
    # A server that is silent costs Timer F (RFC 3261 §17.1.2.2).
    network.run(0.9 + (0 if first else 32) + (0 if second else 32))
    one, two = [sent for sent in network.sent if sent.message.method == b"REGISTER"]
    assert [one.remote, two.remote] == [target.address for target in targets]
    assert one.message.via.transport == targets[0].transport.upper().encode()
    assert one.message.call_id == two.message.call_id and one.message.cseq[0] < two.message.cseq[0]
    assert one.message.via.branch != two.message.via.branch
    last = network.last()
    assert last.state is (State.REGISTERED if second else State.FAILING)
    assert last.next_attempt_at is not None, "never given up"
