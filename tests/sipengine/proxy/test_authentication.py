"""Challenges answered in place of the PBX, and CSeq counted on for it: every row of the translation matrix.

Over 600 lines because it is that matrix, row by row: a reader looks a message up here.
"""

from __future__ import annotations

from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.events import CallAnswered, CallEnded, CallStarted, DialogOver, DialogShifted
from sipengine.exceptions import InvalidState
from sipengine.message import parse
from sipengine.uac.digest import Credentials
from tests.sipengine.net import KEYS, PHONE, PROVIDER, assert_nothing_left, reply, starts
from tests.sipengine.outbound import AOR, DIALLED, PBX_FROM, SECRET, Call, Outbound, assert_apart, numbers, proves


@pytest.mark.checklist("G3")
@pytest.mark.checklist("I1")
@pytest.mark.checklist("I2")
@pytest.mark.checklist("I3")
@pytest.mark.checklist("I4")
@pytest.mark.checklist("I5")
@pytest.mark.checklist("I6")
@pytest.mark.checklist("I8")
@pytest.mark.checklist("G5")
@pytest.mark.rfc("3261", "22.2")
@pytest.mark.parametrize("proxy", [True, False])
def test_a_challenged_invite_goes_again_with_credentials_and_the_next_number(proxy: bool) -> None:
    net = Outbound()
    net.send(net.pbx, net.dial())
    first = net.last()
    assert first.ruri == DIALLED and first.get(b"From") == AOR + b";tag=bt" and first.cseq == (1, b"INVITE")
    net.challenge(first, proxy=proxy)
    ack, wire = net.provider.take()
    assert parse(ack).cseq == (1, b"ACK") and b";tag=ch" in (parse(ack).get(b"To") or b"")
    assert parse(ack).via.branch == first.via.branch
    second = parse(wire)
    assert second.cseq == (2, b"INVITE") and second.via.branch != first.via.branch
    assert second.get(b"To") == b"<sip:+49401@192.0.2.5>" and second.get(b"From") == AOR + b";tag=bt"
    assert second.call_id == first.call_id and proves(second, proxy=proxy) == 1
    assert starts(net.pbx.take()) == [b"SIP/2.0 100"]
    net.run(1.2)
    assert {parse(data).cseq[0] for data in net.provider.take()} == {2}, "repetitions are those of the second"
    for status in (b"180 Ringing", b"200 OK"):
        net.send(net.provider, reply(second, status, b"gt", b"Contact: <sip:gw@192.0.2.1>"))
        back = parse(net.pbx.take()[-1])
        assert back.cseq == (1, b"INVITE") and back.get(b"From") == PBX_FROM + b";tag=bt"
    assert_apart(net)


def _call() -> tuple[Outbound, Call]:
    net = Outbound()
    return net, net.up()


@pytest.mark.checklist("I9")
@pytest.mark.checklist("G10")
@pytest.mark.rfc("3261", "13.2.2.4")
def test_the_ack_for_a_2xx_has_number_and_credentials_of_its_invite() -> None:
    net, call = _call()
    ack = net.last()
    assert ack.cseq == (2, b"ACK") and ack.get(b"From") == AOR + b";tag=bt"
    assert ack.get_all(b"Proxy-Authorization") == call.invite.get_all(b"Proxy-Authorization")
    net.send(net.pbx, call.from_pbx(b"INVITE", 2))  # a later INVITE does not change what its ACK repeats
    net.provider.take()
    net.send(net.pbx, call.from_pbx(b"ACK", 1))
    assert net.last().cseq == (2, b"ACK")


WITHIN = (b"UPDATE", b"INFO", b"MESSAGE", b"OPTIONS", b"REFER", b"SUBSCRIBE", b"NOTIFY", b"INVITE", b"BYE")


@pytest.mark.checklist("I12")
@pytest.mark.checklist("I13")
@pytest.mark.checklist("I14")
@pytest.mark.checklist("I15")
@pytest.mark.checklist("I19")
@pytest.mark.rfc("3261", "12.2.1.1")
@pytest.mark.parametrize("challenged", [False, True])
@pytest.mark.parametrize("method", WITHIN)
def test_requests_of_the_pbx_within_the_call(method: bytes, challenged: bool) -> None:
    net, call = _call()
    net.endpoint.proxy.authenticator.nonces._learnt.clear()
    net.send(net.pbx, call.from_pbx(method, 2))
    got = net.last()
    assert got.cseq == (3, method) and got.get(b"From") == AOR + b";tag=bt"
    expected = 3
    if challenged:
        net.challenge(got, nonce=b"again", proxy=False)
        got = net.last()
        expected = 4
        assert got.cseq == (4, method) and proves(got, proxy=False) == 1
        assert b";tag=gt" in (got.get(b"To") or b"")
    net.send(net.provider, reply(got, b"200 OK", b"gt", b"Contact: <sip:gw@192.0.2.1>"))
    back = parse(net.pbx.take()[-1])
    assert back.cseq == (2, method) and back.status == 200 and back.get(b"From") == PBX_FROM + b";tag=bt"
    if method == b"INVITE":
        net.send(net.pbx, call.from_pbx(b"ACK", 2))
        ack = net.last()
        assert ack.cseq == (expected, b"ACK")
        assert ack.get_all(b"Authorization") == got.get_all(b"Authorization")
    if method != b"BYE":
        net.send(net.pbx, call.from_pbx(b"BYE", 3))
        assert net.last().cseq == (expected + 1, b"BYE")
    assert_apart(net)


@pytest.mark.checklist("I16")
@pytest.mark.checklist("I17")
@pytest.mark.parametrize("method", WITHIN)
def test_requests_of_the_provider_keep_their_numbers(method: bytes) -> None:
    net, call = _call()
    net.send(net.provider, call.from_provider(method, 70))
    got = parse(net.pbx.take()[-1])
    assert got.cseq == (70, method) and got.get(b"To") == PBX_FROM + b";tag=bt"
    net.send(net.pbx, reply(got, b"200 OK", b"x", b"Contact: <sip:bob@192.0.2.9>"))
    back = net.last()
    assert back.cseq == (70, method) and back.get(b"To") == AOR + b";tag=bt"
    if method == b"INVITE":
        net.send(net.provider, call.from_provider(b"ACK", 70))
        assert parse(net.pbx.take()[-1]).cseq == (70, b"ACK")
    assert_apart(net)


@pytest.mark.checklist("I18")
@pytest.mark.checklist("G8")
def test_a_challenge_of_the_pbx_is_none_of_ours() -> None:
    net, call = _call()
    net.send(net.provider, call.from_provider(b"BYE", 70))
    got = parse(net.pbx.take()[-1])
    question = b'WWW-Authenticate: Digest realm="provider.example", nonce="1"'
    net.send(net.pbx, reply(got, b"401 Unauthorized", b"x", question))
    back = net.last()
    assert back.status == 401 and back.get(b"WWW-Authenticate")
    assert numbers(net, PHONE, b"BYE") == [70]


@pytest.mark.checklist("I11")
@pytest.mark.checklist("I15")
@pytest.mark.rfc("3262", "7.2")
@pytest.mark.parametrize("challenged", [False, True])
def test_prack_names_the_invite_by_the_providers_number(challenged: bool) -> None:
    net = Outbound()
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    invite = net.last()
    net.endpoint.proxy.authenticator.nonces._learnt.clear()
    net.send(net.provider, reply(invite, b"183 Progress", b"gt", b"RSeq: 9", b"Contact: <sip:gw@192.0.2.1:5060>"))
    progress = parse(net.pbx.take()[-1])
    assert progress.get(b"RSeq") == b"9" and progress.cseq[0] == 1
    call = Call(net, invite, progress, 1, b"gt")
    net.send(net.pbx, call.from_pbx(b"PRACK", 2, b"RAck: 9 1 INVITE\r\n"))
    prack = net.last()
    assert prack.get(b"RAck") == b"9 2 INVITE" and prack.cseq == (3, b"PRACK")
    if challenged:
        net.challenge(prack, nonce=b"p")
        prack = net.last()
        assert prack.get(b"RAck") == b"9 2 INVITE" and prack.cseq == (4, b"PRACK")
    net.send(net.provider, reply(prack, b"200 OK", b"gt"))
    assert parse(net.pbx.take()[-1]).cseq == (2, b"PRACK")
    net.send(net.pbx, call.from_pbx(b"BYE", 3))  # of an early dialog
    bye = net.last()
    assert bye.cseq[0] == 4 + challenged and bye.get(b"From") == AOR + b";tag=bt"
    assert_apart(net)


@pytest.mark.checklist("I10")
@pytest.mark.rfc("3261", "9.1")
def test_cancel_has_the_number_of_its_branch_and_no_credentials() -> None:
    net = Outbound()
    net.send(net.pbx, net.dial(branch=b"z9hG4bKcancel"))
    net.challenge(net.last())
    invite = net.last()
    net.send(net.provider, reply(invite, b"180 Ringing", b"gt"))
    net.pbx.take()
    net.send(net.pbx, net.dial(method=b"CANCEL", branch=b"z9hG4bKcancel"))
    cancel = net.last()
    assert cancel.cseq == (2, b"CANCEL") and cancel.via.branch == invite.via.branch
    assert cancel.get(b"Proxy-Authorization") is None and cancel.get(b"From") == AOR + b";tag=bt"
    ok = parse(net.pbx.take()[-1])
    assert ok.cseq == (1, b"CANCEL") and ok.get(b"From") == PBX_FROM + b";tag=bt"
    net.send(net.provider, reply(invite, b"487 Request Terminated", b"gt"))
    ack = net.last()
    assert ack.cseq == (2, b"ACK") and ack.method == b"ACK"
    assert parse(net.pbx.take()[-1]).cseq == (1, b"INVITE")


@pytest.mark.rfc("3261", "9.1")
@pytest.mark.parametrize("ringing", [True, False])
def test_cancel_before_the_challenge_ends_the_call(ringing: bool) -> None:
    net = Outbound()
    net.send(net.pbx, net.dial(branch=b"z9hG4bKcancel"))
    invite = net.last()
    if ringing:
        net.send(net.provider, reply(invite, b"100 Trying", b"gt"))
    net.pbx.take()
    net.send(net.pbx, net.dial(method=b"CANCEL", branch=b"z9hG4bKcancel"))
    net.challenge(invite)
    assert numbers(net, PROVIDER, b"INVITE") == [1]
    assert [parse(data).status for data in net.pbx.take()] == [200, 487]


@pytest.mark.checklist("I7")
@pytest.mark.parametrize(("status", "shown"), [(b"302 Moved", 302), (b"486 Busy", 486), (b"603 Decline", 603)])
def test_a_refusal_after_the_challenge_shows_the_pbx_its_own_number(status: bytes, shown: int) -> None:
    net = Outbound()
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    net.send(net.provider, reply(net.last(), status, b"gt"))
    assert net.last().cseq == (2, b"ACK")
    back = parse(net.pbx.take()[-1])
    assert (back.status, back.cseq[0]) == (shown, 1)
    ended = net.events()[-1]
    assert isinstance(ended, CallEnded) and ended.code == shown
    assert_nothing_left(net)


@pytest.mark.checklist("G4")
@pytest.mark.rfc("3261", "22.3")
def test_401_and_407_of_different_hops_are_both_answered() -> None:
    net = Outbound()
    net.known["berlin"] = (SECRET, Credentials(b"49301", b"s3cret", realm=b"far.example"))
    net.send(net.pbx, net.dial())
    net.challenge(net.last(), nonce=b"p")
    net.challenge(net.last(), nonce=b"w", realm=b"far.example", proxy=False)
    third = net.last()
    assert third.cseq == (3, b"INVITE")
    assert proves(third) == 2 and proves(third, proxy=False, realm=b"far.example") == 1


@pytest.mark.checklist("G4")
@pytest.mark.rfc("8760", "2.4")
@pytest.mark.parametrize(
    ("secret", "taken"),
    [(SECRET, b"SHA-256"), (Credentials(b"49301", ha1=b"0" * 32), b"MD5")],
)
def test_of_several_challenges_the_first_that_fits_is_answered(secret: Credentials, taken: bytes) -> None:
    net = Outbound()
    net.known["berlin"] = (secret,)
    net.send(net.pbx, net.dial())
    lines = [
        b'Proxy-Authenticate: Digest realm="provider.example", nonce="n", qop="auth", algorithm=' + name
        for name in (b"AKAv1-MD5", b"SHA-256", b"MD5")
    ]
    net.send(net.provider, reply(net.last(), b"407 Proxy", b"gt", b"Proxy-Authenticate: Basic realm=x", *lines))
    [value] = net.last().get_all(b"Proxy-Authorization")
    assert b"algorithm=" + taken in value


@pytest.mark.checklist("G6")
@pytest.mark.parametrize(
    ("challenges", "sent"),
    [
        ([(b"a", b"")] * 9, 2),  # the same nonce again: the password is wrong
        ([(b"a", b""), (b"b", b""), (b"c", b"")], 3),  # a new nonce without stale gets one more try
        ([(b"a", b""), (b"b", b", stale=true"), (b"c", b", stale=TRUE"), (b"d", b", stale=true")], 4),
        ([(b"a", b""), (b"a", b", stale=true")], 2),
    ],
)
def test_a_wrong_password_never_loops(challenges: list[tuple[bytes, bytes]], sent: int) -> None:
    net = Outbound()
    net.send(net.pbx, net.dial())
    for nonce, stale in challenges:
        waiting = [data for data in net.provider.take() if data.startswith(b"INVITE")]
        if not waiting:
            break
        net.challenge(parse(waiting[-1]), nonce=nonce, more=stale + b', qop="auth"')
    assert len(numbers(net, PROVIDER, b"INVITE")) == sent
    back = parse(net.pbx.take()[-1])
    assert back.status == 403 and back.cseq[0] == 1 and net.verdicts[-1] is False
    assert_apart(net)


@pytest.mark.checklist("G6")
def test_a_provider_that_asks_for_ever_new_realms_is_left() -> None:
    net = Outbound()
    net.known["berlin"] = (Credentials(b"49301", b"s3cret"),)
    net.send(net.pbx, net.dial())
    for i in range(20):
        waiting = [data for data in net.provider.take() if data.startswith(b"INVITE")]
        if waiting:
            net.challenge(parse(waiting[-1]), realm=b"r%d" % i)
    assert len(numbers(net, PROVIDER, b"INVITE")) == 6 and parse(net.pbx.take()[-1]).status == 403


@pytest.mark.checklist("G8")
@pytest.mark.parametrize("stranger", [False, True])
@pytest.mark.checklist("M6")
def test_only_the_provider_and_only_its_realm_get_an_answer(stranger: bool) -> None:
    net = Outbound()
    if stranger:
        net.peers.providers.clear()  # type: ignore[union-attr]
    net.send(net.pbx, net.dial())
    net.challenge(net.last(), realm=b"provider.example" if stranger else b"evil.example")
    assert numbers(net, PROVIDER, b"INVITE") == [1] and net.verdicts == [False]
    assert parse(net.pbx.take()[-1]).status == 403
    assert net.endpoint.counters.unasked_challenges == stranger


@pytest.mark.checklist("G8")
def test_a_challenge_within_a_call_that_is_not_ours_goes_to_the_pbx() -> None:
    net, call = _call()
    net.send(net.pbx, call.from_pbx(b"INFO", 2))
    net.challenge(net.last(), realm=b"phone.example")
    back = parse(net.pbx.take()[-1])
    assert back.status == 407 and back.get(b"Proxy-Authenticate") and back.cseq == (2, b"INFO")


@pytest.mark.checklist("G6")
def test_a_refused_password_within_a_call_is_a_403() -> None:
    net, call = _call()
    net.send(net.pbx, call.from_pbx(b"INFO", 2))
    net.challenge(net.last(), nonce=b"x")
    net.challenge(net.last(), nonce=b"x")
    back = parse(net.pbx.take()[-1])
    assert back.status == 403 and back.cseq == (2, b"INFO")
    net.send(net.pbx, call.from_pbx(b"BYE", 3))
    assert net.last().method == b"BYE"
    assert_apart(net)


@pytest.mark.checklist("G9")
def test_what_the_pbx_knows_for_our_realm_is_taken_off() -> None:
    net = Outbound()
    own = b'Proxy-Authorization: Digest username="x", realm="provider.example", nonce="1", response="2"\r\n'
    other = b'Authorization: Digest username="x", realm="far.example", nonce="1", response="2"\r\n'
    net.send(net.pbx, net.dial(extra=own + other))
    first = net.last()
    assert not first.get_all(b"Proxy-Authorization") and len(first.get_all(b"Authorization")) == 1
    net.challenge(first)
    second = net.last()
    assert len(second.get_all(b"Proxy-Authorization")) == 1 and len(second.get_all(b"Authorization")) == 1
    net.send(net.provider, reply(second, b"200 OK", b"gt", b"Contact: <sip:gw@192.0.2.1:5060>"))
    call = Call(net, second, parse(net.pbx.take()[-1]), 1, b"gt")
    net.send(net.pbx, call.from_pbx(b"INFO", 2, own + other))
    info = net.last()
    assert b'username="x"' not in b"".join(info.get_all(b"Proxy-Authorization"))
    assert len(info.get_all(b"Authorization")) == 1


@pytest.mark.checklist("G7")
@pytest.mark.rfc("7616", "3.3")
def test_a_nonce_is_used_again_so_that_the_next_call_needs_no_challenge() -> None:
    net, call = _call()
    net.send(net.pbx, call.from_pbx(b"BYE", 2))
    bye = net.last()
    assert proves(bye) == 2 and bye.cseq[0] == 3
    for i in range(2, 5):
        net.send(net.pbx, net.dial().replace(b"out1", b"out%d" % i))
        invite = net.last()
        assert invite.cseq == (1, b"INVITE") and proves(invite) == i + 1
    net.challenge(invite, nonce=b"fresh", more=b', qop="auth", stale=true')  # it has aged: asked once, and on with it
    again = net.last()
    assert again.cseq == (2, b"INVITE") and proves(again) == 1
    net.send(net.provider, reply(again, b"200 OK", b"gt", b'Proxy-Authentication-Info: qop=auth, nextnonce="next"'))
    for i, nc in ((8, 1), (9, 2)):
        net.send(net.pbx, net.dial().replace(b"out1", b"out%d" % i))
        invite = net.last()
        assert proves(invite) == nc and b'nonce="next"' in (invite.get(b"Proxy-Authorization") or b"")
        # the 2xx that named it comes again
        net.send(net.provider, reply(again, b"200 OK", b"gt", b'Proxy-Authentication-Info: qop=auth, nextnonce="next"'))


@pytest.mark.checklist("G7")
@pytest.mark.parametrize("changing", [False, True])
def test_where_nonces_are_good_once_they_are_not_tried_again(changing: bool) -> None:
    net = Outbound()
    sent = []
    for i in range(5):
        net.send(net.pbx, net.dial().replace(b"out1", b"out%d" % i))
        invite = net.last()
        sent.append(bool(invite.get(b"Proxy-Authorization")))
        net.challenge(invite, nonce=b"n%d" % i if changing else b"n")
        net.send(net.provider, reply(net.last(), b"200 OK", b"gt"))
        assert parse(net.pbx.take()[-1]).status == 200
    assert sent == [False, True, True, False, False]
    net.run(3700)
    net.send(net.pbx, net.dial().replace(b"out1", b"later"))
    assert not net.last().get(b"Proxy-Authorization")


@pytest.mark.checklist("G9")
def test_a_nonce_of_one_server_or_account_is_shown_to_no_other() -> None:
    net, _ = _call()
    other = net.wire.station("192.0.2.2", 5060)
    decide = net.routing.decide
    assert decide is not None

    def elsewhere(context: Any) -> None:
        decide(context)
        context.du = b"sip:192.0.2.2:5060"

    net.routing.decide = elsewhere
    net.send(net.pbx, net.dial().replace(b"out1", b"out2"))
    assert not parse(other.take()[-1]).get(b"Proxy-Authorization")
    net.routing.decide = decide
    net.known["berlin"] = (Credentials(b"49301", b"changed"),)
    net.send(net.pbx, net.dial().replace(b"out1", b"out3"))
    assert not net.last().get(b"Proxy-Authorization")


@pytest.mark.checklist("I20")
@pytest.mark.rfc("3261", "22.3")
@pytest.mark.parametrize("method", [b"MESSAGE", b"OPTIONS", b"SUBSCRIBE", b"PUBLISH"])
def test_requests_outside_a_call(method: bytes) -> None:
    net = Outbound()
    net.send(net.pbx, net.dial(method=method))
    net.challenge(net.last())
    got = net.last()
    assert got.cseq == (2, method) and proves(got) == 1
    net.send(net.provider, reply(got, b"200 OK", b"gt"))
    assert parse(net.pbx.take()[-1]).cseq == (1, method)


@pytest.mark.checklist("I19")
def test_a_subscription_is_challenged_within_like_a_call() -> None:
    net = Outbound()
    net.send(net.pbx, net.dial(method=b"SUBSCRIBE"))
    net.challenge(net.last())
    subscribe = net.last()
    net.send(net.provider, reply(subscribe, b"202 Accepted", b"gt", b"Contact: <sip:gw@192.0.2.1:5060>"))
    call = Call(net, subscribe, parse(net.pbx.take()[-1]), 1, b"gt")
    net.send(net.provider, call.from_provider(b"NOTIFY", 5))
    assert parse(net.pbx.take()[-1]).cseq == (5, b"NOTIFY")
    net.send(net.pbx, call.from_pbx(b"SUBSCRIBE", 2))
    net.challenge(net.last(), nonce=b"again", proxy=False)
    refresh = net.last()
    assert refresh.cseq == (4, b"SUBSCRIBE") and proves(refresh, proxy=False) == 1
    assert not [event for event in net.events() if isinstance(event, CallStarted)]


@pytest.mark.checklist("I6")
def test_a_repeated_2xx_shows_the_number_of_the_pbx_too() -> None:
    net, call = _call()
    net.pbx.take()
    for _ in range(2):
        net.send(net.provider, reply(call.invite, b"200 OK", b"gt", b"Contact: <sip:gw@192.0.2.1:5060>"))
        assert parse(net.pbx.take()[-1]).cseq == (1, b"INVITE")


@pytest.mark.checklist("I21")
def test_a_call_that_the_pbx_places_again_goes_on_counting() -> None:
    net = Outbound()
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    net.send(net.provider, reply(net.last(), b"422 Session Interval Too Small", b"gt", b"Min-SE: 90"))
    assert parse(net.pbx.take()[-1]).status == 422
    net.endpoint.proxy.authenticator.nonces._learnt.clear()
    net.send(net.pbx, net.dial(2))
    second = [m for m in map(parse, net.provider.take()) if m.method == b"INVITE"][-1]
    assert second.cseq == (3, b"INVITE")
    net.challenge(second, nonce=b"z")
    third = net.last()
    assert third.cseq == (4, b"INVITE")
    net.send(net.provider, reply(third, b"200 OK", b"gt", b"Contact: <sip:gw@192.0.2.1:5060>"))
    ok = parse(net.pbx.take()[-1])
    assert ok.cseq == (2, b"INVITE")
    call = Call(net, third, ok, 2, b"gt")
    net.send(net.pbx, call.from_pbx(b"ACK", 2))
    assert net.last().cseq == (4, b"ACK")


@pytest.mark.checklist("I22")
def test_the_next_provider_counts_for_itself_and_sees_nothing_of_the_first() -> None:
    net = Outbound()
    other = net.wire.station("192.0.2.2", 5060)
    net.known["bonn"] = (Credentials(b"bonn", b"other", realm=b"bonn.example"),)

    def hunt(context: Any) -> None:
        if context.status in (401, 407):
            assert context.uac_auth()
        else:
            context.credentials = net.known["bonn"]
            context.ruri = b"sip:+49401@bonn.example"
            context.du = b"sip:192.0.2.2:5060"
            context.mark_call("bonn", "out", context.from_uri, "+49401", False)
        context.t_relay()

    net.routing.failure_route = hunt  # type: ignore[attr-defined]
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    net.send(net.provider, reply(net.last(), b"486 Busy", b"gt"))
    first = parse(other.take()[-1])
    assert first.cseq == (1, b"INVITE") and not first.get(b"Proxy-Authorization")
    question = b'Proxy-Authenticate: Digest realm="bonn.example", nonce="b"'
    other.send(reply(first, b"407 Proxy", b"c", question), net.endpoint_address)
    net.run()
    second = parse(other.take()[-1])
    assert second.cseq == (2, b"INVITE") and proves(second, net.known["bonn"][0], realm=b"bonn.example") == 0
    other.send(reply(second, b"200 OK", b"o", b"Contact: <sip:gw@192.0.2.2:5060>"), net.endpoint_address)
    net.run()
    ok = parse(net.pbx.take()[-1])
    assert (ok.status, ok.cseq[0]) == (200, 1)
    call = Call(net, second, ok, 1, b"o")
    net.send(net.pbx, call.from_pbx(b"ACK", 1).replace(b"sip:gw@192.0.2.1", b"sip:gw@192.0.2.2"))
    assert parse(other.take()[-1]).cseq == (2, b"ACK")


@pytest.mark.checklist("I23")
def test_a_fork_that_two_answer() -> None:
    net = Outbound()
    other = net.wire.station("192.0.2.2", 5060)
    decide = net.routing.decide
    assert decide is not None

    def fork(context: Any) -> None:
        decide(context)
        context.append_branch(b"sip:+49401@second.example", b"sip:192.0.2.2:5060")

    net.routing.decide = fork
    net.send(net.pbx, net.dial())
    question = b'Proxy-Authenticate: Digest realm="provider.example", qop="auth", nonce='
    net.send(net.provider, reply(net.last(), b"407 Proxy", b"c1", question + b'"one"'))
    other.send(reply(parse(other.take()[-1]), b"407 Proxy", b"c2", question + b'"two"'), net.endpoint_address)
    net.run()
    one, two = net.last(), parse(other.take()[-1])
    assert one.cseq == two.cseq == (2, b"INVITE") and proves(one) == proves(two) == 1
    assert two.ruri == b"sip:+49401@second.example" and b'nonce="two"' in (two.get(b"Proxy-Authorization") or b"")
    net.pbx.take()
    net.send(net.provider, reply(one, b"200 OK", b"g1", b"Contact: <sip:gw@192.0.2.1:5060>"))
    other.send(reply(two, b"200 OK", b"g2", b"Contact: <sip:gw@192.0.2.1:5060>"), net.endpoint_address)
    net.run()
    answers = [parse(data) for data in net.pbx.take()]
    assert [(ok.status, ok.cseq[0]) for ok in answers] == [(200, 1), (200, 1)]
    net.provider.take()
    for ok, sent in zip(answers, (one, two), strict=True):
        call = Call(net, sent, ok, 1, b"")
        net.send(net.pbx, call.from_pbx(b"ACK", 1))
        ack = net.last()
        assert ack.cseq == (2, b"ACK")
        assert ack.get_all(b"Proxy-Authorization") == sent.get_all(b"Proxy-Authorization")
        net.send(net.pbx, call.from_pbx(b"BYE", 2))
        assert net.last().cseq[1] == b"BYE"
    assert numbers(net, PROVIDER, b"BYE") == [3, 4]


@pytest.mark.checklist("I24")
@pytest.mark.rfc("3261", "12.2.2")
def test_a_request_waits_for_a_challenged_one_before_it() -> None:
    net, call = _call()
    net.endpoint.proxy.authenticator.nonces._learnt.clear()
    net.provider.take()
    net.send(net.pbx, call.from_pbx(b"INVITE", 2))
    net.challenge(net.last(), nonce=b"x")
    invite = net.last()
    net.send(net.pbx, call.from_pbx(b"INFO", 3))
    net.send(net.pbx, call.from_pbx(b"PRACK", 4, b"RAck: 1 1 INVITE\r\n"))
    net.send(net.pbx, call.from_pbx(b"ACK", 1))
    assert [message.method for message in map(parse, net.provider.take())] == [b"PRACK", b"ACK"]
    net.send(net.provider, reply(invite, b"180 Ringing", b"gt"))
    info = net.last()
    assert info.method == b"INFO" and info.cseq[0] > invite.cseq[0]


@pytest.mark.checklist("I24")
def test_a_request_waits_two_seconds_at_most() -> None:
    net, call = _call()
    net.send(net.pbx, call.from_pbx(b"INVITE", 2))
    net.challenge(net.last(), nonce=b"x")
    net.send(net.pbx, call.from_pbx(b"BYE", 3))
    net.run(1.5)
    assert not numbers(net, PROVIDER, b"BYE")
    net.run(0.5)
    assert numbers(net, PROVIDER, b"BYE") == [5]


def test_a_number_that_nothing_can_follow_is_a_500() -> None:
    net = Outbound()
    net.send(net.pbx, net.dial(2**31 - 1))
    net.challenge(net.last())
    assert parse(net.pbx.take()[-1]).status == 500
    net, call = _call()
    net.send(net.pbx, call.from_pbx(b"INFO", 2**31 - 1))
    assert parse(net.pbx.take()[-1]).status == 500
    assert not numbers(net, PROVIDER, b"INFO")


@pytest.mark.checklist("G3")
def test_the_next_address_of_a_provider_gets_the_same_request() -> None:
    from sipengine.events import Target

    net = Outbound()
    other = net.wire.station("192.0.2.2", 5060)
    net.wire.hosts["provider.example"] = [Target("udp", ("192.0.2.1", 5060)), Target("udp", ("192.0.2.2", 5060))]
    decide = net.routing.decide
    assert decide is not None

    def by_name(context: Any) -> None:
        decide(context)
        context.du = b""

    net.routing.decide = by_name
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    second = net.last()
    net.send(net.provider, reply(second, b"503 Busy", b"x"))
    third = parse(other.take()[-1])
    assert third.cseq == second.cseq and proves(third) == 2 and third.via.branch != second.via.branch


@pytest.mark.checklist("G2")
def test_auth_int_covers_the_body() -> None:
    net = Outbound()
    net.send(net.pbx, net.dial(body=b"v=0\r\n"))
    net.challenge(net.last(), more=b', qop="auth-int", algorithm=SHA-256-sess')
    again = net.last()
    assert again.body == b"v=0\r\n" and proves(again) == 1
    assert b"qop=auth-int" in (again.get(b"Proxy-Authorization") or b"")


def test_mode_1_takes_the_password_for_an_ha1() -> None:
    import hashlib

    net = Outbound()
    net.mode = 1
    ha1 = hashlib.md5(b"49301:provider.example:s3cret").hexdigest().encode()
    net.known["berlin"] = (Credentials(b"49301", ha1, realm=b"provider.example"),)
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    assert proves(net.last()) == 1


def test_configured_credentials_answer_their_exact_realm_and_the_last_counts() -> None:
    net = Outbound(
        Configuration(
            seal_keys=KEYS,
            credentials=(
                Credentials(b"a", b"1", realm=b"provider.example"), Credentials(b"b", b"2", realm=b"provider.example"),
                Credentials(b"c", b"3", realm=b"other.example"), Credentials(b"d", b"4"),
            ),
        )
    )
    net.known["berlin"] = (Credentials(b"49301", b"s3cret", realm=b"elsewhere"),)
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    assert proves(net.last(), Credentials(b"b", b"2")) == 1


def test_uac_auth_is_for_failure_routes() -> None:
    net = Outbound()
    seen: list[str] = []

    def early(context: Any) -> None:
        for verb in (context.uac_auth, lambda: context.uac_auth_mode(1)):
            with pytest.raises(InvalidState, match="failure_route"):
                verb()
        seen.append("request")
        net.call_out(context)

    def branch(context: Any) -> None:
        if context.status:
            with pytest.raises(InvalidState, match="before t_relay"):
                context.uac_auth()
            seen.append("branch")

    net.routing.decide = early
    net.routing.branch_route = branch  # type: ignore[attr-defined]
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    assert net.last().cseq[0] == 2 and seen == ["request", "branch"]


def test_the_seed_passes_the_challenge_on_where_nobody_answers() -> None:
    net = Outbound()
    net.routing.failure_route = lambda context: None  # type: ignore[attr-defined]
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    assert parse(net.pbx.take()[-1]).status == 407


# called by the provider: the PBX's own requests are challenged


def _called() -> tuple[Outbound, Any]:
    net = Outbound()

    def inbound(context: Any) -> None:
        context.ruri = b"sip:phone@pbx.example"
        context.du = b"sip:192.0.2.9:5060"
        context.uac_replace_from(b"", b"sip:anonymous@anonymous.invalid")
        context.record_route()
        context.mark_call("berlin", "in", context.from_uri, "phone", True)
        context.t_relay()

    net.routing.decide = inbound
    return net, net.establish()


@pytest.mark.checklist("G12")
@pytest.mark.rfc("3261", "12.2.1.1")
@pytest.mark.parametrize("stored", [False, True])
def test_a_pbx_that_was_called_is_challenged_within_the_call(stored: bool) -> None:
    net, call = _called()
    net.provider.take()
    net.send(net.phone, call.from_callee(b"INVITE", 50))
    first = net.last()
    assert first.cseq == (50, b"INVITE")
    net.challenge(first)
    second = net.last()
    assert second.cseq == (51, b"INVITE") and proves(second) == 1
    net.send(net.provider, reply(second, b"200 OK", b"x", b"Contact: <sip:alice-gw@192.0.2.1:5060>"))
    assert parse(net.phone.take()[-1]).cseq == (50, b"INVITE")
    shifted = net.events()[-1]
    assert isinstance(shifted, DialogShifted) and shifted.l_uuid == "berlin" and shifted.call_id == "call1"
    if stored:
        net.restart()
        assert net.endpoint.load_dialogs([(shifted.key, shifted.state, shifted.expires_at)], net.wire.now) == 1
    assert net.endpoint.calls_of("berlin") == 1, "a stored call counts among its account's from the start"
    net.send(net.phone, call.from_callee(b"ACK", 50))
    ack = net.last()
    assert ack.cseq == (51, b"ACK")
    net.send(net.phone, call.from_callee(b"INFO", 51))
    assert net.last().cseq == (52 + 1000 * stored, b"INFO")
    net.send(net.provider, call.from_caller(b"INFO", 2))
    assert parse(net.phone.take()[-1]).cseq == (2, b"INFO")
    net.send(net.phone, call.from_callee(b"BYE", 52))
    bye = net.last()
    assert bye.cseq == (53 + 1000 * stored, b"BYE") and bye.get(b"To") == call.callers_from
    net.challenge(bye, nonce=b"y")
    net.send(net.provider, reply(net.last(), b"200 OK", b"x"))
    assert parse(net.phone.take()[-1]).cseq == (52, b"BYE")
    over = [event for event in net.events() if isinstance(event, DialogOver | DialogShifted)]
    assert isinstance(over[-1], DialogOver) and over[-1].key == shifted.key
    assert not net.endpoint.proxy.within.going_on
    assert_nothing_left(net)


def test_a_pbx_that_was_called_is_challenged_for_the_first_time_after_a_restart() -> None:
    net, call = _called()
    net.provider.take()
    net.restart()
    net.send(net.phone, call.from_callee(b"BYE", 50))
    bye = net.last()
    assert bye.cseq == (50, b"BYE")
    net.challenge(bye)
    again = net.last()
    assert again.cseq == (51, b"BYE") and proves(again) == 1, "the token says whose credentials answer"
    net.send(net.provider, reply(again, b"200 OK", b"x"))
    [answer] = net.phone.take()
    assert parse(answer).cseq == (50, b"BYE") and parse(answer).status == 200


def test_an_ordinary_call_tells_nothing_to_be_stored() -> None:
    net, call = _called()
    net.send(net.phone, call.from_callee(b"BYE", 50))
    net.send(net.provider, reply(net.last(), b"200 OK", b"x"))
    assert [type(event) for event in net.events()] == [CallStarted, CallAnswered, CallEnded]
    net = Outbound()
    call = net.up()
    net.send(net.pbx, call.from_pbx(b"BYE", 2))
    net.send(net.provider, reply(net.last(), b"200 OK", b"x"))
    assert [type(event) for event in net.events()] == [CallStarted, CallAnswered, CallEnded]
    assert_nothing_left(net)


# a restart in the middle of a call


@pytest.mark.checklist("K5")
@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_after_a_restart_the_token_tells_the_numbers(rounds: int) -> None:
    net = Outbound()
    net.known["berlin"] = (SECRET, Credentials(b"49301", b"x", realm=b"other"))
    call = net.up(rounds=rounds)
    for value in call.invite.get_list(b"Record-Route"):
        assert len(value) < 250
    net.restart()
    net.provider.take()
    net.send(net.pbx, call.from_pbx(b"ACK", 1))
    assert net.last().cseq == (1 + rounds, b"ACK")
    net.send(net.pbx, call.from_pbx(b"INVITE", 2))
    invite = net.last()
    number = 2 + rounds + (1000 if rounds else 0)
    assert invite.cseq == (number, b"INVITE") and invite.get(b"From") == AOR + b";tag=bt"
    net.challenge(invite, nonce=b"r")
    invite = net.last()
    assert invite.cseq == (number + 1, b"INVITE") and proves(invite) == 1
    net.send(net.provider, reply(invite, b"200 OK", b"x", b"Contact: <sip:gw@192.0.2.1:5060>"))
    assert parse(net.pbx.take()[-1]).cseq == (2, b"INVITE")
    net.send(net.pbx, call.from_pbx(b"ACK", 2))
    assert net.last().cseq == (number + 1, b"ACK")
    net.send(net.provider, call.from_provider(b"BYE", 9))
    assert parse(net.pbx.take()[-1]).cseq == (9, b"BYE")
    assert_apart(net)


def test_a_pbx_that_alters_its_from_stays_hidden() -> None:
    net, call = _call()
    for number, value in enumerate((b"sip:bob@pbx.example", b'"B" <sip:other@pbx.example>', b"<tel:+1>"), 2):
        net.send(net.pbx, call.from_pbx(b"INFO", number, from_=value + b";tag=bt"))
        got = net.last()
        assert got.get(b"From") == AOR + b";tag=bt" and got.cseq[0] == number + 1
    assert_apart(net)
