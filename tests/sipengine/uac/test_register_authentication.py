"""How a REGISTER proves its account: challenges, nonces used again, and what is given up (RFC 3261 §22, RFC 7616)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sipengine.events import RegistrationState as State
from sipengine.events import Target, Trigger
from sipengine.message import Message
from sipengine.uac.request import Outcome
from sipengine.uac.trial import Trial
from tests.sipengine.uac.registrar import REALM, Network, Reply, account, challenging, granting
from tests.sipengine.uac.test_registration import registered


def nc_of(message: Message) -> str:
    return (message.get(b"Authorization") or b"").decode().partition("nc=")[2][:8]


@pytest.mark.rfc("3261", "22.2")
@pytest.mark.parametrize("code", [401, 407])
def test_challenge_is_answered_in_the_same_call(code: int) -> None:
    network = Network(challenging(granting(), code=code))
    registered(network)
    first, second = network.sent
    assert not first.authorized and second.authorized
    assert (first.message.cseq[0], second.message.cseq[0]) == (1, 2)
    assert first.message.call_id == second.message.call_id
    assert first.message.from_.tag == second.message.from_.tag
    assert second.message.to.tag == b""
    assert first.message.via.branch != second.message.via.branch
    assert network.last().realm_seen == "provider.example"


@pytest.mark.rfc("3261", "22.3")
def test_401_then_407_keeps_both_answers() -> None:
    inner = challenging(granting(), code=401, prefix="w")
    network = Network(challenging(inner, code=407, realm="proxy.example", prefix="p"))
    registered(network)
    assert len(network.sent) == 3
    last = network.sent[-1].message
    assert b"nc=00000002" in (last.get(b"Proxy-Authorization") or b"")
    assert b"nc=00000001" in (last.get(b"Authorization") or b"")


@pytest.mark.rfc("7616", "3.4")
def test_a_refresh_is_one_round_trip_where_the_nonce_is_taken_again() -> None:
    network = Network(challenging(granting()))
    registered(network)
    network.run(2000)
    assert [sent.authorized for sent in network.sent] == [False, True, True, True, True]
    counts = [nc_of(sent.message) for sent in network.sent[1:]]
    assert counts == ["00000001", "00000002", "00000003", "00000004"]
    network.registrations.unregister("acc000001", network.now)
    network.run(1)
    assert network.sent[-1].expires == 0 and nc_of(network.sent[-1].message) == "00000005"


@pytest.mark.checklist("G7")
def test_a_nonce_that_is_taken_stays_good_for_grants_of_an_hour() -> None:
    network = Network(challenging(granting()))
    registered(network, expires=3600)
    network.run(20_000)
    assert len(network.sent) > 6 and [sent.authorized for sent in network.sent[:2]] == [False, True]
    assert all(sent.authorized for sent in network.sent[2:])


@pytest.mark.rfc("3261", "22.3")
def test_both_answers_of_a_401_behind_a_407_are_shown_unasked() -> None:
    network = Network(challenging(challenging(granting(), code=401, prefix="w"), code=407, realm="p", prefix="p"))
    registered(network)
    network.run(550)
    assert len(network.sent) == 4
    last = network.sent[-1].message
    assert b"nc=00000003" in (last.get(b"Proxy-Authorization") or b"")
    assert b"nc=00000002" in (last.get(b"Authorization") or b"")


@pytest.mark.rfc("7616", "3.5")
def test_the_next_nonce_is_used_at_the_next_refresh() -> None:
    right = challenging(granting())

    def answer(message: Message) -> Reply:
        reply = right(message)
        if reply is None or reply[0] != 200:
            return reply
        return reply[0], reply[1], [*reply[2], 'Authentication-Info: nextnonce="following"']

    network = Network(answer)
    registered(network)
    network.run(550)
    value = network.sent[-1].message.get(b"Authorization") or b""
    assert len(network.sent) == 3 and b'nonce="following"' in value and b"nc=00000001" in value


@pytest.mark.rfc("3261", "22.3")
def test_the_answer_for_a_realm_that_was_renamed_is_not_shown_beside_the_new_one() -> None:
    network = Network(challenging(granting()))
    registered(network)

    def reads_the_first(message: Message) -> Reply:
        if b'realm="renamed"' in (message.get(b"Authorization") or b""):
            return granting()(message)
        return 401, "Unauthorized", ['WWW-Authenticate: Digest realm="renamed", nonce="r", qop="auth"']

    network.answer = reads_the_first
    network.run(1600)
    shown = [sent.message.get_all(b"Authorization") for sent in network.sent[2:5]]
    assert [len(values) for values in shown] == [1, 1, 1]
    assert b'realm="renamed"' in shown[1][0] and b'realm="renamed"' in shown[2][0]
    assert b"nc=00000002" in shown[2][0]


@pytest.mark.checklist("G7")
def test_where_nonces_are_good_once_a_refresh_waits_for_its_challenge() -> None:
    used: set[str] = set()
    inner = challenging(granting())

    def answer(message: Message) -> Reply:
        value = (message.get(b"Authorization") or b"").decode()
        nonce = value.partition('nonce="')[2].partition('"')[0]
        if nonce in used:
            fresh = f'realm="{REALM}", qop="auth", nonce="x{len(used)}", stale=true'
            return 401, "No", [f"WWW-Authenticate: Digest {fresh}"]
        used.add(nonce or "none")
        used.discard("none")
        return inner(message)

    network = Network(answer)
    registered(network)
    network.run(3500)
    shown = "".join("+" if sent.authorized else "-" for sent in network.sent)
    assert shown.startswith("-+" "++++" "-+-+-+"), "two refusals, then nothing is shown unasked for an hour"
    asked_from = next(sent.at for sent, mark in zip(network.sent[6:], shown[6:], strict=True) if mark == "-")
    network.run(2500)
    later = [sent for sent in network.sent if sent.at > asked_from + 3500]
    assert later[0].authorized, "after that it is tried again, however often was refreshed meanwhile"
    assert network.last().state is State.REGISTERED


@pytest.mark.parametrize("code", [400, 403])
def test_a_server_that_refuses_a_forgotten_nonce_is_asked_anew(code: int) -> None:
    inner = challenging(granting())
    forgets = False

    def answer(message: Message) -> Reply:
        if forgets and b"nonce=\"n0\"" in (message.get(b"Authorization") or b""):
            return code, "Forbidden", []
        return inner(message)

    network = Network(answer)
    registered(network)
    forgets = True
    network.run(550)
    assert [sent.authorized for sent in network.sent] == [False, True, True, False, True]
    assert (network.last().state, network.last().failures) == (State.REGISTERED, 0)


@pytest.mark.rfc("7616", "3.3")
def test_stale_nonce_gets_another_try() -> None:
    replies: list[Reply] = [
        (401, "Unauthorized", ['WWW-Authenticate: Digest realm="r", nonce="1", qop="auth"']),
        (401, "Unauthorized", ['WWW-Authenticate: Digest realm="r", nonce="2", qop="auth", stale=true']),
    ]
    network = Network(lambda message: replies.pop(0) if replies else granting()(message))
    registered(network)
    assert len(network.sent) == 3


def test_another_nonce_without_stale_gets_one_more_try() -> None:
    replies: list[Reply] = [
        (401, "Unauthorized", [f'WWW-Authenticate: Digest realm="r", nonce="{n}", qop="auth"']) for n in (1, 2)
    ]
    network = Network(lambda message: replies.pop(0) if replies else granting()(message))
    registered(network)
    assert len(network.sent) == 3


def test_endless_stale_nonces_end() -> None:
    count = iter(range(1000))
    network = Network(
        lambda m: (401, "No", [f'WWW-Authenticate: Digest realm="r", nonce="{next(count)}", stale=true'])
    )
    network.registrations.change(account(), network.now)
    network.run(10)
    assert len(network.sent) == 4
    assert network.last().cause == "wrong_password"


@pytest.mark.checklist("H7")
def test_wrong_password_is_refused_and_asked_seldom() -> None:
    network = Network(challenging(granting(), password="other"))
    network.registrations.change(account(), network.now)
    start = network.now
    network.run(60)
    assert len(network.sent) <= 3
    last = network.last()
    assert (last.state, last.cause, last.code) == (State.REFUSED, "wrong_password", 401)
    network.run(7200)
    firsts = [sent.at for sent in network.sent if not sent.authorized]
    gaps = [b - a for a, b in pairwise(firsts)]
    assert gaps[0] >= 60 and firsts[1] - start >= 60
    assert max(gaps) <= 903 and len(gaps) >= 8  # 15 min and the guard's 2 s; never given up
    assert all(b > a * 1.4 for a, b in pairwise(gaps[:4]))
    assert len(network.sent) == 3 * len(firsts), "a nonce that was refused is not shown unasked"


@pytest.mark.checklist("H7")
def test_the_right_password_later_registers_at_once() -> None:
    network = Network(challenging(granting()))
    network.registrations.change(account(auth_password="typo"), network.now)
    network.run(5)
    assert network.last().state is State.REFUSED
    network.registrations.change(account(), network.now)
    network.run(1)
    last = network.last()
    assert (last.state, last.failures, last.trigger) == (State.REGISTERED, 0, Trigger.CHANGE)
    assert len(network.sent) == 5


def test_the_same_row_again_sends_nothing() -> None:
    network = Network(challenging(granting(), password="other"))
    for _ in range(3):
        network.registrations.change(account(), network.now)
        network.run(1)
    assert len(network.sent) == 3
    network.registrations.change(account(l_username="elsewhere"), network.now)
    network.run(1)
    assert len(network.sent) == 3


@pytest.mark.parametrize(
    ("row", "challenge", "cause"),
    [
        ({"realm": "mine"}, 'Digest realm="theirs", nonce="1"', "realm_mismatch"),
        ({"auth_password": ""}, 'Digest realm="r", nonce="1"', "no_password"),
        ({}, 'Basic realm="r"', "auth_unsupported"),
        ({"auth_password": "", "auth_ha1": "0" * 32}, 'Digest realm="r", nonce="1", algorithm=SHA-256',
         "auth_unsupported"),
    ],
)
def test_challenges_that_cannot_be_answered(row: dict[str, str], challenge: str, cause: str) -> None:
    network = Network(lambda message: (401, "Unauthorized", [f"WWW-Authenticate: {challenge}"]))
    network.registrations.change(account(**row), network.now)
    network.run(30)
    assert len(network.sent) == 1
    assert (network.last().state, network.last().cause) == (State.REFUSED, cause)
    if cause == "realm_mismatch":
        assert network.last().realm_seen == "theirs"


def test_an_empty_password_that_is_meant_is_one() -> None:
    network = Network(challenging(granting(), password=""))
    registered(network, auth_password="", empty_password=True)
    assert network.sent[-1].authorized


def test_an_account_known_by_its_address_needs_none() -> None:
    network = Network(granting())
    registered(network, auth_password="")
    assert not network.sent[-1].authorized


def test_what_was_proven_unasked_names_its_realm() -> None:
    network = Network(challenging(granting()))
    registered(network)
    outcomes: list[Outcome] = []
    trial = Trial(network.registrations, account(), (Target("udp", ("192.0.2.9", 5070)),), 5.0)
    trial.query(outcomes.append).start(network.now)
    network.run(1)
    assert len(network.sent) == 3, "no challenge was needed"
    assert [(each.code, each.realm_seen, each.digest) for each in outcomes] == [(200, REALM, "MD5")]
