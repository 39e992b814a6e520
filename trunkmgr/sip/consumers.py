"""Consumers of the scopes `sip` (a request to be routed) and `channel` (messages for the worker)."""

from __future__ import annotations

from typing import Any

from channels.consumer import AsyncConsumer


class SipConsumer(AsyncConsumer):
    """Base of routing classes: one instance a response context, whose hooks it holds.

    `request_route(context)` decides where a new request goes, `failure_route(context)` what comes next when nobody took
    it; both may await.  `branch_route(context)` edits each copy that leaves, `onreply_route(context, message)` each
    response, `local_route(message, flow)` each request of our own; these may not.  Only the first must be there.

    The stock `__call__` would open a queue and a channel and hop to a thread for each request (61 to 135 µs); this
    one runs `request_route` at once and stays bound to the context, which calls the other hooks as plain methods.
    """

    scope: dict[str, Any]

    @property
    def context(self) -> Any:
        """The response context that this instance routes."""
        return self.scope["extensions"]["sip.context"]

    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> Any:
        """Return the ASGI callable; not a coroutine function around the consumer's own coroutine, as the stock one."""

        def application(scope: dict[str, Any], receive: Any, send: Any) -> Any:
            return cls(**initkwargs)(scope, receive, send)

        return application

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scope = scope
        context = scope["extensions"]["sip.context"]
        context.routing = self
        await self.request_route(context)

    async def request_route(self, context: Any) -> None:
        """Decide where a new request goes."""
        raise NotImplementedError

    def event_uac_reply(self, reply: Any) -> Any:
        """Hear how a request of `uac_req_send` ended that asked for it by `evroute` (event_route[uac:reply]).

        `reply` has `evcode`, `evtype`, `evparam`, `uac_req` and the answer as `message` (None: there was none). It may
        be a coroutine.
        """


class SipControlConsumer(AsyncConsumer):
    """What Celery and the web have to say to the SIP worker of this process."""

    async def node_wake(self, message: dict[str, Any]) -> None:
        """Something was written that concerns this worker: a change or an order."""
        self.scope["sip.worker"].wake()

    async def registrations_plan(self, message: dict[str, Any]) -> None:
        """Beat's plan: `[[l_uuid, generation, ISO time], …]`."""
        self.scope["sip.worker"].plan(message["plans"])
