"""Calls an ASGI application once for each response context: scope type `sip`, nothing received, nothing sent.

The coroutine is stepped by hand (`sipengine.asyncio.tasks`): one that never suspends costs no task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sipengine.proxy.context import ResponseContext
from sipengine.proxy.hooks import Step

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


async def receive() -> dict[str, Any]:
    """A response context has no stream of events: what is to be known is in the scope."""
    raise RuntimeError("a sip scope receives no messages; read scope['extensions']['sip.context']")


async def send(message: dict[str, Any]) -> None:
    raise RuntimeError("a sip scope sends no messages; call the verbs of scope['extensions']['sip.context']")


class AsgiApplication:
    """The `application` of an Endpoint."""

    def __init__(self, application: Asgi, step: Step) -> None:
        self.application = application
        self.step = step

    def __call__(self, context: ResponseContext) -> None:
        context.step = self.step
        flow = context.flow
        listener = flow.listener
        scope = {
            "type": "sip",
            "method": context.method.decode("ascii", "replace"),
            "client": flow.remote,
            "server": (listener.host, listener.port),
            "transport": listener.transport,
            "extensions": {"sip.context": context},
        }
        self.step(self.application(scope, receive, send), context.routed)
