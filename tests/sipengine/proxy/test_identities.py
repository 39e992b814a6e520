"""uac_replace_from and uac_replace_to, and everything that puts back what they changed (kamailio-uac g)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sipengine.configuration import Configuration
from sipengine.events import CallEnded
from sipengine.exceptions import InvalidState
from sipengine.message import parse
from sipengine.proxy.context import ResponseContext
from tests.sipengine.net import ANONYMOUS, CALLER, KEYS, PHONE2, Established, Net, assert_nothing_left, reply

CODECS = pytest.mark.parametrize("codec", ["sealed", "kamailio"])


def relayed(net: Net, edit: Callable[[ResponseContext], Any], targets: tuple[bytes, ...] = ()) -> None:
    """Let new calls be edited, then relayed to the phone (and to more targets); requests within a call pass."""

    def decide(context: ResponseContext) -> None:
        if not context.has_totag():
            context.ruri = b"sip:phone@192.0.2.9:5060"
            edit(context)
            for uri in targets:
                context.append_branch(uri)
            context.record_route()
            context.mark_call("line-1", "in", "a", "b", False)
        context.t_relay()

    net.routing.decide = decide


#: What the seed's four cases, and the form with one argument, make of From or To.
CASES = [
    (("batman", "sip:robin@gotham.org"), b"batman <sip:robin@gotham.org>"),
    (("batman", ""), b"batman <%b>"),
    (("", "sip:robin@gotham.org"), b"<sip:robin@gotham.org>"),
    (("", ""), b"<%b>"),
    (("sip:robin@gotham.org",), b"%n<sip:robin@gotham.org>"),
    ((b"Bruce, W.", b"sip:robin@gotham.org"), b'"Bruce, W." <sip:robin@gotham.org>'),
]


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("header", ["From", "To"])
@pytest.mark.parametrize(("arguments", "shown"), CASES, ids=lambda value: str(value)[:24])
def test_the_four_cases_and_back_for_the_whole_call(
    header: str, arguments: tuple[str | bytes, ...], shown: bytes, restart: bool
) -> None:
    net = Net()
    name = header.encode()
    came = CALLER if header == "From" else b'"The Line" <sip:acc1@192.0.2.5>'
    uri = came.partition(b"<")[2][:-1]
    shown = shown.replace(b"%b", uri).replace(b"%n", came.partition(b"<")[0])
    relayed(net, lambda context: getattr(context, f"uac_replace_{header.lower()}")(*arguments))
    net.send(net.provider, net.invite().replace(b"To: <sip:acc1@192.0.2.5>", b'To: "The Line" <sip:acc1@192.0.2.5>'))
    invite = parse(net.phone.take()[-1])
    assert (invite.get(name) or b"").removesuffix(b";tag=ct") == shown
    for status in (b"183 Session Progress", b"200 OK"):
        net.send(net.phone, reply(invite, status, b"pt", b"Contact: <sip:phone@192.0.2.9>"))
        ok = parse(net.provider.take()[-1])
        assert (ok.get(name) or b"").partition(b";tag")[0] == came, "every reply shows what came, display name too"
    call = Established(net, invite, ok, b"pt")
    if restart:
        net.restart()
    net.send(net.provider, call.from_caller(b"INFO", 2))
    info = parse(net.phone.take()[-1])
    assert (info.get(name) or b"").partition(b";tag")[0] == shown
    net.send(net.phone, reply(info, b"200 OK"))
    assert (parse(net.provider.take()[-1]).get(name) or b"").partition(b";tag")[0] == came
    net.send(net.phone, call.from_callee(b"BYE", 7))
    bye = parse(net.provider.take()[-1])
    mirrored = b"To" if header == "From" else b"From"
    assert (bye.get(mirrored) or b"").partition(b";tag")[0] == came
    net.send(net.provider, reply(bye, b"200 OK"))
    assert (parse(net.phone.take()[-1]).get(mirrored) or b"").partition(b";tag")[0] == shown
    assert_nothing_left(net)


def test_a_second_replace_changes_what_the_first_one_made() -> None:
    net = Net()

    def edit(context: ResponseContext) -> None:
        assert context.uac_replace_from("batman", "")
        assert context.uac_replace_from("sip:robin@gotham.org")
        assert context.uac_replace_from("sip:joker@gotham.org")

    relayed(net, edit)
    net.send(net.provider, net.invite())
    assert parse(net.phone.take()[-1]).get(b"From") == b"batman <sip:joker@gotham.org>;tag=ct"


@pytest.mark.parametrize("name", ["uac_replace_from", "uac_replace_to", "hide_contact", "uac_restore_from"])
@pytest.mark.parametrize("route", ["failure_route", "onreply_route"])
def test_elsewhere_the_error_names_where_they_may_be_called(name: str, route: str) -> None:
    net = Net()
    raised: list[str] = []

    def hook(context: ResponseContext, *message: object) -> None:
        arguments = ("sip:a@b",) if "replace" in name else ()
        with pytest.raises(InvalidState) as error:
            getattr(context, name)(*arguments)
        raised.append(str(error.value))

    setattr(net.routing, route, hook)
    relayed(net, lambda context: None)
    net.send(net.provider, net.invite())
    net.send(net.phone, reply(parse(net.phone.take()[-1]), b"486 Busy Here"))
    where = "request_route" if "restore" in name else "request_route and branch_route"
    assert raised == [f"{name} may be called in {where}, not in {route}"]


# branches
@CODECS
def test_each_branch_has_its_own_from_to_and_request_uri(codec: str) -> None:
    """Both phones answer: each sees its own caller for its whole call, and the caller itself in all of them."""
    net = Net(Configuration(seal_keys=KEYS, restore_codec=codec))
    second = net.wire.station(*PHONE2)
    relayed(net, lambda context: None, (b"sip:phone@192.0.2.10:5060",))

    def branch_route(context: ResponseContext) -> None:
        host = context.rd
        context.uac_replace_from("", f"sip:first@{host}")
        context.uac_replace_from("", f"sip:for-{host.replace('.', '-')}@gotham.org")
        if host == "192.0.2.10":
            context.uac_replace_to("Two", "sip:two@gotham.org")
            context.rU = "two"

    net.routing.branch_route = branch_route  # type: ignore[attr-defined]
    net.send(net.provider, net.invite())
    invites = [parse(station.take()[-1]) for station in (net.phone, second)]
    froms = [b"<sip:for-192-0-2-9@gotham.org>", b"<sip:for-192-0-2-10@gotham.org>"]
    tos = [b"<sip:acc1@192.0.2.5>", b"Two <sip:two@gotham.org>"]
    assert [invite.get(b"From") for invite in invites] == [shown + b";tag=ct" for shown in froms]
    assert [invite.get(b"To") for invite in invites] == tos
    assert invites[1].ruri == b"sip:two@192.0.2.10:5060" and invites[0].ruri == b"sip:phone@192.0.2.9:5060"
    calls = []
    for number, (station, invite) in enumerate(zip((net.phone, second), invites, strict=True)):
        tag = b"pt%d" % number
        net.send(station, reply(invite, b"200 OK", tag, b"Contact: <sip:phone@%b>" % station.address[0].encode()))
        ok = parse(net.provider.take()[-1])
        assert ok.get(b"From") == CALLER + b";tag=ct" and ok.get(b"To") == b"<sip:acc1@192.0.2.5>;tag=" + tag
        calls.append(Established(net, invite, ok, tag))
    second.take()  # its CANCEL, which came after its 200
    for number, (station, call) in enumerate(zip((net.phone, second), calls, strict=True)):
        for method in (b"ACK", b"INFO"):
            target = b"sip:phone@" + station.address[0].encode()
            ruri = b"%b sip:phone@192.0.2.9:5060" % method
            net.send(net.provider, call.from_caller(method, 1).replace(ruri, b"%b %b" % (method, target), 1))
            got = parse(station.take()[-1])
            assert got.method == method and got.get(b"From") == froms[number] + b";tag=ct"
            assert got.get(b"To") == tos[number] + b";tag=pt%d" % number
        net.provider.take()
        station.send(
            call.from_callee(b"BYE", 5).replace(b"192.0.2.9:5060;", station.address[0].encode() + b":5060;"),
            ("192.0.2.5", 5060),
        )
        net.run()
        bye = parse(net.provider.take()[-1])
        assert bye.get(b"To") == CALLER + b";tag=ct" and bye.get(b"From") == b"<sip:acc1@192.0.2.5>;tag=pt%d" % number
        net.send(net.provider, reply(bye, b"200 OK"))
        assert (parse(station.take()[-1]).get(b"To") or b"") == froms[number] + b";tag=ct"
    ended = [event for event in net.events() if isinstance(event, CallEnded)]
    assert len(ended) == 1 and ended[0].code == 200, "one call, however many answered"
    assert_nothing_left(net)


def test_what_a_branch_sets_is_forgotten_for_the_next() -> None:
    """Serial forking: the first target sees another caller, the second one the real one."""
    net = Net()
    relayed(net, lambda context: None)

    def only_first(context: ResponseContext) -> None:
        if context.rd == "192.0.2.9":
            context.uac_replace_from("", "sip:hidden@gotham.org")
            context.remove_hf("Subject")

    def failure_route(context: ResponseContext) -> None:
        context.ruri = b"sip:phone@192.0.2.10:5060"
        context.t_relay()

    second = net.wire.station(*PHONE2)
    net.routing.branch_route, net.routing.failure_route = only_first, failure_route  # type: ignore[attr-defined]
    net.send(net.provider, net.invite(extra=b"Subject: x\r\n"))
    first = parse(net.phone.take()[-1])
    assert first.get(b"From") == b"<sip:hidden@gotham.org>;tag=ct" and first.get(b"Subject") is None
    net.send(net.phone, reply(first, b"486 Busy Here"))
    invite = parse(second.take()[-1])
    assert invite.get(b"From") == CALLER + b";tag=ct" and invite.get(b"Subject") == b"x"
    net.send(second, reply(invite, b"200 OK", b"pt", b"Contact: <sip:phone@192.0.2.10>"))
    call = Established(net, invite, parse(net.provider.take()[-1]), b"pt")
    bye = call.from_caller(b"BYE", 2).replace(b"BYE sip:phone@192.0.2.9:5060", b"BYE sip:phone@192.0.2.10")
    net.send(net.provider, bye)
    assert parse(second.take()[-1]).get(b"From") == CALLER + b";tag=ct"


@CODECS
def test_a_branch_that_changes_nothing_beside_one_that_does(codec: str) -> None:
    net = Net(Configuration(seal_keys=KEYS, restore_codec=codec))
    second = net.wire.station(*PHONE2)
    relayed(net, lambda context: None, (b"sip:phone@192.0.2.10:5060",))
    net.routing.branch_route = lambda context: (  # type: ignore[attr-defined]
        context.rd == "192.0.2.10" and context.uac_replace_from("", "sip:hidden@gotham.org")
    )
    net.send(net.provider, net.invite())
    for station, shown in ((net.phone, CALLER), (second, b"<sip:hidden@gotham.org>")):
        invite = parse(station.take()[-1])
        assert invite.get(b"From") == shown + b";tag=ct"
        host = station.address[0].encode()
        net.send(station, reply(invite, b"183 Session Progress", host, b"Contact: <sip:phone@%b>" % host))
        call = Established(net, invite, parse(net.provider.take()[-1]), host)
        net.send(net.provider, call.from_caller(b"INFO", 2).replace(b"phone@192.0.2.9:5060", b"phone@" + host, 1))
        assert parse(station.take()[-1]).get(b"From") == shown + b";tag=ct"


@pytest.mark.parametrize("restart", [False, True])
@CODECS
def test_a_bye_of_an_early_dialog_is_restored(codec: str, restart: bool) -> None:
    """RFC 3261 §15: the caller may hang up on one early dialog by BYE; the seed shows its identity there (#4829)."""
    net = Net(Configuration(seal_keys=KEYS, restore_codec=codec))
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[-1])
    early = []
    for tag in (b"e1", b"e2"):
        net.send(net.phone, reply(invite, b"180 Ringing", tag, b"Contact: <sip:phone@192.0.2.9:5060>"))
        early.append(Established(net, invite, parse(net.provider.take()[-1]), tag))
    if restart:
        net.restart()
    for call in early:
        net.send(net.provider, call.from_caller(b"BYE", 2))
        bye = parse(net.phone.take()[-1])
        assert bye.get(b"From") == ANONYMOUS + b";tag=ct" and bye.to.tag == call.tag
        net.send(net.phone, reply(bye, b"200 OK"))
        assert parse(net.provider.take()[-1]).get(b"From") == CALLER + b";tag=ct"


@pytest.mark.parametrize("restart", [False, True])
@CODECS
def test_between_transports(codec: str, restart: bool) -> None:
    """A double Record-Route: the seed's values stand in both of it, the sealed token in one."""
    net = Net(Configuration(seal_keys=KEYS, restore_codec=codec))
    phone = net.wire.station("192.0.2.9", 5060, "tcp")
    net.routing.next_hop = b"sip:192.0.2.9:5060;transport=tcp"
    net.send(net.provider, net.invite())
    invite = parse(phone.take()[-1])
    routes = invite.get_list(b"Record-Route")
    assert [b";vsf=" in route for route in routes] == [True, codec == "kamailio"]
    phone.send(reply(invite, b"200 OK", b"pt", b"Contact: <sip:phone@192.0.2.9;transport=tcp>"), ("192.0.2.5", 5060))
    net.run()
    call = Established(net, invite, parse(net.provider.take()[-1]), b"pt")
    if restart:
        net.restart()
    bye = call.from_caller(b"BYE", 2).replace(b"phone@192.0.2.9:5060", b"phone@192.0.2.9;transport=tcp", 1)
    net.send(net.provider, bye)
    assert parse(phone.take()[-1]).get(b"From") == ANONYMOUS + b";tag=ct"


# restore_mode
@pytest.mark.parametrize("both", [False, True])
def test_manual_mode_restores_one_header_at_a_time(both: bool) -> None:
    net = Net(Configuration(seal_keys=KEYS, restore_mode="manual"))

    def decide(context: ResponseContext) -> None:
        if context.has_totag():
            assert context.uac_restore_from()
            if both:
                assert context.uac_restore_to()
        else:
            context.ruri = b"sip:phone@192.0.2.9:5060"
            context.uac_replace_from("", "sip:anonymous@anonymous.invalid")
            context.uac_replace_to("", "sip:line@pbx.example")
            context.record_route()
            assert not context.uac_restore_from(), "nothing to restore in a first request"
        context.t_relay()

    net.routing.decide = decide
    call = net.establish()
    net.send(net.provider, call.from_caller(b"INFO", 2))
    info = parse(net.phone.take()[-1])
    assert info.get(b"From") == ANONYMOUS + b";tag=ct"
    assert info.to.uri == (b"sip:line@pbx.example" if both else b"sip:acc1@192.0.2.5")
    net.send(net.phone, reply(info, b"200 OK"))
    answer = parse(net.provider.take()[-1])
    assert answer.get(b"From") == CALLER + b";tag=ct" and answer.to.uri == b"sip:acc1@192.0.2.5"
    net.send(net.phone, call.from_callee(b"INFO", 7))
    info = parse(net.provider.take()[-1])
    assert info.from_.uri == b"sip:acc1@192.0.2.5"
    assert info.to.uri == (b"sip:+4930123456@provider.example" if both else b"sip:anonymous@anonymous.invalid")


def test_manual_mode_leaves_the_rest_to_the_routing() -> None:
    """Not asked to restore, it does not; what the routing replaces itself goes back in the reply.  An ACK is hidden."""
    net = Net(Configuration(seal_keys=KEYS, restore_mode="manual"))
    call = net.establish()
    assert [m.get(b"From") for m in map(parse, net.phone.log) if m.method == b"ACK"] == [ANONYMOUS + b";tag=ct"]
    net.routing.decide = lambda context: context.t_relay()
    net.send(net.provider, call.from_caller(b"INFO", 2))
    assert parse(net.phone.take()[-1]).get(b"From") == CALLER + b";tag=ct"
    net.routing.decide = lambda context: (context.uac_replace_from("", "sip:own@gotham.org"), context.t_relay())
    net.send(net.provider, call.from_caller(b"INFO", 3))
    info = parse(net.phone.take()[-1])
    assert info.get(b"From") == b"<sip:own@gotham.org>;tag=ct"
    net.send(net.phone, reply(info, b"200 OK"))
    assert parse(net.provider.take()[-1]).get(b"From") == CALLER + b";tag=ct"


def test_mode_none_keeps_no_identity_anywhere() -> None:
    net = Net(Configuration(seal_keys=KEYS, restore_mode="none", restore_from_avp="$avp(s:from)"))
    contexts: list[ResponseContext] = net.routing.contexts
    call = net.establish()
    [record] = net.endpoint.proxy.dialogs.records.values()
    for value in (*record.views, record.from_line, record.from_hidden, record.token):
        assert not isinstance(value, bytes) or value == b""
    assert contexts[0].avp == {} and b"vsf" not in call.route_of_caller
    net.send(net.provider, call.from_caller(b"BYE", 2))
    assert parse(net.phone.take()[-1]).get(b"From") == CALLER + b";tag=ct"


def test_avps_hold_what_was_replaced() -> None:
    configuration = Configuration(
        seal_keys=KEYS, restore_from_avp="$avp(s:original_uri_from)", restore_to_avp="$avp(original_uri_to)"
    )
    net = Net(configuration)
    seen: list[tuple[object, object]] = []

    def edit(context: ResponseContext) -> None:
        context.uac_replace_from("", "sip:one@gotham.org")
        context.uac_replace_from("", "sip:two@gotham.org")
        context.uac_replace_to("sip:three@gotham.org")

    net.routing.onreply_route = lambda context, message: seen.append(  # type: ignore[attr-defined]
        (context.avp["original_uri_from"], context.pv("$avp(s:original_uri_to)"))
    )
    relayed(net, edit)
    net.establish()
    assert seen == [(CALLER.decode(), "<sip:acc1@192.0.2.5>")]


def test_avps_hold_what_is_restored_in_manual_mode() -> None:
    avps = {"restore_to_avp": "$avp(to)", "restore_from_avp": "$avp(from)"}
    net = Net(Configuration(seal_keys=KEYS, restore_mode="manual", **avps))  # type: ignore[arg-type]
    call = net.establish()
    net.routing.decide = lambda context: (context.uac_restore_to(), context.uac_restore_from(), context.t_relay())
    net.send(net.phone, call.from_callee(b"INFO", 7))
    assert net.routing.contexts[-1].avp == {"to": ANONYMOUS.decode()}, "From was never changed"


# endpoints that alter what they were given
@pytest.mark.parametrize("restart", [False, True])
@CODECS
@pytest.mark.parametrize("altered", [
    b"sip:+5930123456@provider.example", b"sip:+4930123457@provider.example", b"sip:+4930123456@PROVIDER.example",
    b"sip:+4930123456@provider.example;x=y",
    b"sip:x@y", b"sip:+4930123456:5060@provider.example", b"tel:+4930123456",
])  # fmt: skip
def test_an_endpoint_that_alters_its_from_makes_us_send_no_garbage(codec: str, restart: bool, altered: bytes) -> None:
    net = Net(Configuration(seal_keys=KEYS, restore_codec=codec))
    call = net.establish()
    if restart:
        net.restart()
    call.callers_from = b"<" + altered + b">;tag=ct"
    net.send(net.provider, call.from_caller(b"INFO", 2))
    shown = parse(net.phone.take()[-1]).from_.uri
    known = codec == "sealed" or not restart
    assert shown == (b"sip:anonymous@anonymous.invalid" if known else altered)
    call.callees_to = b"<sip:bnonymous@anonymous.invalid>;tag=ct"
    net.send(net.phone, call.from_callee(b"BYE", 7))
    shown = parse(net.provider.take()[-1]).to.uri
    assert shown == (b"sip:+4930123456@provider.example" if known else b"sip:bnonymous@anonymous.invalid")
