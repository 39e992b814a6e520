"""What becomes of bindings that no account names any more, also those that an earlier process left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sipengine.events import RegistrationState as State
from sipengine.uac.binding import BindingRecord
from tests.sipengine.uac.registrar import Network, account, challenging, granting

HEAD_START = 4.0
LEFT = BindingRecord("left@1", "tag1", 7, contact="sip:acc000001@192.0.2.1:5060", bound_until_at=1500.0)


def un_registers(network: Network) -> list[bytes]:
    return [sent.message.call_id for sent in network.sent if sent.expires == 0]


@pytest.mark.rfc("3261", "10.2.2")
@pytest.mark.checklist("H15")
def test_a_binding_of_an_earlier_process_is_taken_back_with_the_old_credentials() -> None:
    network = Network(challenging(granting()))
    network.registrations.depart(account(), LEFT, network.now)
    network.run(1)
    assert [sent.authorized for sent in network.sent] == [False, True]
    message = network.sent[-1].message
    assert (network.sent[-1].expires, message.call_id) == (0, b"left@1")
    assert network.sent[-1].contact == "<sip:acc000001@192.0.2.1:5060>;expires=0"
    assert b"tag=tag1" in (message.get(b"From") or b"") and message.get(b"CSeq") == b"19 REGISTER"
    assert network.departed == ["left@1"]
    assert len(network.registrations) == len(network.registrations.departures) == 0
    network.run(1000)
    assert len(network.sent) == 2


def test_it_is_tried_until_the_registrar_answers() -> None:
    network = Network(lambda message: None)
    network.registrations.depart(account(), LEFT, network.now)
    network.registrations.depart(account(), LEFT, network.now)
    network.run(100)
    assert network.departed == [] and len(network.sent) in (2, 3)
    network.answer = lambda message: (500, "Not now", [])
    network.run(60)
    assert network.departed == []
    network.answer = granting()
    network.run(100)
    assert network.departed == ["left@1"]
    count = len(network.sent)
    network.run(1000)
    assert len(network.sent) == count


def test_it_is_tried_no_longer_than_the_binding_lives() -> None:
    network = Network(lambda message: None)
    network.registrations.depart(account(), LEFT, network.now)
    network.run(499)
    assert network.departed == [] and len(network.sent) > 3
    network.run(40)
    assert network.departed == ["left@1"]
    assert network.sent[-1].at < 1500


@pytest.mark.parametrize("answer", [(404, "Not Found", []), (200, "OK", [])])
def test_an_answer_that_will_not_change_ends_it(answer: tuple[int, str, list[str]]) -> None:
    network = Network(lambda message: answer)
    network.registrations.depart(account(), LEFT, network.now)
    network.run(1)
    assert network.departed == ["left@1"]


def test_a_wrong_password_ends_it() -> None:
    network = Network(challenging(granting(), password="changed since"))
    network.registrations.depart(account(), LEFT, network.now)
    network.run(1)
    assert network.departed == ["left@1"]


def test_one_that_lapsed_or_has_no_password_sends_nothing() -> None:
    network = Network(granting())
    network.registrations.depart(account(), LEFT, 1600.0)
    network.run(1)
    assert network.departed == ["left@1"]
    network.registrations.depart(account(problem="secret_unreadable"), LEFT, network.now)
    network.run(100)
    assert network.departed == ["left@1"] and "left@1" in network.registrations.departures
    network.run(500)
    assert network.departed == ["left@1"] * 2 and network.sent == []


def test_the_account_that_is_there_instead_registers_after_it() -> None:
    """Both may share a Contact, and then an un-REGISTER that comes second takes the new binding away."""
    network = Network(granting(), latency=0.5)
    network.registrations.depart(account(), LEFT, network.now)
    network.registrations.load(account(r_username="new"), LEFT, network.now)
    network.run(0.9)
    assert [sent.expires for sent in network.sent] == [0]
    assert network.last().state is State.UNREGISTERING
    network.run(2)
    assert [(sent.at, sent.expires) for sent in network.sent] == [(1000, 0), (1001, 600)]
    assert network.sent[1].message.call_id != b"left@1"
    assert network.last().state is State.REGISTERED


def test_it_waits_for_a_silent_registrar_only_briefly() -> None:
    network = Network(granting())
    network.answers[("192.0.2.9", 5070)] = lambda message: None
    network.registrations.depart(account(), LEFT, network.now)
    network.registrations.load(account(auth_proxy="sip:192.0.2.10"), None, network.now)
    network.run(HEAD_START + 0.1)
    assert network.last().state is State.REGISTERED
    assert network.last().target == "udp:192.0.2.10:5060"


@pytest.mark.checklist("H15")
def test_the_new_binding_is_never_taken_for_the_old_one() -> None:
    """Only the proxy differs: one Contact at one registrar, which the new REGISTER took over."""
    network = Network(granting())
    network.answers[("192.0.2.9", 5070)] = lambda message: None
    network.registrations.depart(account(), LEFT, network.now)
    network.registrations.load(account(auth_proxy="sip:192.0.2.10"), None, network.now)
    network.run(60)
    assert un_registers(network) == [b"left@1"]
    assert network.departed == ["left@1"]


def test_another_contact_at_the_same_registrar_is_taken_back_however_late() -> None:
    network = Network(granting())
    network.answers[("192.0.2.9", 5070)] = lambda message: None
    network.registrations.depart(account(), LEFT, network.now)
    network.registrations.load(account(auth_proxy="sip:192.0.2.10", contact_user="n"), None, network.now)
    network.run(60)
    assert len(un_registers(network)) == 2 and network.departed == []
    network.answers.clear()
    network.run(60)
    assert network.departed == ["left@1"]


def test_what_an_account_has_is_left_to_it() -> None:
    network = Network(granting())
    network.registrations.load(account(), LEFT, network.now)
    network.registrations.depart(account(), LEFT, network.now)
    network.run(1)
    assert un_registers(network) == [] and network.departed == []


@pytest.mark.checklist("H15")
def test_a_deleted_account_is_taken_back_when_the_registrar_answers_again() -> None:
    network = Network(granting())
    network.registrations.change(account(), network.now)
    network.run(1)
    call_id = network.last().call_id
    network.answer = lambda message: None
    network.registrations.remove("acc000001", network.now)
    network.run(60)
    assert len(network.registrations) == 0 and network.departed == []
    network.answer = granting()
    network.run(60)
    assert network.departed == [call_id]


def test_one_that_is_deleted_while_it_refreshes_is_taken_back_after_that() -> None:
    network = Network(granting(), latency=0.5)
    network.registrations.change(account(), network.now)
    network.run(2)
    network.registrations.register("acc000001", network.now)
    network.run(0.1)
    network.registrations.remove("acc000001", network.now)
    network.run(5)
    assert [(sent.at, sent.expires) for sent in network.sent[1:]] == [(1002, 600), (1003, 0)]
    assert len(network.departed) == 1 and len(network.registrations) == 0


def test_a_binding_that_a_late_un_register_may_hit_is_asked_for_anew() -> None:
    """A restart between the new binding's grant and the end of the old one, which has the same Contact."""
    network = Network(granting())
    network.registrations.depart(account(auth_proxy="sip:192.0.2.10"), LEFT, network.now)
    stands = replace(LEFT, call_id="new@1", granted=600, next_attempt_at=1400.0)
    network.registrations.load(account(), stands, network.now)
    network.run(1)
    assert [(sent.message.call_id, sent.expires) for sent in network.sent] == [(b"left@1", 0), (b"new@1", 600)]


def test_one_that_is_deleted_before_it_is_asked_for_longer_is_taken_back_once() -> None:
    network = Network(granting(), latency=0.5)
    network.registrations.change(account(), network.now)
    network.run(2)
    network.answer = lambda message: (423, "Interval Too Brief", ["Min-Expires: 900"])
    network.registrations.register("acc000001", network.now)
    network.run(0.1)
    network.answer = granting()
    network.registrations.remove("acc000001", network.now)
    network.run(5)
    assert [sent.expires for sent in network.sent[1:]] == [600, 0] and len(network.departed) == 1
