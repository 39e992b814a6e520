"""Kamailio's pseudo-variables and script functions on the response context."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.exceptions import InvalidState, LocalProtocolError, ParseError
from sipengine.message import parse
from sipengine.proxy.context import ResponseContext
from sipengine.proxy.variables import Variables
from tests.sipengine.net import KEYS, PHONE2, Net, reply, starts

EXTRA = (
    b"User-Agent: phone/1.0\r\nX-Foo: first\r\nX-Foo: second\r\nAuthorization: Digest secret\r\n"
    b"Content-Type: text/plain\r\n"
)


def asked(net: Net, ask: Callable[[ResponseContext], Any], extra: bytes = EXTRA) -> Any:
    """What `ask` says in request_route of an INVITE."""
    answers: list[Any] = []

    def decide(context: ResponseContext) -> None:
        answers.append(ask(context))
        context.sl_send_reply(404)

    net.routing.decide = decide
    net.send(net.provider, net.invite(extra=extra))
    assert starts(net.provider.take())[-1] == b"SIP/2.0 404"
    return answers[0]


#: In request_route of an INVITE of `Net`.
REQUEST = [
    ("$fu", "sip:+4930123456@provider.example"), ("$fU", "+4930123456"), ("$fd", "provider.example"),
    ("$fn", '"Alice Adams"'), ("$ft", "ct"),
    ("$tu", "sip:acc1@192.0.2.5"), ("$tU", "acc1"), ("$td", "192.0.2.5"), ("$tn", ""), ("$tt", ""),
    ("$ru", "sip:acc1@192.0.2.5"), ("$rU", "acc1"), ("$rd", "192.0.2.5"), ("$rp", 5060),
    ("$ou", "sip:acc1@192.0.2.5"), ("$oU", "acc1"), ("$od", "192.0.2.5"), ("$op", 5060),
    ("$du", ""), ("$dd", ""), ("$dp", 0),
    ("$si", "192.0.2.1"), ("$sp", 5060), ("$Ri", "192.0.2.5"), ("$Rp", 5060), ("$pr", "udp"),
    ("$ci", "call1"), ("$cs", 1), ("$rm", "INVITE"), ("$rs", 0), ("$rr", ""), ("$ua", "phone/1.0"),
    ("$ct", "<sip:alice-gw@192.0.2.1:5060>"), ("$cT", "text/plain"), ("$rb", ""),
    ("$hdr(X-Foo)", "first"), ("$hdr(x-foo)", "first"), ("$(hdr(X-Foo)[1])", "second"),
    ("$(hdr(X-Foo)[-1])", "second"),
    ("$(hdr(X-Foo)[2])", None), ("$hdr(X-Bar)", None),
    ("$hdr(f)", '"Alice Adams" <sip:+4930123456@provider.example>;tag=ct'),
    ("$avp(x)", None), ("$avp(s:x)", None), ("$var(x)", None), ("$(fU)", "+4930123456"), ("$null", None),
    ("$T_reply_code", 0), ("$T_reply_reason", ""), ("$T_rpl($ua)", None), ("$T_req($fU)", "+4930123456"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REQUEST, ids=lambda value: str(value))
def test_what_a_variable_says_in_request_route(name: str, value: object) -> None:
    found = asked(Net(), lambda context: context.pv(name))
    assert found == value and type(found) is type(value)
    plain = name[1:]
    if plain.isidentifier() and plain != "null":
        assert asked(Net(), lambda context: getattr(context, plain)) == value


def test_every_variable_is_in_the_table() -> None:
    names = {name[1:] for name, _ in REQUEST}
    assert {name for name in vars(Variables) if type(vars(Variables)[name]).__name__ == "Variable"} <= names


@pytest.mark.parametrize(("name", "value", "ruri"), [
    ("$ru", "sip:x@y.example", b"sip:x@y.example"),
    ("$rU", "bob", b"sip:bob@192.0.2.5"),
    ("$rU", None, b"sip:192.0.2.5"),
    ("$rd", "pbx.example", b"sip:acc1@pbx.example"),
    ("$rp", 5070, b"sip:acc1@192.0.2.5:5070"),
    ("$rp", None, b"sip:acc1@192.0.2.5"),
])
def test_parts_of_the_request_uri_are_written(name: str, value: object, ruri: bytes) -> None:
    def ask(context: ResponseContext) -> list[object]:
        context.set_pv(name, value)
        return [context.ruri, context.ou]

    assert asked(Net(), ask) == [ruri, "sip:acc1@192.0.2.5"]


def test_du_is_the_next_hop_in_text() -> None:
    def ask(context: ResponseContext) -> list[object]:
        context.set_pv("$du", "sip:192.0.2.77:5070;transport=tcp")
        seen: list[object] = [context.du, context.dd, context.dp]
        context.set_pv("$du", None)
        return [*seen, context.du]

    assert asked(Net(), ask) == ["sip:192.0.2.77:5070;transport=tcp", "192.0.2.77", 5070, ""]


@pytest.mark.parametrize("name", ["$fu", "$fU", "$tU", "$si", "$ci", "$hdr(X-Foo)", "$T_reply_code"])
def test_others_can_only_be_read(name: str) -> None:
    def ask(context: ResponseContext) -> str:
        with pytest.raises(InvalidState, match="can only be read") as error:
            context.set_pv(name, "x")
        return str(error.value)

    message = asked(Net(), ask)
    assert ("uac_replace_" in message) == (name[1] in "ft")


@pytest.mark.parametrize("name", [
    "$nonsense", "fU", "$fU.x", "$avp", "$hdr", "$foo(x)", "$(fU{s.len})", "$hdr(a b)", "",
])  # fmt: skip
def test_what_is_no_variable_is_said(name: str) -> None:
    def ask(context: ResponseContext) -> None:
        with pytest.raises(LocalProtocolError):
            context.pv(name)

    asked(Net(), ask)


def test_avps_live_as_long_as_the_transaction() -> None:
    """Set in request_route; read in branch, reply and failure routes; another request does not see them."""
    net = Net()
    seen: list[tuple[str, object]] = []

    def decide(context: ResponseContext) -> None:
        seen.append(("request", context.pv("$avp(s:n)")))
        context.avp["n"] = 1
        context.set_pv("$var(v)", "x")
        context.ruri = b"sip:phone@192.0.2.9:5060"
        context.t_relay()

    def note(where: str) -> Callable[..., None]:
        def hook(context: ResponseContext, *message: object) -> None:
            seen.append((where, context.pv("$avp(n)")))
            context.set_pv("$avp(s:n)", context.avp["n"] + 1)
            assert context.pv("$var(v)") == "x"

        return hook

    net.routing.decide = decide
    for where in ("branch", "onreply", "failure"):
        setattr(net.routing, where + "_route", note(where))
    for call in (b"one", b"two"):
        net.send(net.provider, net.invite(call))
        net.send(net.phone, reply(parse(net.phone.take()[-1]), b"486 Busy Here"))
    assert seen == [("request", None), ("branch", 1), ("failure", 2), ("onreply", 3)] * 2
    context = net.routing.contexts[0]
    context.set_pv("$avp(n)", None)
    assert "n" not in context.avp


def test_replies_are_read_in_onreply_and_failure_route() -> None:
    net = Net()
    second = net.wire.station(*PHONE2)
    seen: dict[str, list[object]] = {}
    names = ("$rs", "$rr", "$T_reply_code", "$T_reply_reason", "$ua", "$T_rpl($ua)", "$T_req($ua)", "$cs", "$tt", "$ou")

    def decide(context: ResponseContext) -> None:
        context.ruri = b"sip:phone@192.0.2.9:5060"
        context.t_relay()

    def look(context: ResponseContext, where: str) -> None:
        seen[where] = [context.pv(name) for name in names]
        seen[where] += [context.t_check_status("401|40[78]"), context.t_check_status("486"), context.t_is_canceled()]

    def onreply_route(context: ResponseContext, message: object) -> None:
        look(context, f"onreply{context.rs}")

    def failure_route(context: ResponseContext) -> None:
        look(context, "failure")
        context.ruri = b"sip:phone@192.0.2.10:5060"
        context.t_relay()

    net.routing.decide = decide
    net.routing.onreply_route, net.routing.failure_route = onreply_route, failure_route  # type: ignore[attr-defined]
    net.send(net.provider, net.invite(extra=EXTRA))
    net.send(net.phone, reply(parse(net.phone.take()[-1]), b"486 Busy Here", b"pt", b"User-Agent: callee"))
    net.send(second, reply(parse(second.take()[-1]), b"180 Ringing", b"p2"))
    original = "sip:acc1@192.0.2.5"
    assert seen == {
        "failure": [0, "", 486, "Busy Here", "phone/1.0", "callee", "phone/1.0", 1, "", original, False, True, False],
        "onreply180": [180, "Ringing", 180, "Ringing", "", "", "phone/1.0", 1, "p2", original, False, False, False],
    }


def test_branch_route_reads_its_own_request_uri_and_what_came() -> None:
    net = Net()
    seen: list[object] = []

    def branch_route(context: ResponseContext) -> None:
        seen.extend([context.ru, context.ou, context.ua])
        with pytest.raises(InvalidState, match="set du in request_route"):
            context.du = "sip:x@y"
        assert context.remove_hf("User-Agent") == 1

    def decide(context: ResponseContext) -> None:
        context.ruri = b"sip:phone@192.0.2.9:5060"
        context.append_branch()
        context.append_branch("sip:second@192.0.2.9:5060")
        context.t_relay()

    net.routing.decide, net.routing.branch_route = decide, branch_route  # type: ignore[attr-defined]
    net.send(net.provider, net.invite(extra=EXTRA))
    rest = ["sip:acc1@192.0.2.5", "phone/1.0"]
    assert seen == [
        "sip:phone@192.0.2.9:5060", *rest, "sip:phone@192.0.2.9:5060", *rest, "sip:second@192.0.2.9:5060", *rest
    ]
    assert all(parse(data).get(b"User-Agent") is None for data in net.phone.take())


@pytest.mark.parametrize(("line", "ask", "answer"), [
    (b"From: <tel:+4930>;tag=ct", "$fU", "+4930"),
    (b"From: <tel:+4930;phone-context=x>;tag=ct", "$fd", ""),
    (b"From: sip:alice:pw@h;tag=ct", "$fU", "alice"),
    (b"From: <sips:h>;tag=ct", "$fU", ""),
    (b"From: <sip:a@[2001:db8::1]:5>;tag=ct", "$fd", "[2001:db8::1]"),
    ('From: "Bj\u00f6rn" <sip:b@h>;tag=ct'.encode(), "$fn", '"Bj\u00f6rn"'),
])
def test_other_forms_of_from(line: bytes, ask: str, answer: str) -> None:
    net = Net()
    seen: list[object] = []
    net.routing.decide = lambda context: (seen.append(context.pv(ask)), context.sl_send_reply(404))
    invite = net.invite()
    start = invite.index(b"From: ")
    net.send(net.provider, invite[:start] + line + invite[invite.index(b"\r\n", start) :])
    assert seen == [answer]


def test_xlog_expands_and_never_shows_secrets(caplog: pytest.LogCaptureFixture) -> None:
    net = Net(Configuration(seal_keys=KEYS, auth_password_avp="$avp(s:pw)"))

    def ask(context: ResponseContext) -> str:
        context.avp.update(pw="hunter2", a="b\r\nc")
        context.xlog("L_NOTICE", "[$ou => $ru] $$5 $hdr(X-Bar) $avp(s:a)")
        context.xlog("$(hdr(X-Foo)[1]) $hdr(Authorization) $avp(pw) $T_req($hdr(authorization)) $T_req($avp(s:pw))\n")
        context.xlog("L_ERR", "error")
        context.xlog("L_DBG", "debug")
        return context.expand("$rm from $si:$sp")

    with caplog.at_level(logging.INFO, "sipengine"):
        assert asked(net, ask) == "INVITE from 192.0.2.1:5060"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "[sip:acc1@192.0.2.5 => sip:acc1@192.0.2.5] $5 <null> b c (call call1)"),
        ("INFO", "second *** *** *** *** (call call1)"),
        ("ERROR", "error (call call1)"),
    ]


def test_functions_of_the_script() -> None:
    def ask(context: ResponseContext) -> list[object]:
        answers: list[object] = [
            context.is_method("INVITE|BYE"), context.is_method("BYE"), context.is_method("INV"),
            context.is_present_hf("User-Agent"), context.is_present_hf("m"), context.is_present_hf("X-Bar"),
            context.remove_hf("X-Foo"), context.is_present_hf("X-Foo"), context.has_totag(),
            context.t_check_status("4.."), context.t_is_canceled(),
        ]  # fmt: skip
        context.append_hf("X-New: 1\r\n")
        with pytest.raises(ParseError):
            context.append_hf("X-New: 1\r\nX-More: 2")
        return [*answers, context.pv("$hdr(X-New)")]

    assert asked(Net(), ask) == [True, False, False, True, True, False, 2, False, False, False, False, "1"]


def test_header_functions_edit_the_response_in_onreply_route() -> None:
    net = Net()

    def decide(context: ResponseContext) -> None:
        context.ruri = b"sip:phone@192.0.2.9:5060"
        context.t_relay()

    def onreply_route(context: ResponseContext, message: object) -> None:
        assert context.remove_hf("Server", "X-Foo") == 2
        context.append_hf(f"X-Status: {context.rs}")

    net.routing.decide, net.routing.onreply_route = decide, onreply_route  # type: ignore[attr-defined]
    net.send(net.provider, net.invite())
    net.send(net.phone, reply(parse(net.phone.take()[-1]), b"180 Ringing", b"pt", b"Server: x", b"X-Foo: y"))
    ringing = parse(net.provider.take()[-1])
    assert ringing.get(b"X-Status") == b"180" and ringing.get(b"Server") is None and ringing.get(b"X-Foo") is None
    assert net.routing.contexts[0].message.get(b"X-Status") is None, "the request is left alone"


def test_an_ordinary_call_makes_no_store() -> None:
    net = Net()
    net.establish()
    assert net.routing.contexts[0]._store is None
