"""Calls of a PBX through the product's routing: whose account, which way, and what the provider's challenge becomes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from sipengine.events import CallStarted, Target
from sipengine.message import Message, parse
from sipengine.uac.registrations import Registrations
from tests.sipengine.net import PHONE, PROVIDER, reply, starts
from tests.sipengine.outbound import proves
from tests.trunkmgr.sip.net import DOMAIN, TrunkNet, account, trunk
from trunkmgr.sip.middleware import PeerMiddleware
from trunkmgr.sip.routing import TrunkRouting, as_secure, dialled_user
from trunkmgr.sip.rules import refusals
from trunkmgr.sip.snapshot import Pbx, Peers

SECRET_REALM = b"sip.provider.example"


def placed(
    net: TrunkNet, user: bytes = b"acc1", host: bytes = b"192.0.2.9", ruri: bytes = b"sip:+49401@192.0.2.5",
    method: bytes = b"INVITE", extra: bytes = b"", source: Any = None,
) -> Message | None:
    """What the provider gets of a call that the PBX places, None for nothing."""
    data = net.request(
        method, ruri, b'"Bob" <sip:%b@%b>;tag=bt' % (user, host), b"<sip:+49401@192.0.2.5>", b"out", 1,
        extra=b"Contact: <sip:bob@192.0.2.9>\r\n" + extra, host=b"192.0.2.9:5060",
    )  # fmt: skip
    net.send(source or net.phone, data)
    got = net.provider.take()
    return parse(got[-1]) if got else None


def answered(net: TrunkNet) -> Message:
    return parse(net.phone.take()[-1])


def test_a_call_goes_out_by_the_account_that_from_names() -> None:
    net = TrunkNet()
    invite = placed(net)
    assert invite is not None
    assert invite.ruri == b"sip:+49401@sip.provider.example"
    assert invite.get(b"From") == b'"Bob" <sip:49301@sip.provider.example>;tag=bt'
    assert len(invite.get_list(b"Record-Route")) == 1
    [started] = [event for event in net.events() if isinstance(event, CallStarted)]
    assert (started.direction, started.l_uuid, started.caller, started.callee) == (
        "out", "acc1", "sip:acc1@192.0.2.9", "+49401",
    )
    question = b'Proxy-Authenticate: Digest realm="any.example", nonce="n", qop="auth"'
    net.send(net.provider, reply(invite, b"407 Proxy Authentication Required", b"c", question))
    again = parse(net.provider.take()[-1])
    secret = net.admission.snapshot.trunks["acc1"].credentials[0]
    assert again.cseq == (2, b"INVITE") and proves(again, secret, realm=b"any.example") == 1
    net.send(net.provider, reply(again, b"486 Busy Here", b"g"))
    busy = answered(net)
    assert (busy.status, busy.cseq) == (486, (1, b"INVITE"))
    assert busy.get(b"From") == b'"Bob" <sip:acc1@192.0.2.9>;tag=bt'


TRUNKS = [
    trunk(account("acc1", l_username="100", r_username="r1")),
    trunk(account("acc2", l_username="200", r_username="r2")),
    trunk(account("acc3", l_username="200", r_username="r3", l_domain="second.example")),
    trunk(account("acc4", l_username="100", r_username="r4", l_domain="other.example")),
    trunk(account("100", l_username="x", r_username="r5", l_domain="other.example")),
    trunk(account("off", l_username="300", r_username="r6", enabled=False)),
]


def _several() -> TrunkNet:
    net = TrunkNet(TrunkRouting, *TRUNKS)
    elsewhere = Pbx(b"sip:192.0.2.77", Peers(frozenset({"192.0.2.77"})))
    net.admission.swap(net.admission.snapshot.patched(domains={
        "second.example": net.admission.snapshot.domains[DOMAIN], "other.example": elsewhere,
    }))
    return net


@pytest.mark.checklist("G9")
@pytest.mark.parametrize(("user", "host", "extra", "found"), [
    (b"acc1", b"x", b"", b"r1"),
    (b"100", b"192.0.2.9", b"", b"r1"),  # neither the l_uuid nor the l_username of another PBX's account
    (b"200", b"SECOND.example", b"", b"r3"),
    (b"200", b"pbx.example", b"", b"r2"),
    (b"200", b"192.0.2.9", b"", b""),  # two have it, and the host says nothing
    (b"acc4", b"other.example", b"", b""),  # somebody else's
    (b"nobody", b"pbx.example", b"", b""),
    (b"nobody", b"pbx.example", b"P-Preferred-Identity: <sip:acc2@pbx.example>\r\n", b"r2"),
    (b"off", b"pbx.example", b"", b""),
    (b"%61cc1", b"x", b"", b"r1"),
])  # fmt: skip
@pytest.mark.checklist("M3")
def test_a_pbx_has_its_own_accounts_only(user: bytes, host: bytes, extra: bytes, found: bytes) -> None:
    net = _several()
    invite = placed(net, user, host, extra=extra)
    if found:
        assert invite is not None and b"<sip:%b@sip.provider.example>" % found in (invite.get(b"From") or b"")
    else:
        assert invite is None
        refused = answered(net)
        assert refused.status == 403
        expected = b"Account is disabled" if user == b"off" else b"From names no account of this PBX"
        assert refused.reason == expected


def test_a_caller_that_wants_to_be_anonymous_stays_so() -> None:
    net = TrunkNet()
    named = b"P-Preferred-Identity: <sip:acc1@pbx.example>\r\nPrivacy: id\r\n"
    invite = placed(net, b"anonymous", b"anonymous.invalid", extra=named)
    assert invite is not None
    assert invite.get(b"From") == b'"Bob" <sip:anonymous@anonymous.invalid>;tag=bt'
    assert invite.get_all(b"P-Preferred-Identity") == [b"<sip:49301@sip.provider.example>"]


@pytest.mark.parametrize(("ruri", "status"), [
    (b"sip:192.0.2.5", 484), (b"tel:+49401;phone-context=x", 0), (b"sip:+49401;ext=1@192.0.2.5;user=phone", 0),
])  # fmt: skip
def test_what_was_dialled_is_kept(ruri: bytes, status: int) -> None:
    net = TrunkNet()
    invite = placed(net, ruri=ruri)
    if status:
        assert answered(net).status == status
    else:
        assert invite is not None and invite.ruri == b"sip:%b@sip.provider.example" % dialled_user(ruri)
    assert dialled_user(b"tel:+49401;phone-context=x") == b"+49401"


@pytest.mark.parametrize("method", [b"MESSAGE", b"SUBSCRIBE", b"PUBLISH", b"REGISTER"])
def test_other_methods(method: bytes) -> None:
    net = TrunkNet()
    got = placed(net, method=method)
    if method in (b"PUBLISH", b"REGISTER"):
        assert got is None and answered(net).status == 405
    else:
        assert got is not None and got.method == method


@pytest.mark.checklist("F7")
@pytest.mark.parametrize(("proxy", "bound", "service_route", "to", "route"), [
    ("", None, b"", "192.0.2.1", None),
    ("", Target("udp", ("192.0.2.31", 5060)), b"", "192.0.2.31", None),
    ("", Target("udp", ("192.0.2.31", 5060)), b"<sip:192.0.2.32;lr>, <sip:b;lr>", "192.0.2.32",
     b"<sip:192.0.2.32;lr>, <sip:b;lr>"),
    ("sip:192.0.2.33:5060", Target("udp", ("192.0.2.31", 5060)), b"", "192.0.2.33", None),
])  # fmt: skip
def test_the_way_out(
    proxy: str, bound: Target | None, service_route: bytes, to: str, route: bytes | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Registrations, "target", lambda self, l_uuid: bound)
    monkeypatch.setattr(Registrations, "service_route", lambda self, l_uuid: service_route)
    net = TrunkNet(TrunkRouting, trunk(account(), outbound_proxy=proxy))
    station = net.provider if to == PROVIDER[0] else net.wire.station(to, 5060)
    if station is net.provider:
        invite = placed(net)
    else:
        placed(net)
        invite = parse(station.take()[-1])
    assert invite is not None and invite.get(b"Route") == route
    assert net.admission.may_challenge(PROVIDER[0]) and not net.admission.may_challenge(PHONE[0])
    assert net.admission.may_challenge("192.0.2.33") is bool(proxy)


@pytest.mark.checklist("F7")
def test_a_server_of_the_same_name_stands_in_for_that_of_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = [Target("udp", ("192.0.2.30", 5060)), Target("udp", ("192.0.2.31", 5060))]
    monkeypatch.setattr(Registrations, "target", lambda self, l_uuid: servers[1])
    net = TrunkNet(TrunkRouting, trunk(account(auth_proxy="sip:sip.provider.example")))
    net.wire.hosts["sip.provider.example"] = servers
    other, holder = (net.wire.station(*target.address) for target in servers)
    placed(net)
    invite = parse(holder.take()[-1])
    assert not other.log
    holder.send(reply(invite, b"503 Service Unavailable", b"x"), ("192.0.2.5", 5060))
    net.run()
    assert parse(other.take()[-1]).ruri == invite.ruri


def test_what_the_provider_refuses_is_a_403_that_names_the_cause() -> None:
    net = TrunkNet()
    invite = placed(net)
    assert invite is not None
    question = b'WWW-Authenticate: Digest realm="any.example", nonce="n", qop="auth"'
    net.send(net.provider, reply(invite, b"401 Unauthorized", b"c", question))
    before = refusals.counts["challenge"]
    net.send(net.provider, reply(parse(net.provider.take()[-1]), b"401 Unauthorized", b"c", question))
    refused = answered(net)
    assert (refused.status, refused.reason) == (403, b"Provider refused the credentials")
    assert refusals.counts["challenge"] == before + 1 and not refused.get(b"WWW-Authenticate")


def test_an_address_that_is_provider_and_pbx_calls_in_where_it_names_an_account() -> None:
    net = TrunkNet()
    snapshot = net.admission.snapshot
    both = Pbx(b"sip:192.0.2.9:5060", Peers(frozenset({PHONE[0], PROVIDER[0]})))
    net.admission.swap(snapshot.patched(domains={DOMAIN: both}))
    net.send(net.provider, net.invite())
    assert parse(net.phone.take()[-1]).ruri == b"sip:100@pbx.example"
    out = placed(net, source=net.provider)
    assert out is not None and [m for m in net.wire.sent if m[3].startswith(b"INVITE sip:+49401@sip.provider")]


def test_a_pbx_that_was_called_is_answered_for_within_its_call() -> None:
    net = TrunkNet(TrunkRouting, trunk(account(), anonymous=True))
    net.endpoint.credentials_of = lambda l_uuid: net.admission.snapshot.trunks[l_uuid].credentials
    call = net.establish()
    net.provider.take()
    net.send(net.phone, call.from_callee(b"BYE", 7))
    question = b'Proxy-Authenticate: Digest realm="any.example", nonce="n", qop="auth"'
    net.send(net.provider, reply(parse(net.provider.take()[-1]), b"407 Proxy", b"c", question))
    bye = parse(net.provider.take()[-1])
    assert bye.cseq == (8, b"BYE") and bye.get(b"Proxy-Authorization")
    net.send(net.provider, reply(bye, b"200 OK"))
    assert starts(net.phone.take())[-1] == b"SIP/2.0 200"


def test_ordinary_inbound_calls_have_no_failure_hook() -> None:
    """The request of an inbound call is let go as soon as it has left."""
    net = TrunkNet()
    seen: list[Any] = []

    class Watching(TrunkRouting):
        async def request_route(self, context: Any) -> None:
            seen.append(context)
            await super().request_route(context)

    net.endpoint.proxy.application.application = PeerMiddleware(  # type: ignore[attr-defined]
        Watching.as_asgi(), net.admission, net.middleware.worker
    )
    net.send(net.provider, net.invite())
    [context] = seen
    assert context.failure_hook is None and context.auth is None and not context.message.lines


def test_disabling_the_account_ends_nothing_that_stands() -> None:
    net = TrunkNet()
    assert placed(net) is not None
    off = dataclasses.replace(net.admission.snapshot.trunks["acc1"].account, enabled=False)
    net.admission.swap(net.admission.snapshot.patched({"acc1": trunk(off)}))
    assert placed(net) is None


@pytest.mark.checklist("B15")
@pytest.mark.rfc("5630", "3.1.1")
def test_a_call_that_is_to_be_secure_is_not_sent_in_clear() -> None:
    net = TrunkNet()
    assert placed(net, ruri=b"sips:+49401@192.0.2.5") is None and answered(net).status == 480
    net.send(net.provider, net.invite().replace(b"INVITE sip:", b"INVITE sips:"))
    assert not [data for data in net.phone.take() if data.startswith(b"INVITE")]
    assert parse(net.provider.take()[-1]).status == 480 and net.endpoint.counters.insecure == 2
    assert as_secure(b"SIPS:a@b", b"sip:x@y;z") == b"sips:x@y;z" and as_secure(b"sip:a@b", b"sip:x@y") == b"sip:x@y"
