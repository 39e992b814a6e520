"""The seed's examples 1.14 to 1.24, written in our API and run on the wire with the real routing class."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from sipengine.events import Target
from sipengine.message import parse
from tests.sipengine.net import CALLER, reply
from tests.trunkmgr.sip.net import TrunkNet
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
