"""What would happen to a request: the order `dry_run` and its answer.

The request is received by an engine of its own that has no socket: the same configuration, admission, middleware and
routing class as the one that works, so no rule is written twice.  Names are resolved; nothing is sent, stored or
counted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any

from sipengine.asgi import AsgiApplication
from sipengine.asyncio.server import local_address
from sipengine.endpoint import Endpoint
from sipengine.events import ResolutionWanted
from sipengine.exceptions import ResolutionError
from sipengine.message.message import parse
from sipengine.proxy.context import ResponseContext
from sipengine.transport.flow import Flow, Listener
from trunkmgr.sip.middleware import PROVIDER, PeerMiddleware
from trunkmgr.sip.rules import RULES, Refusals

Result = dict[str, Any]

#: Seconds that a routing class and the names of next hops may take.
PATIENCE = 3.0


class DryRun:
    """One request; `worker` is the one whose rules are asked."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._refusals = Refusals(quiet=True)
        self._contexts: list[ResponseContext] = []
        self._decided = asyncio.Event()
        admission = worker.admission
        # What a routing class may ask of its worker, and nothing that it could make it do.
        asked = SimpleNamespace(
            admission=admission, call=lambda *args: None, writes=SimpleNamespace(put=lambda *args: True),
            endpoint=SimpleNamespace(
                registrations=worker.endpoint.registrations, uac_requests=SimpleNamespace(send=lambda *args: True),
                location=worker.endpoint.location, registrar=worker.endpoint.registrar,
                calls_of=worker.endpoint.calls_of, room=None,
            ),
        )
        middleware = PeerMiddleware(worker.middleware.application, admission, asked)
        middleware.refusals = self._refusals
        self._application = AsgiApplication(middleware, self._step)
        self.endpoint = Endpoint(
            worker.endpoint.configuration, application=self._route, admission=admission.admits, entropy=os.urandom,
            local_address=local_address, peers=admission,
        )
        self.endpoint.may_register = admission.takes_devices
        self.endpoint.credentials_of = worker.endpoint.credentials_of
        self.endpoint.resume = lambda verb: verb(time.monotonic())
        for each in worker.endpoint.listeners:
            self.endpoint.add_listener(each.transport, each.host, each.port, each.sent_by or None)

    def _route(self, context: ResponseContext) -> None:
        self._contexts.append(context)
        self._application(context)

    def _step(self, hook: Coroutine[Any, Any, Any], on_done: Callable[[BaseException | None], None]) -> None:
        def done(error: BaseException | None) -> None:
            on_done(error)
            self._decided.set()

        self._worker.steps.step(hook, done)

    async def run(self, asked: Mapping[str, Any]) -> Result:
        """Say which rule decides, and what comes of it; `asked` is checked (`services.routes`)."""
        listener = self._listener(asked.get("transport", "udp"), asked.get("socket", ""))
        if listener is None:
            return {"ok": False, "message": f"No socket of this SIP worker is {asked.get('socket') or 'of that kind'}."}
        endpoint, remote, now = self.endpoint, (asked["source"], 5060), time.monotonic()
        stream = listener.transport != "udp"
        flow = endpoint.accept(listener, remote) if stream else endpoint.flow_for(listener, remote)
        if flow is not None:
            endpoint.receive(_request(asked, flow), flow, now, stream)
            await self.settle(now + PATIENCE)
        return self._told(flow or Flow(listener, remote, accepted=True))

    def _listener(self, transport: str, socket: str) -> Listener | None:
        for each in self.endpoint.listeners:
            if repr(each) == socket or (not socket and each.transport == transport):
                return each
        return None

    async def settle(self, until: float) -> None:
        """Let the routing class decide and names be resolved, until nothing more is wanted or the time is over."""
        endpoint = self.endpoint
        if self._contexts:
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._decided.wait()
            except TimeoutError:
                return
        while time.monotonic() < until:
            wanted = [event for event in endpoint.events if isinstance(event, ResolutionWanted)]
            endpoint.events.clear()
            if not wanted:
                return
            for query in wanted:
                try:
                    async with asyncio.timeout(max(0.1, until - time.monotonic())):
                        endpoint.resolved(query, await self._worker.server.resolver.resolve(query), time.monotonic())
                except (ResolutionError, TimeoutError) as error:
                    failed = error if isinstance(error, ResolutionError) else ResolutionError("no answer in time")
                    endpoint.resolved(query, failed, time.monotonic())

    def _told(self, flow: Flow) -> Result:
        out = [(parse(data, False), to) for data, to in self.endpoint.out]
        sent = [(message, to) for message, to in out if not message.start.startswith(b"SIP/2.0")]
        answers = [
            message.start[8:].decode("utf-8", "replace") for message, _ in out
            if message.start.startswith(b"SIP/2.0") and message.status > 100
        ]
        context = self._contexts[0] if self._contexts else None
        marks = context.marks if context is not None else None
        rule = next(iter(self._refusals.counts), "")
        account = marks.l_uuid if marks is not None else ""
        if not rule and context is None:
            rule = self._worker.admission.refusing(flow) or ("stray" if self.endpoint.counters.stray else "")
        elif not rule and sent:
            inward = marks.direction == "in" if marks is not None else self._kind(flow) & PROVIDER
            rule = "inbound" if inward else "outbound"
        elif not rule and marks is not None and answers:
            rule = "no_way"
        elif not rule and context is not None and answers:
            rule = {b"OPTIONS": "options", b"REGISTER": "register"}.get(context.method, "")
        request, to = sent[0] if sent else (None, None)
        answer = answers[0] if answers else ""
        goes_to = "" if to is None else f"{to.listener.transport}:{to.remote[0]}:{to.remote[1]}"
        outcome = f"It goes to {goes_to}" if goes_to else f"It is answered {answer}" if answer else "It gets no answer"
        says = RULES.get(rule, "The routing class decides this by a rule of its own.")
        return {
            "ok": True, "message": f"{outcome}. {says}", "rule": rule, "says": says, "account": account,
            "goes_to": goes_to, "answer": answer,
            "request": "" if request is None else request.start.decode("utf-8", "replace"),
            "shown_as": "" if request is None else (request.get(b"From") or b"").decode("utf-8", "replace"),
        }

    def _kind(self, flow: Flow) -> int:
        kind: int = self._worker.admission.kind(flow.remote[0])
        return kind


def _request(asked: Mapping[str, Any], flow: Flow) -> bytes:
    method, ruri, furi = (asked[name].encode() for name in ("method", "ruri", "furi"))
    host = flow.remote[0].encode()
    host = b"[%b]" % host if b":" in host else host
    return (
        b"%b %b SIP/2.0\r\nVia: SIP/2.0/%b %b:5060;branch=z9hG4bK%b;rport\r\nMax-Forwards: 70\r\n"
        b"From: <%b>;tag=dry\r\nTo: <%b>\r\nCall-ID: %b\r\nCSeq: 1 %b\r\nContact: <sip:%b>\r\nContent-Length: 0\r\n\r\n"
    ) % (
        method, ruri, flow.listener.transport.upper().encode(), host, os.urandom(8).hex().encode(),
        furi, ruri.partition(b";")[0], os.urandom(8).hex().encode(), method, host,
    )
