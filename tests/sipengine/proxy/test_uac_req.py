"""`context.uac_req` and `uac_req_send()` in the hooks of a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sipengine.asgi import AsgiApplication
from sipengine.asyncio.server import SipServer
from sipengine.asyncio.tasks import HookSteps
from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.events import Target
from sipengine.message import parse
from sipengine.uac.send import UacReply
from sipengine.uac.uac_req import UacRequest
from tests.sipengine.net import Net, entropy_from, reply

ELSEWHERE = ("192.0.2.77", 5060)


def describe(context: Any, method: str) -> None:
    context.uac_req.method = method
    context.uac_req.ruri = "sip:192.0.2.77"


class Routing:
    """Sends a request from each of its hooks."""

    def request_route(self, context: Any) -> None:
        context.routing = self
        describe(context, "MESSAGE")
        assert context.uac_req_send()
        context.du = b"sip:192.0.2.9:5060"
        context.record_route()
        context.t_relay()

    def branch_route(self, context: Any) -> None:
        describe(context, "INFO")
        assert context.uac_req_send()

    def onreply_route(self, context: Any, message: Any) -> None:
        describe(context, "NOTIFY")
        assert context.uac_req_send()

    def failure_route(self, context: Any) -> None:
        describe(context, "PUBLISH")
        assert context.uac_req_send()


def test_every_hook_may_send() -> None:
    net = Net()
    net.routing.decide = Routing().request_route
    elsewhere = net.wire.station(*ELSEWHERE)
    net.send(net.provider, net.invite())
    invite = parse(net.phone.take()[0])
    net.send(net.phone, reply(invite, b"486 Busy Here"))
    assert [parse(data).method for data in elsewhere.take()] == [b"MESSAGE", b"INFO", b"PUBLISH", b"NOTIFY"]
    assert [parse(data).status for data in net.provider.take()] == [100, 486]


def test_each_context_has_its_own() -> None:
    net = Net()
    seen: list[Any] = []

    def decide(context: Any) -> None:
        seen.append(context.uac_req.copy())
        context.uac_req.method, context.uac_req.apasswd = "INFO", "s3cret"
        context.sl_send_reply(404, "Not Found")

    net.routing.decide = decide
    for call_id in (b"one", b"two"):
        net.send(net.provider, net.invite(call_id))
    assert [(uac_req.method, uac_req.apasswd) for uac_req in seen] == [("", "")] * 2


def test_a_request_that_makes_none_is_a_fault_of_the_hook() -> None:
    net = Net()
    net.routing.decide = lambda context: context.uac_req_send()
    net.send(net.provider, net.invite())
    assert [parse(data).status for data in net.provider.take()] == [100, 500]


def test_example_1_21() -> None:
    """The seed's: $uac_req(method)="OPTIONS"; $uac_req(ruri)="sip:kamailio.org"; …; uac_req_send();"""
    net = Net()

    def request_route(context: Any) -> None:
        uac_req = context.uac_req
        uac_req["method"] = "OPTIONS"
        uac_req["ruri"] = "sip:kamailio.org"
        uac_req["furi"] = "sip:kamailio.org"
        uac_req["turi"] = "sip:kamailio.org"
        context.uac_req_send()
        context.sl_send_reply(200, "OK")

    net.routing.decide = request_route
    elsewhere = net.wire.station(*ELSEWHERE)
    net.wire.hosts["kamailio.org"] = [Target("udp", ELSEWHERE)]
    net.send(net.provider, net.invite(method=b"MESSAGE"))
    options = parse(elsewhere.take()[0])
    assert options.start == b"OPTIONS sip:kamailio.org SIP/2.0"
    assert options.from_.uri == options.to.uri == b"sip:kamailio.org"


@pytest.mark.parametrize("late", [False, True])
def test_a_hook_on_real_sockets_may_send_before_and_after_it_waited(late: bool) -> None:
    heard: list[UacReply] = []

    async def request_route(scope: dict[str, Any], receive: Any, send: Any) -> None:
        context = scope["extensions"]["sip.context"]
        if late:
            await asyncio.sleep(0.01)
        context.uac_req.method, context.uac_req.ruri = "OPTIONS", f"sip:127.0.0.1:{context.source[1]}"
        context.uac_req.evroute = 1
        context.uac_req_send()
        assert not context.core.transactions.clients, "it waits for what runs now"
        if late:
            await asyncio.sleep(0.1)
            assert heard, "it left at once, not when the hook ended"
        context.sl_send_reply(200, "OK")

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scope["extensions"]["sip.context"].sl_send_reply(200, "OK")

    async def main() -> None:
        ours, theirs = [
            SipServer(
                Endpoint(
                    Configuration(), application=AsgiApplication(application, HookSteps().step),
                    admission=lambda flow: True, entropy=entropy_from(b"x"),
                ),
                ["udp:127.0.0.1:0"], lambda: None,
            )
            for application in (request_route, answer)
        ]  # fmt: skip
        await ours.start()
        await theirs.start()
        ours.endpoint.uac_requests.event_uac_reply = heard.append
        ended: asyncio.Future[UacReply] = asyncio.get_running_loop().create_future()
        uac_req = UacRequest()
        uac_req.method, uac_req.ruri = "MESSAGE", f"sip:127.0.0.1:{ours.endpoint.listeners[0].port}"
        theirs.endpoint.uac_requests.begin(uac_req, ended.set_result)
        async with asyncio.timeout(5):
            assert (await ended).evcode == 200
            while not heard:
                await asyncio.sleep(0.005)
        assert heard[0].evcode == 200
        await ours.stop(0)
        await theirs.stop(0)

    asyncio.run(main())
