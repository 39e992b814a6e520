"""What a request leaves behind: nothing, and without the help of the garbage collector."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from sipengine.message import parse
from sipengine.proxy.context import ResponseContext
from tests.sipengine.net import Net, reply


class Application:
    """An ASGI application as it is met: it keeps its scope, the scope keeps the context, the context its hooks."""

    def __init__(self, net: Net, context: ResponseContext) -> None:
        self.scope: dict[str, Any] = {"extensions": {"sip.context": context}}
        self.net = net

    def request_route(self, context: ResponseContext) -> None:
        if context.method == b"OPTIONS":
            context.sl_send_reply(200, "OK")
        else:
            context.t_on_failure("failure_route")
            self.net.routing.inbound(context)

    async def failure_route(self, context: ResponseContext) -> None:
        context.t_on_branch("branch_route")

    def branch_route(self, context: ResponseContext) -> None:
        return

    def onreply_route(self, context: ResponseContext, message: Any) -> None:
        return


@pytest.mark.parametrize("method", [b"OPTIONS", b"INVITE", b"MESSAGE"])
@pytest.mark.parametrize("status", [b"200 OK", b"486 Busy Here", b""])
def test_a_request_is_freed_when_its_transactions_end(method: bytes, status: bytes) -> None:
    net = Net()
    net.routing.contexts = type("Nothing", (list,), {"append": lambda self, item: None})()
    alive: list[weakref.ref[Application]] = []

    def decide(context: ResponseContext) -> None:
        application = Application(net, context)
        alive.append(weakref.ref(application))
        context.routing = application
        application.request_route(context)

    net.routing.decide = decide

    def answer(data: bytes, source: tuple[str, int]) -> None:
        if status and data[:3] != b"ACK":
            net.phone.send(reply(parse(data), status), source)

    net.phone.on_receive = answer
    gc.collect()
    gc.disable()
    try:
        net.send(net.provider, net.invite(method=method))
        net.run(500)
        assert len(alive) == 1
        assert alive[0]() is None, "a cycle keeps the request, and with it its message, until the collector comes"
    finally:
        gc.enable()
