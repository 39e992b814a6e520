"""The seed's functions that look accounts up, from a routing class; which class it is; where its hooks are called."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from sipengine.exceptions import InvalidState
from sipengine.message import parse
from sipengine.message.message import Message
from tests.sipengine.net import starts
from tests.trunkmgr.sip.net import TrunkNet, account, trunk
from tests.trunkmgr.sip.test_worker import Stand, invite, run  # noqa: F401 - a fixture
from trunkmgr.checks import routing_messages
from trunkmgr.sip.routing import TrunkRouting, routing_class
from trunkmgr.sip.worker import SipWorker

TRUNKS = [
    trunk(account("acc1", l_username="100")),
    trunk(account("acc2", l_username="200", contact_user="49302")),
    trunk(account("acc3", l_username="100", l_domain="other.example")),
    trunk(account("off", l_username="300", enabled=False)),
]


def asked(ask: Callable[[TrunkRouting, Any], Any], user: bytes = b"acc1", ruri: bytes = b"") -> Any:
    """What `ask(routing, context)` says in request_route of an INVITE for `user`."""
    answers: list[Any] = []

    class Asking(TrunkRouting):
        async def request_route(self, context: Any) -> None:
            assert self.context is context
            answers.append(ask(self, context))
            context.sl_send_reply(404)

    net = TrunkNet(Asking, *TRUNKS)
    data = net.invite(user=user)
    if ruri:
        data = data.replace(b"INVITE sip:%b@192.0.2.5" % user, b"INVITE " + ruri)
    net.send(net.provider, data)
    assert starts(net.provider.take())[-1] == b"SIP/2.0 404"
    return answers[0]


@pytest.mark.parametrize(("user", "ruri", "found"), [
    (b"acc1", b"", "sip:100@pbx.example"),
    (b"nobody", b"", ""),
    (b"49302", b"", "sip:200@pbx.example"),
    (b"x", b"sip:x@192.0.2.5;line=acc2", "sip:200@pbx.example"),
    (b"$rU", b"", ""),
    (b"$x", b"", ""),
])  # fmt: skip
def test_uac_reg_lookup(user: bytes, ruri: bytes, found: str) -> None:
    def ask(routing: TrunkRouting, context: Any) -> list[Any]:
        before = context.ru
        uri = routing.uac_reg_lookup("$rU")
        code = routing.uac_reg_lookup("$rU", "$avp(s:uri)")
        assert routing.uac_reg_lookup(context.rU) == uri, "the value does as well as its name"
        assert context.ru == before
        replaced = routing.uac_reg_lookup("$rU", "$ru")
        return [uri, code, context.pv("$avp(uri)") or "", bool(replaced), context.ru == (found or before)]

    assert asked(ask, user, ruri) == [found, 1 if found else -1, found, bool(found), True]


def test_a_destination_that_cannot_be_written_is_the_authors_fault() -> None:
    def ask(routing: TrunkRouting, context: Any) -> None:
        with pytest.raises(InvalidState, match="can only be read"):
            routing.uac_reg_lookup("$rU", "$si")

    asked(ask)


@pytest.mark.parametrize(("uri", "use_domain", "code", "l_uuid"), [
    ("sip:200@pbx.example", False, 1, "acc2"),
    ("sip:200@elsewhere.example", False, 1, "acc2"),
    ("sip:200@elsewhere.example", True, -1, ""),
    ("sip:100@pbx.example", True, 1, "acc1"),
    ("sip:100@OTHER.example", True, 1, "acc3"),
    ("sip:100@pbx.example", False, -1, ""),  # two have that user
    ("sip:pbx.example", False, -1, ""),
    ("tel:+49", False, -2, ""),
    ("nonsense", False, -2, ""),
])  # fmt: skip
def test_uac_reg_lookup_uri(uri: str, use_domain: bool, code: int, l_uuid: str, settings: Any) -> None:
    settings.TRUNKMGR = dataclasses.replace(settings.TRUNKMGR, reg_use_domain=use_domain)

    def ask(routing: TrunkRouting, context: Any) -> list[Any]:
        context.avp["uri"] = uri
        found = routing.uac_reg_lookup_uri("$avp(uri)", "$var(found)")
        return [found, routing.uac_reg_lookup_uri(uri), context.pv("$var(found)") or ""]

    assert asked(ask) == [code, l_uuid, l_uuid]


def test_uac_reg_status() -> None:
    seen: list[int] = []

    class Asking(TrunkRouting):
        async def request_route(self, context: Any) -> None:
            seen.append(self.uac_reg_status("$rU"))
            context.sl_send_reply(404)

    net = TrunkNet(Asking, *TRUNKS)
    registrations = net.endpoint.registrations

    def status(user: bytes, call: bytes) -> int:
        net.send(net.provider, net.invite(call, user=user))
        return seen[-1]

    assert status(b"acc1", b"1") == -99, "in nobody's hands yet"
    registrations.load(account("acc1"), None, net.wire.now)
    net.run()
    assert status(b"acc1", b"2") == -2 and not seen[-1], "what is not above zero is not true"
    [register] = [m for m in map(parse, net.provider.take()) if m.start.startswith(b"REGISTER")]
    lines = [line for key, line in zip(register.keys, register.lines, strict=True) if key in (
        b"via", b"from", b"to", b"call-id", b"cseq", b"contact")]
    net.send(net.provider, b"\r\n".join([b"SIP/2.0 200 OK", *lines, b"Expires: 60", b"Content-Length: 0", b"", b""]))
    assert status(b"acc1", b"3") == 1 and seen[-1]
    registrations.register("acc1", net.wire.now)
    net.run()
    assert status(b"acc1", b"4") == 1, "a refresh leaves the binding standing"
    assert status(b"off", b"5") == -3
    assert status(b"nobody", b"6") == -1


def test_lookup_sends_to_the_next_hop_of_the_domain() -> None:
    def ask(routing: TrunkRouting, context: Any) -> list[Any]:
        codes = [routing.lookup("location"), context.du]
        context.ruri = "sip:200@pbx.example"
        return [*codes, routing.lookup("location"), context.du]

    assert asked(ask) == [-1, "", 1, "sip:192.0.2.9:5060"]


# which class it is
class Five(TrunkRouting):
    """Every hook of the five leaves its mark."""

    heard: list[str] = []

    async def request_route(self, context: Any) -> None:
        self.heard.append("request")
        await super().request_route(context)

    def branch_route(self, context: Any) -> None:
        context.append_hf("X-Branch: 1")

    def onreply_route(self, context: Any, message: Message) -> None:
        message.append(b"X-Reply: 1")

    def failure_route(self, context: Any) -> None:
        self.heard.append(f"failure {context.T_reply_code}")

    def local_route(self, message: Message, flow: Any) -> None:
        message.append(b"X-Local: " + message.method)
        assert self.scope["sip.snapshot"] is not None
        if b"fail" in message.line(b"to"):
            raise ZeroDivisionError


PATH = f"{__name__}.Five"


@pytest.mark.django_db(transaction=True)
def test_the_five_hooks_reach_the_class_that_trunkmgr_routing_names(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    monkeypatch.setattr(settings, "TRUNKMGR", dataclasses.replace(settings.TRUNKMGR, routing=PATH))
    # The application was made when the tests began; this one is made as trunkmgr/asgi.py makes it.
    monkeypatch.setattr("tests.trunkmgr.sip.test_worker.application", {"sip": routing_class().as_asgi()})
    monkeypatch.setattr(SipWorker, "__init__", _with_sip_application(SipWorker.__init__))

    async def scenario(stand: Stand) -> None:
        for l_uuid in ("acc1", "fail"):
            await sync_to_async(stand.account)(l_uuid, l_domain="pbx.example")
        registers = [await stand.provider.next("REGISTER") for _ in range(2)]
        assert all("X-Local: REGISTER" in register for register in registers)
        assert stand.worker.endpoint.counters.hook_failures == 1, "one that fails is counted, and the request leaves"
        stand.provider.transport.sendto(invite("acc1", stand.provider.port), stand.address)
        forwarded = await stand.pbx.next("INVITE")
        assert "X-Branch: 1" in forwarded
        kept = [line for line in forwarded.split("\r\n") if line.startswith(("Via", "From", "To", "Call-ID", "CSeq"))]
        answer = "\r\n".join(["SIP/2.0 486 Busy Here", *kept, "Content-Length: 0", "", ""])
        stand.pbx.transport.sendto(answer.encode(), stand.address)
        assert "X-Reply: 1" in await stand.provider.next("SIP/2.0 486")
        assert Five.heard == ["request", "failure 486"]

    Five.heard.clear()
    run(scenario)


def _with_sip_application(init: Any) -> Any:
    def wrapped(self: SipWorker, application: Any, *args: Any) -> None:
        init(self, application["sip"], *args)

    return wrapped


@pytest.mark.parametrize(("path", "says"), [
    ("no.such.Routing", "cannot be imported"),
    ("trunkmgr.sip.routing.Missing", "cannot be imported"),
    ("trunkmgr.sip.consumers.SipConsumer", "is no subclass of trunkmgr.sip.routing.TrunkRouting"),
    ("trunkmgr.sip.routing.ALLOW", "is no subclass"),
])  # fmt: skip
def test_a_class_that_cannot_be_used_is_said_at_the_start(path: str, says: str, settings: Any) -> None:
    settings.TRUNKMGR = dataclasses.replace(settings.TRUNKMGR, routing=path)
    with pytest.raises(ImproperlyConfigured, match=says) as error:
        routing_class()
    assert str(error.value).startswith(f"TRUNKMGR_ROUTING: '{path}'")
    [message] = routing_messages()
    assert message.id == "trunkmgr.E020" and says in message.msg


def test_the_default_class_is_checked_without_being_imported(settings: Any) -> None:
    assert settings.TRUNKMGR.routing == "trunkmgr.sip.routing.TrunkRouting"
    assert routing_messages() == [] and routing_class() is TrunkRouting
    assert asyncio.iscoroutinefunction(TrunkRouting.request_route)


HA1 = "0123456789abcdef0123456789abcdef"
REQUESTED = [
    trunk(account("acc1", l_username="100", realm="r.example")),
    trunk(account("acc2", l_username="200", r_username="a b", auth_ha1=HA1), outbound_proxy="sip:192.0.2.1:5071"),
    trunk(account("none", l_username="300", auth_password="", auth_username="")),
    trunk(account("address", l_username="400", auth_password=""), by_address=True),
]


@pytest.mark.parametrize(("user", "mode", "use_domain", "code", "l_uuid"), [
    ("$fU", 0, False, 1, "acc1"),
    ("acc2", 0, False, 1, "acc2"),
    ("200", 1, False, 1, "acc2"),
    ("sip:200@pbx.example", 1, True, 1, "acc2"),
    ("sip:200@other.example", 1, True, -1, ""),
    ("tel:200", 1, True, -2, ""),
    ("acc2", 2, False, 1, "acc2"),
    ("200", 3, False, 1, "acc2"),
    ("acc1", 2, False, -1, ""),  # has no HA1
    ("nobody", 0, False, -1, ""),
    ("none", 0, False, -1, ""),  # nothing to prove itself with
    ("address", 0, False, 1, "address"),  # nor needs it
    ("address", 2, False, 1, "address"),
    ("acc1", 4, False, -1, ""),
    ("acc1", -1, False, -1, ""),
])  # fmt: skip
def test_uac_reg_request_to(user: str, mode: int, use_domain: bool, code: int, l_uuid: str, settings: Any) -> None:
    settings.TRUNKMGR = dataclasses.replace(
        settings.TRUNKMGR, reg_use_domain=use_domain, auth_realm_avp="$avp(realm)", auth_username_avp="$avp(s:user)",
        auth_password_avp="$avp(pw)",
    )
    seen: list[Any] = []

    class Asking(TrunkRouting):
        async def request_route(self, context: Any) -> None:
            before = context.ru
            found = self.uac_reg_request_to(user, mode)
            assert bool(found) == (found == 1)
            assert found == 1 or (context.ru == before and not context.credentials and context.marks is None)
            seen.extend([found, context.ru, context.du, [context.avp.get(name) for name in ("realm", "user", "pw")]])
            seen.extend([context.marks and context.marks.l_uuid, [bool(each.password) for each in context.credentials]])
            context.sl_send_reply(404)

    net = TrunkNet(Asking, *REQUESTED)
    net.send(net.phone, net.request(
        b"INVITE", b"sip:+4930@192.0.2.5", b"<sip:acc1@pbx.example>;tag=b", b"<sip:+4930@192.0.2.5>", b"c", 1,
        host=b"192.0.2.9:5060",
    ))
    assert seen[0] == code
    if l_uuid == "acc1":
        expected = ["sip:49301@sip.provider.example", "sip:192.0.2.1:5060", ["r.example", "49301", "secret"]]
    elif l_uuid == "address":
        assert seen[2:] == ["sip:192.0.2.1:5060", [None, None, None], l_uuid, []]
        return
    elif l_uuid:
        secret = HA1 if mode & 2 else "secret"
        expected = ["sip:a%20b@sip.provider.example", "sip:192.0.2.1:5071", ["", "49301", secret]]
    else:
        return
    assert seen[1:] == [*expected, l_uuid, [not mode & 2]]
