"""The seed's examples 1.14 to 1.24, written in our API and run on the wire with the real routing class."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

import pytest

from sipengine.events import Target
from sipengine.message import parse
from sipengine.uac.digest import Credentials
from tests.sipengine.net import CALLER, reply
from tests.sipengine.outbound import proves
from tests.trunkmgr.sip.net import TrunkNet, account, trunk
from trunkmgr.sip.routing import TrunkRouting

#: What both examples of replacing say: (arguments, the name-addr that is shown).
REPLACED = [
    # replace both display and uri
    ("$avp(s:display)", "$avp(s:uri)", b'"Dick Grayson" <sip:robin@gotham.org>'),
    # replace only display and do not touch uri
    ("batman", "", b"batman <%b>"),
    # remove display and replace uri
    ("", "sip:robin@gotham.org", b"<sip:robin@gotham.org>"),
    # remove display and do not touch uri
    ("", "", b"<%b>"),
]


@pytest.mark.parametrize(("display", "uri", "shown"), REPLACED)
@pytest.mark.parametrize(("header", "number"), [("from", "1.14"), ("to", "1.17")])
def test_example_1_14_and_1_17_uac_replace(header: str, number: str, display: str, uri: str, shown: bytes) -> None:
    class Example(TrunkRouting):
        async def request_route(self, context: Any) -> None:
            context.avp["display"] = '"Dick Grayson"'
            context.avp["uri"] = "sip:robin@gotham.org"
            if header == "from":
                context.uac_replace_from(context.expand(display), context.expand(uri))
            else:
                context.uac_replace_to(context.expand(display), context.expand(uri))
            context.ru = "sip:100@pbx.example"
            self.lookup("location")
            context.record_route()
            context.t_relay()

    net = TrunkNet(Example)
    call = net.establish()
    came = CALLER if header == "from" else b"<sip:acc1@192.0.2.5>"
    value = call.invite.get(header.encode()) or b""
    assert value.partition(b";tag")[0] == shown.replace(b"%b", came.partition(b"<")[2][:-1]), number
    assert (call.ok.get(header.encode()) or b"").partition(b";tag")[0] == came


def test_example_1_21_uac_req_send() -> None:
    class Example(TrunkRouting):
        async def request_route(self, context: Any) -> None:
            context.set_pv("$uac_req(method)", "OPTIONS")
            context.set_pv("$uac_req(ruri)", "sip:kamailio.example")
            context.set_pv("$uac_req(furi)", "sip:kamailio.example")
            context.set_pv("$uac_req(turi)", "sip:kamailio.example")
            assert context.uac_req_send()
            context.sl_send_reply(404)

    net = TrunkNet(Example)
    other = net.wire.station("192.0.2.88", 5060)
    net.wire.hosts["kamailio.example"] = [Target("udp", ("192.0.2.88", 5060))]
    net.send(net.provider, net.invite())
    net.run(0.3)
    [data] = other.take()
    options = parse(data)
    assert options.start == b"OPTIONS sip:kamailio.example SIP/2.0"
    assert options.from_.uri == options.to.uri == b"sip:kamailio.example"
    net.wire.send("udp", other.address, ("192.0.2.5", 5060), reply(options, b"200 OK"))
    net.run(40)
    assert other.take() == []


@pytest.mark.parametrize(("user", "logged"), [
    (b"acc1", ["request from a remote SIP provider [sip:acc1@192.0.2.5 => sip:100@pbx.example] (call call1)"]),
    (b"nobody", []),
])  # fmt: skip
def test_example_1_24_lookup_remote_registrations(
    user: bytes, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Example(TrunkRouting):
        async def request_route(self, context: Any) -> None:
            if self.uac_reg_lookup("$rU", "$ru"):
                context.xlog("request from a remote SIP provider [$ou => $ru]\n")
            if self.lookup("location"):
                context.t_relay()
            else:
                context.sl_send_reply(404, "Not Found")

    net = TrunkNet(Example)
    with caplog.at_level(logging.INFO, "sipengine"):
        net.send(net.provider, net.invite(user=user))
    assert [record.getMessage() for record in caplog.records] == logged
    if logged:
        assert parse(net.phone.take()[-1]).ruri == b"sip:100@pbx.example"
    else:
        assert parse(net.provider.take()[-1]).status == 404


@pytest.mark.parametrize("ha1", [False, True])
@pytest.mark.parametrize("proxy", [True, False])
def test_example_1_23_uac_reg_request_to(proxy: bool, ha1: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Example(TrunkRouting):
        async def request_route(self, context: Any) -> None:
            if self.uac_reg_request_to("$fU", 2 if ha1 else 0):
                context.xlog("L_NOTICE", "Found remote user [$rU] on [$rd] via [$du]")
                context.record_route()
                context.t_on_failure("remote_auth")
                context.t_relay()

        def remote_auth(self, context: Any) -> None:
            if context.pv("$T_reply_code") == 401 or context.pv("$T_reply_code") == 407:
                context.xlog("L_NOTICE", "Remote asked for authentication")
                context.uac_auth(1 if ha1 else 0)
                context.t_relay()

    secret = Credentials(b"49301", b"s3cret", realm=b"provider.example")
    columns = {"auth_password": "s3cret"}
    if ha1:
        columns = {"auth_ha1": hashlib.md5(b"49301:provider.example:s3cret").hexdigest(), "auth_password": ""}
    net = TrunkNet(Example, trunk(account(**columns)))
    with caplog.at_level(logging.INFO, "sipengine"):
        net.send(net.phone, net.request(
            b"INVITE", b"sip:+49401@192.0.2.5", b"Ann <sip:acc1@pbx.example>;tag=bt", b"<sip:+49401@192.0.2.5>", b"c1",
            1, host=b"192.0.2.9:5060", extra=b"Contact: <sip:bob@192.0.2.9>\r\n",
        ))
        first = parse(net.provider.take()[-1])
        assert first.ruri == b"sip:49301@sip.provider.example" and first.cseq == (1, b"INVITE")
        status, name = (b"407 Who?", b"Proxy") if proxy else (b"401 Who?", b"WWW")
        net.send(net.provider, reply(
            first, status, b"ch", name + b'-Authenticate: Digest realm="provider.example", nonce="n", qop="auth"'
        ))
    again = parse(net.provider.take()[-1])
    assert again.cseq == (2, b"INVITE") and proves(again, secret, proxy=proxy) == 1
    net.send(net.provider, reply(again, b"200 OK", b"gt", b"Contact: <sip:gw@192.0.2.1>"))
    ok = parse(net.phone.take()[-1])
    assert ok.status == 200 and ok.cseq == (1, b"INVITE")
    assert [record.getMessage() for record in caplog.records] == [
        "Found remote user [49301] on [sip.provider.example] via [sip:192.0.2.1:5060] (call c1)",
        "Remote asked for authentication (call c1)",
    ]
