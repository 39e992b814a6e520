"""Registrations against scripted registrars on a virtual clock.

Over 600 lines because it is one list of what one state machine does, each case a few lines long: a reader looks
a rule up here.  What proves an account stands in `test_register_authentication`.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from sipengine.configuration import Configuration
from sipengine.events import RegistrationState as State
from sipengine.events import Target, Trigger
from sipengine.exceptions import ResolutionError
from sipengine.uac.binding import TOGETHER, BindingRecord
from tests.sipengine.uac.registrar import Network, Reply, account, challenging, granting


def registered(network: Network, **changes: object) -> None:
    network.registrations.change(account(**changes), network.now)
    network.run(1)
    assert network.events[-1].state is State.REGISTERED


@pytest.mark.rfc("3261", "10.2")
def test_form_of_a_register() -> None:
    network = Network(granting())
    registered(network)
    [sent] = network.sent
    message = sent.message
    assert message.start == b"REGISTER sip:provider.example SIP/2.0"
    assert sent.remote == ("192.0.2.9", 5070)
    assert message.get(b"To") == b"<sip:trunk1@provider.example>"
    assert message.from_.uri == b"sip:trunk1@provider.example" and message.from_.tag
    assert sent.contact == "<sip:acc000001@192.0.2.1:5060>"
    assert sent.expires == 600
    assert message.cseq == (1, b"REGISTER")
    assert b"route" not in message.keys
    states = [event.state for event in network.events]
    assert states == [State.REGISTERING, State.REGISTERED]
    last = network.last()
    assert (last.trigger, last.code, last.reason, last.granted) == (Trigger.CHANGE, 200, "OK", 600)
    assert last.bound_until_at == pytest.approx(sent.at + 600)
    assert last.round_trip == pytest.approx(0.02)
    assert last.target == "udp:192.0.2.9:5070"
    assert last.cause == "" and last.final and last.generation == 1


@pytest.mark.checklist("H14")
def test_contact_forms() -> None:
    network = Network(granting(), configuration=Configuration(reg_contact_addr="198.51.100.7:5080"))
    registered(network, contact_user="+49 30")
    assert network.sent[-1].contact == "<sip:+49%2030@198.51.100.7:5080;line=acc000001>"
    network.registrations.change(account(contact_addr="203.0.113.5;ob"), network.now)
    network.run(1)
    assert network.sent[-1].contact == "<sip:acc000001@203.0.113.5;ob>"
    registered(network, l_uuid="a;b>c", contact_user="n")
    assert network.sent[-1].contact == "<sip:n@198.51.100.7:5080;line=a%3Bb%3Ec>"


def test_tcp_says_so_in_contact() -> None:
    network = Network(granting())
    network.endpoint.add_listener("tcp", "192.0.2.1", 5060)
    registered(network, auth_proxy="sip:192.0.2.9:5070;transport=tcp")
    assert network.sent[0].contact == "<sip:acc000001@192.0.2.1:5060;transport=tcp>"
    assert network.sent[0].message.via.transport == b"TCP"


@pytest.mark.checklist("H2")
def test_refreshes_keep_call_id_and_tag_and_raise_cseq() -> None:
    network = Network(challenging(granting()))
    registered(network)
    network.run(4000)
    messages = [sent.message for sent in network.sent]
    assert len(messages) >= 8
    assert len({m.call_id for m in messages}) == 1
    assert len({m.from_.tag for m in messages}) == 1
    assert [m.cseq[0] for m in messages] == list(range(1, len(messages) + 1))


@pytest.mark.parametrize(
    ("code", "state", "cause"),
    [
        (403, State.REFUSED, "banned_403"), (404, State.REFUSED, "unknown_user"), (400, State.REFUSED, "answer"),
        (603, State.REFUSED, "answer"), (301, State.FAILING, "redirected"), (408, State.FAILING, "answer"),
        (500, State.FAILING, "answer"), (503, State.FAILING, "busy_503"),
    ],
)
@pytest.mark.checklist("H8")
def test_refusals_and_failures_are_never_given_up(code: int, state: State, cause: str) -> None:
    network = Network(lambda message: (code, "Because", []))
    network.registrations.change(account(), network.now)
    network.run(1)
    last = network.last()
    assert (last.state, last.cause, last.code, last.reason, last.failures) == (state, cause, code, "Because", 1)
    wait = (last.next_attempt_at or 0) - last.at
    assert 60 <= wait <= 75 if state is State.REFUSED else 4 <= wait <= 5
    network.run(4 * 3600)
    gaps = [b.at - a.at for a, b in pairwise(network.sent)]
    assert 700 <= gaps[-1] <= 903
    network.answer = granting()
    network.run(910)
    assert network.last().state is State.REGISTERED and network.last().failures == 0


@pytest.mark.checklist("H17")
def test_no_answer_is_a_timeout_and_the_old_binding_still_counts() -> None:
    network = Network(granting())
    registered(network)
    bound_until = network.last().bound_until_at
    network.answer = None
    network.run(576)
    refreshing, failing = network.events[2:4]
    assert (refreshing.state, refreshing.bound_until_at) == (State.REFRESHING, bound_until)
    assert (failing.state, failing.cause, failing.code) == (State.FAILING, "timeout", None)
    assert failing.bound_until_at == bound_until
    assert failing.at - refreshing.at == pytest.approx(32)
    network.run(100)
    assert network.last().bound_until_at is None
    network.answer = granting()
    network.run(700)
    assert network.last().state is State.REGISTERED


@pytest.mark.rfc("3261", "20.33")
@pytest.mark.checklist("H9")
def test_retry_after_wins_when_longer() -> None:
    network = Network(lambda message: (503, "Busy", ["Retry-After: 3600 (maintenance);duration=5"]))
    network.registrations.change(account(), network.now)
    network.run(1)
    last = network.last()
    assert (last.next_attempt_at or 0) - last.at == pytest.approx(3600)
    network.answer = lambda message: (503, "Busy", ["Retry-After: 1"])
    network.registrations.register("acc000001", network.now)
    network.run(1)
    assert (network.last().next_attempt_at or 0) - network.last().at >= 4
    network.answer = lambda message: (503, "Busy", ["Retry-After: 99999999999"])
    network.registrations.register("acc000001", network.now)
    network.run(1)
    assert (network.last().next_attempt_at or 0) - network.last().at <= 4 * 3600


@pytest.mark.rfc("3261", "10.3")
@pytest.mark.checklist("H6")
def test_423_asks_longer_at_once_and_remembers() -> None:
    def answer(message: object) -> Reply:
        asked = int(message.get(b"Expires"))  # type: ignore[attr-defined]
        return granting()(message) if asked >= 1800 else (423, "Interval Too Brief", ["Min-Expires: 1800"])  # type: ignore[arg-type]

    network = Network(answer)
    registered(network)
    assert [sent.expires for sent in network.sent] == [600, 1800]
    assert network.last().granted == 1800
    network.run(1700)
    assert [sent.expires for sent in network.sent] == [600, 1800, 1800]


@pytest.mark.parametrize("headers", [["Min-Expires: 10"], ["Min-Expires: 4294967295"], [], ["Min-Expires: x"]])
@pytest.mark.checklist("H6")
def test_423_without_sense_is_bounded(headers: list[str]) -> None:
    network = Network(lambda message: (423, "Interval Too Brief", headers))
    network.registrations.change(account(), network.now)
    network.run(3)
    assert len(network.sent) <= 4
    assert (network.last().state, network.last().cause) == (State.FAILING, "interval_423")


@pytest.mark.rfc("3261", "10.2.4")
@pytest.mark.parametrize(
    ("headers", "granted"),
    [
        (["Contact: <sip:other@1.2.3.4>;expires=5, <sip:acc000001@9.9.9.9:1>;expires=300"], 300),
        (["Contact: <sip:other@1.2.3.4>;expires=5", "Contact: <sip:acc000001@192.0.2.1:5060>", "Expires: 200"], 200),
        (["Contact: <sip:rewritten@1.2.3.4>;expires=120"], 120),
        (["m: <sip:acc000001@192.0.2.1:5060>"], 600),
        (["Contact: sip:acc000001@192.0.2.1:5060;expires=60"], 60),
        (['Contact: "x, y" <sip:acc000001@192.0.2.1:5060>;q=0.5;expires="77"'], 77),
    ],
)
@pytest.mark.checklist("H4")
def test_granted_time(headers: list[str], granted: int) -> None:
    network = Network(lambda message: (200, "OK", headers))
    registered(network)
    assert network.last().granted == granted
    assert network.last().cause == ("short_grant" if granted < 600 else "")


@pytest.mark.parametrize(
    "headers",
    [
        [], ["Contact: <sip:a@1.2.3.4>, <sip:b@1.2.3.4>"], ["Contact: <sip:acc000001@192.0.2.1:5060>;expires=0"],
        ["Contact: *"],
    ],
)
@pytest.mark.checklist("H4")
def test_200_without_our_binding_is_a_failure(headers: list[str]) -> None:
    network = Network(lambda message: (200, "OK", headers))
    network.registrations.change(account(), network.now)
    network.run(1)
    assert (network.last().state, network.last().cause, network.last().code) == (State.FAILING, "no_binding", 200)


@pytest.mark.checklist("H4")
@pytest.mark.checklist("H14")
def test_line_token_finds_our_contact() -> None:
    contacts = "Contact: <sip:n@1.1.1.1;line=acc000002>;expires=9, <sip:n@1.1.1.1;line=acc000001>;expires=90"
    network = Network(lambda message: (200, "OK", [contacts]))
    registered(network, contact_user="n")
    assert network.last().granted == 90


@pytest.mark.parametrize("granted", [20, 30, 60, 64, 65, 90, 120, 360, 600, 3600])
@pytest.mark.checklist("H5")
def test_refresh_times(granted: int) -> None:
    ratios = []
    for seed in range(40):
        network = Network(granting(granted), seed=seed * 1000)
        registered(network, expires=3600)
        last = network.last()
        sent_at = network.sent[0].at
        ratios.append(((last.next_attempt_at or 0) - sent_at) / granted)
        assert (last.bound_until_at or 0) - sent_at == granted
    if granted <= 64:
        assert min(ratios) >= 0.5 and max(ratios) <= 2 / 3
    else:
        latest = min(granted - 32, 0.9 * granted)
        assert max(ratios) * granted <= latest and min(ratios) * granted >= latest - 0.05 * granted
    assert max(ratios) - min(ratios) > 0.02  # spread


def test_refreshes_leave_in_groups_and_each_group_in_one_turn() -> None:
    network = Network(granting(60))
    for number in range(200):
        network.registrations.change(account(l_uuid=f"acc{number}"), network.now)
    network.run(10)
    first = len(network.sent)
    network.run(32)
    moments = [sent.at for sent in network.sent[first:]]
    assert len(moments) == 200
    assert len(set(moments)) <= 6 / TOGETHER + 1, "six seconds of jitter, four turns a second"


@pytest.mark.parametrize("granted", [1, 2, 3, 20, 45, 65, 300])
@pytest.mark.checklist("H5")
def test_binding_never_lapses_by_the_guard_alone(granted: int) -> None:
    network = Network(challenging(granting(granted)))
    registered(network, expires=3600)
    network.run(granted * 20)
    ends = [(e.at, e.bound_until_at or 0) for e in network.events if e.final]
    assert len(ends) >= 20
    assert all(later[0] < earlier[1] for earlier, later in pairwise(ends))
    assert {e.trigger for e in network.events[2:]} == {Trigger.GUARD}


def test_plan_of_beat_is_served_and_the_guard_stays_silent() -> None:
    network = Network(granting(100))
    registered(network)
    for _ in range(5):
        last = network.last()
        assert last.next_attempt_at is not None
        network.registrations.plan("acc000001", last.generation, last.next_attempt_at, network.now)
        network.registrations.plan("acc000001", last.generation - 1, network.now, network.now)  # outdated
        network.run(last.next_attempt_at - network.now - 0.001)
        count = len(network.sent)
        network.run(0.1)
        assert len(network.sent) == count + 1
        assert network.last().trigger is Trigger.BEAT
    assert len(network.sent) == 6


@pytest.mark.checklist("H1")
def test_guard_fires_two_seconds_after_the_computed_time() -> None:
    network = Network(granting(100))
    registered(network)
    due = network.last().next_attempt_at or 0
    network.run(due + 1.9 - network.now)
    assert len(network.sent) == 1
    network.run(0.2)
    assert len(network.sent) == 2 and network.last().trigger is Trigger.GUARD


@pytest.mark.checklist("H1")
@pytest.mark.checklist("H3")
def test_one_register_at_a_time_and_the_newest_wish_wins() -> None:
    network = Network(granting(), latency=1.0)
    network.registrations.change(account(), network.now)
    network.run(0.1)
    network.registrations.register("acc000001", network.now)
    network.registrations.unregister("acc000001", network.now)
    network.run(1)
    assert len(network.sent) == 1
    network.run(3)
    assert [sent.expires for sent in network.sent] == [600, 0]
    network.run(2000)
    assert network.last().state is State.UNREGISTERED and len(network.sent) == 2


@pytest.mark.rfc("3261", "10.2.2")
@pytest.mark.checklist("H15")
def test_disable_takes_the_binding_back_and_enable_asks_again() -> None:
    network = Network(challenging(granting()))
    registered(network)
    network.registrations.change(account(enabled=False), network.now)
    network.run(1)
    assert network.sent[-1].contact == "<sip:acc000001@192.0.2.1:5060>;expires=0"
    assert network.sent[-1].expires == 0 and network.sent[-1].authorized
    last = network.last()
    assert (last.state, last.cause) == (State.DISABLED, "disabled")
    assert (last.bound_until_at, last.next_attempt_at) == (None, None)
    assert State.UNREGISTERING in [event.state for event in network.events]
    count = len(network.sent)
    network.run(5000)
    assert len(network.sent) == count
    assert not network.registrations.register("acc000001", network.now)
    network.registrations.change(account(), network.now)
    network.run(1)
    assert network.last().state is State.REGISTERED


@pytest.mark.checklist("H15")
def test_remove_un_registers_and_forgets() -> None:
    network = Network(challenging(granting()))
    registered(network)
    network.registrations.remove("acc000001", network.now)
    network.run(1)
    assert network.sent[-1].expires == 0
    assert "acc000001" not in network.registrations and len(network.registrations) == 0
    network.run(5000)
    assert network.sent[-1].at < 1010


def test_remove_and_add_again_at_once_registers() -> None:
    network = Network(granting(), latency=0.5)
    network.registrations.change(account(), network.now)
    network.run(2)
    network.registrations.remove("acc000001", network.now)
    network.run(0.1)
    network.registrations.change(account(), network.now)
    network.run(5)
    assert "acc000001" in network.registrations
    assert network.last().state is State.REGISTERED and network.sent[-1].expires == 600


@pytest.mark.checklist("H15")
def test_changed_identity_takes_the_old_binding_back_with_the_old_credentials() -> None:
    network = Network(challenging(granting()))
    registered(network)
    old_call_id = network.sent[0].message.call_id
    network.registrations.change(account(r_username="newname", auth_password="other"), network.now)
    network.answers[("192.0.2.9", 5070)] = challenging(granting(), password="other")
    network.answers.clear()
    network.run(0.5)
    taken_back = [sent for sent in network.sent if sent.expires == 0]
    assert [sent.message.call_id for sent in taken_back] == [old_call_id]
    assert taken_back[-1].authorized
    new = [sent for sent in network.sent if b"newname" in (sent.message.get(b"To") or b"")]
    assert new and new[0].message.call_id != old_call_id
    assert new[0].at >= taken_back[-1].at  # the old one first: both may share a Contact


def test_changed_identity_does_not_wait_for_a_dead_registrar() -> None:
    network = Network(granting())
    registered(network)
    network.answers[("192.0.2.9", 5070)] = lambda message: None
    network.registrations.change(account(auth_proxy="sip:192.0.2.10"), network.now)
    changed_at = network.now
    network.run(5)
    assert network.last().state is State.REGISTERED and network.last().target == "udp:192.0.2.10:5060"
    assert network.last().at - changed_at < 4.5


def test_correcting_a_wrong_proxy_takes_effect_at_once() -> None:
    network = Network()
    network.answers[("192.0.2.10", 5060)] = granting()
    network.registrations.change(account(), network.now)
    network.run(3)
    network.registrations.change(account(auth_proxy="sip:192.0.2.10"), network.now)
    network.run(0.2)
    assert network.last().state is State.REGISTERED
    network.run(60)
    assert network.last().state is State.REGISTERED


def test_a_binding_granted_too_late_is_taken_back() -> None:
    network = Network(granting(), latency=1.0)
    network.registrations.change(account(), network.now)
    network.run(0.1)
    network.registrations.change(account(r_username="newname"), network.now)
    network.run(10)
    back = [sent for sent in network.sent if sent.expires == 0]
    assert len(back) == 1 and b"trunk1" in (back[0].message.get(b"To") or b"")
    assert network.last().state is State.REGISTERED


def test_expires_zero_never_registers() -> None:
    network = Network(granting())
    network.registrations.change(account(expires=0), network.now)
    network.registrations.load(account(2, expires=0), None, network.now)
    network.run(1000)
    assert network.sent == []
    assert network.last().state is State.UNREGISTERED and network.last().next_attempt_at is None
    assert not network.registrations.register("acc000001", network.now)


def test_operator_orders() -> None:
    network = Network(granting())
    registered(network)
    assert network.registrations.register("acc000001", network.now)
    network.run(1)
    assert network.last().trigger is Trigger.OPERATOR and len(network.sent) == 2
    assert network.registrations.unregister("acc000001", network.now)
    network.run(1)
    last = network.last()
    assert (last.state, last.trigger, last.final) == (State.UNREGISTERED, Trigger.OPERATOR, True)
    network.registrations.plan("acc000001", last.generation, network.now, network.now)
    network.run(5000)
    assert len(network.sent) == 3
    assert not network.registrations.unregister("nobody", network.now)


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"auth_proxy": "nonsense"}, "bad_proxy"), ({"auth_proxy": "http://x"}, "bad_proxy"),
        ({"auth_proxy": "sip:host:99999"}, "bad_proxy"), ({"auth_proxy": "sips:192.0.2.9"}, "no_socket"),
        ({"auth_proxy": "sip:192.0.2.9;transport=tcp"}, "no_socket"),
        ({"auth_proxy": "sip:[2001:db8::1]"}, "no_socket"),
        ({"socket": "udp:192.0.2.77:5060"}, "no_socket"), ({"socket": "tcp:192.0.2.1:5060"}, "no_socket"),
        ({"socket": "rubbish"}, "no_socket"), ({"r_domain": "a b"}, "bad_row"),
        ({"r_domain": "x\r\nEvil: 1"}, "bad_row"),
        ({"r_username": ""}, "bad_row"), ({"contact_addr": "1.2.3.4>\r\nEvil: 1"}, "bad_row"),
        ({"contact_addr": "1.2.3.4;line=7", "contact_user": "n"}, "bad_row"),
    ],
)
def test_unusable_rows_tell_their_cause(row: dict[str, str], cause: str) -> None:
    network = Network(granting())
    network.registrations.change(account(**row), network.now)
    network.run(1)
    assert network.sent == []
    assert network.last().cause == cause and network.last().next_attempt_at is not None
    network.registrations.change(account(), network.now)
    network.run(1)
    assert network.last().state is State.REGISTERED


def test_named_socket_is_used() -> None:
    network = Network(granting())
    network.endpoint.add_listener("udp", "192.0.2.2", 5060)
    registered(network, socket="udp:192.0.2.2:5060")
    assert network.sent[0].contact == "<sip:acc000001@192.0.2.2:5060>"


def test_user_parts_are_escaped() -> None:
    network = Network(granting())
    registered(network, r_username="a b@c", auth_username="")
    assert network.sent[0].message.get(b"To") == b"<sip:a%20b%40c@provider.example>"


@pytest.mark.checklist("H9")
def test_name_is_located_and_the_next_target_is_tried() -> None:
    network = Network()
    network.answers[("192.0.2.21", 5060)] = lambda message: (503, "Busy", [])
    network.answers[("192.0.2.22", 5060)] = granting()
    targets = [Target("udp", (f"192.0.2.{n}", 5060)) for n in (20, 21, 22)]
    network.registrations.change(account(auth_proxy="sip:sip.provider.example"), network.now)
    network.run(1)
    [query] = network.wanted
    assert (query.host, query.port) == ("sip.provider.example", None)
    network.endpoint.resolved(query, targets, network.now)
    network.run(40)
    assert network.last().state is State.REGISTERED
    assert network.last().target == "udp:192.0.2.22:5060"
    # Whoever gave no answer stands behind the others for a while.
    network.registrations.register("acc000001", network.now)
    network.run(0)
    network.endpoint.resolved(network.wanted[-1], targets, network.now)
    network.run(1)
    assert network.sent[-1].remote == ("192.0.2.22", 5060) and network.last().round_trip == pytest.approx(0.02)


def test_name_without_address() -> None:
    network = Network(granting())
    network.registrations.change(account(auth_proxy="", r_domain="nowhere.example"), network.now)
    network.run(1)
    network.endpoint.resolved(network.wanted[0], ResolutionError("DNS has no address"), network.now)
    network.settle()
    assert (network.last().state, network.last().cause) == (State.FAILING, "dns_empty")
    assert network.last().reason == "DNS has no address"
    network.run(20)
    assert len(network.wanted) >= 2


# restart
def record(network: Network, **changes: object) -> BindingRecord:
    last = network.last()
    values: dict[str, object] = {
        "call_id": last.call_id, "from_tag": last.from_tag, "cseq": last.cseq, "contact": last.contact,
        "granted": last.granted, "bound_until_at": last.bound_until_at, "next_attempt_at": last.next_attempt_at,
        "generation": last.generation, "failures": last.failures, "code": last.code, "reason": last.reason,
    }
    return BindingRecord(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.checklist("H2")
def test_restart_keeps_a_binding_that_stands() -> None:
    before = Network(granting())
    registered(before)
    after = Network(granting(), now=before.now + 5, seed=77777)
    after.registrations.load(account(), record(before), after.now)
    after.run(5)
    assert after.sent == []
    assert after.last().state is State.REGISTERED and not after.last().final
    assert (after.last().code, after.last().reason) == (200, "OK"), "the last answer is still the last answer"
    after.run(600)
    sent = after.sent[0]
    assert sent.message.call_id == before.sent[0].message.call_id
    assert sent.message.from_.tag == before.sent[0].message.from_.tag
    assert sent.message.cseq[0] > before.sent[-1].message.cseq[0]
    assert after.events[1].trigger is Trigger.GUARD
    assert after.last().generation == 2


@pytest.mark.parametrize("case", ["lapsed", "missed", "moved", "failing", "none"])
def test_restart_registers_where_it_must(case: str) -> None:
    before = Network(granting())
    registered(before)
    now = before.now + 5
    records = {
        "lapsed": record(before, bound_until_at=now - 1), "missed": record(before, next_attempt_at=now - 1),
        "moved": record(before, contact="sip:acc000001@192.0.2.1:5099"), "failing": record(before, failures=1),
        "none": None,
    }
    after = Network(granting(), now=now, seed=77777)
    after.registrations.load(account(), records[case], after.now)
    after.run(1)
    assert len(after.sent) == 1
    assert after.last().state is State.REGISTERED and after.last().trigger is Trigger.RECOVERY
    if case == "moved":
        contacts = after.sent[0].message.get_list(b"Contact")
        assert contacts == [b"<sip:acc000001@192.0.2.1:5060>", b"<sip:acc000001@192.0.2.1:5099>;expires=0"]


def test_disabled_while_we_were_away_is_taken_back() -> None:
    before = Network(granting())
    registered(before)
    after = Network(granting(), now=before.now + 5, seed=77777)
    after.registrations.load(account(enabled=False), record(before), after.now)
    after.run(1)
    assert [sent.expires for sent in after.sent] == [0]
    assert after.last().state is State.DISABLED


def test_reg_delay_holds_the_first_register_back() -> None:
    network = Network(granting())
    network.registrations.load(account(reg_delay=30), None, network.now)
    network.run(29)
    assert network.sent == []
    network.run(2)
    assert len(network.sent) == 1 and network.last().trigger is Trigger.RECOVERY


# pace
@pytest.mark.checklist("H11")
def test_a_thousand_accounts_from_a_cold_start() -> None:
    network = Network(challenging(granting()))
    for number in range(1000):
        network.registrations.load(account(number), None, network.now)
    start = network.now
    network.run(10)
    assert len(network.sent) == 2000
    assert network.retransmissions == 0
    assert sum(event.state is State.REGISTERED for event in network.events) == 1000
    times = [sent.at for sent in network.sent]
    assert times[-1] - start < 4.2
    for at in range(4):
        assert sum(start + at <= t < start + at + 1 for t in times) <= 520


def test_operator_jumps_the_queue() -> None:
    network = Network(granting())
    for number in range(1000):
        network.registrations.load(account(number), None, network.now)
    network.run(0.1)
    assert len(network.sent) < 100
    network.registrations.register("acc000999", network.now)
    network.run(0.05)
    assert network.last(999).state is State.REGISTERED


def test_timeouts_slow_the_target_down() -> None:
    network = Network()
    network.registrations.change(account(), network.now)
    network.run(33)
    assert network.registrations.pacing.rate_of(("192.0.2.9", 5070), network.now) < 300
    network.run(120)


def test_no_service_stop_takes_a_binding_back() -> None:
    network = Network(granting())
    registered(network)
    del network.registrations
    assert [sent.expires for sent in network.sent] == [600]


def test_a_plan_behind_the_guard_does_not_hold_the_guard_back() -> None:
    network = Network(granting(100))
    registered(network)
    last = network.last()
    network.registrations.plan("acc000001", last.generation, (last.next_attempt_at or 0) + 50, network.now)
    network.run(100)
    assert network.sent[1].at == pytest.approx((last.next_attempt_at or 0) + 2)


def test_an_operator_may_take_back_what_we_do_not_know_of() -> None:
    network = Network(granting())
    network.registrations.load(account(), None, network.now)
    network.registrations.unregister("acc000001", network.now)
    network.run(1)
    assert [sent.expires for sent in network.sent] == [0]
    assert network.sent[0].contact == "<sip:acc000001@192.0.2.1:5060>;expires=0"
    assert network.last().state is State.UNREGISTERED and network.last().final


def test_a_loopback_socket_does_not_reach_a_provider() -> None:
    network = Network(granting())
    network.endpoint.listeners.clear()
    network.endpoint.add_listener("udp", "127.0.0.1", 5060)
    network.registrations.change(account(), network.now)
    network.run(1)
    assert network.sent == [] and network.last().cause == "no_socket"
    network.registrations.change(account(auth_proxy="sip:127.0.0.9"), network.now)
    network.run(1)
    assert network.last().state is State.REGISTERED


def test_an_account_without_a_usable_value_sends_nothing_until_it_is_mended() -> None:
    network = Network(granting())
    network.registrations.load(account(problem="secret_unreadable"), None, network.now)
    network.run(600)
    assert network.sent == []
    assert (network.last().state, network.last().cause) == (State.REFUSED, "secret_unreadable")
    network.registrations.change(account(), network.now)
    network.run(1)
    assert network.last().state is State.REGISTERED
