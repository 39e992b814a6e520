"""Requests of operators: an order `uac_req_send` becomes a `$uac_req`, its reply the order's result.  And replies to
requests from script, which the routing class hears of.

The keys are the seed's.  An account or a credential is named by its id, and read from the picture that the worker has;
a password that was given for this once comes sealed in the order's row.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from sipengine.message.message import Message
from sipengine.uac.account import UacAccount
from sipengine.uac.digest import Credentials
from sipengine.uac.lookup import escape_user
from sipengine.uac.send import UacReply, UacRequests
from sipengine.uac.uac_req import UacRequest
from trunkmgr.causes import CAUSES, answer
from trunkmgr.exceptions import UndecryptableSecret
from trunkmgr.models import Order
from trunkmgr.sip.clock import Clock
from trunkmgr.sip.snapshot import Snapshot
from trunkmgr.sip.uac_req import uac_req_of

log = logging.getLogger("trunkmgr.sip")

Result = dict[str, Any]

#: Bytes of an answer's body that the result keeps.
BODY_KEPT = 4096


class OperatorRequests:
    """Sends what orders ask for and waits for the reply."""

    def __init__(
        self, requests: UacRequests, call: Callable[..., Any], clock: Clock, picture: Callable[[], Snapshot],
    ) -> None:
        self._requests = requests
        self._call = call
        self._clock = clock
        self._picture = picture

    async def run(self, order: Order) -> Result:
        """Send it, and wait for its end or for the order's deadline, which ends it."""
        payload, picture = order.payload, self._picture()
        try:
            uac_req = uac_req_of(payload.get("keys", {}), order.secret.reveal())
        except UndecryptableSecret:
            return {"ok": False, "message": "This SIP worker has other TRUNKMGR_FIELD_KEYS than who sent the order."}
        credentials: tuple[Credentials, ...] = ()
        if l_uuid := payload.get("l_uuid"):
            trunk = picture.trunks.get(l_uuid)
            credentials = picture.credentials_for(trunk) if trunk else ()
            if trunk is None or not credentials:
                what = "has no usable password" if trunk else "is not at this worker"
                return {"ok": False, "message": f"The account {l_uuid} {what}."}
            try:
                _send_as(trunk.account, uac_req)
            except ValueError as error:
                return {"ok": False, "message": f"The row of {l_uuid} makes no request: {error}."}
        elif number := payload.get("credential"):
            scoped = picture.credentials.get(number)
            if scoped is None:
                return {"ok": False, "message": f"The credential {number} is not at this worker."}
            credentials = (scoped.credentials,)
        ended: asyncio.Future[UacReply] = asyncio.get_running_loop().create_future()

        def on_reply(reply: UacReply) -> None:
            if not ended.done():  # the worker may have stopped waiting, because it stops
                ended.set_result(reply)

        exchange = self._requests.begin(uac_req, on_reply, credentials)
        if exchange is None:
            return {"ok": False, "message": "Too many requests are under way; try again in a moment."}
        left = self._clock.at(order.deadline) - self._clock.now()
        await asyncio.wait([ended], timeout=max(0.0, left))
        if not ended.done():
            self._call(exchange.abandon)
        return result_of(await ended)


def _send_as(account: UacAccount, uac_req: UacRequest) -> None:
    """Fill in what the account says; where it goes is never left to others."""
    uac_req.furi = uac_req.furi or b"sip:%b@%b" % (escape_user(account.r_username), account.r_domain.encode())
    # Nobody but its provider is given a digest of the account's password.
    uac_req.ouri = account.auth_proxy.strip("<> ") or f"sip:{account.r_domain}"
    uac_req.sock = uac_req.sock or account.socket


class ReplyRoute:
    """Kamailio's event_route[uac:reply]: `event_uac_reply` of the routing class, which may await."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def __call__(self, reply: UacReply) -> None:
        worker = self._worker
        consumer = worker.routing()
        consumer.scope = {"type": "sip.event", "sip.snapshot": worker.admission.snapshot, "sip.worker": worker}
        hook = consumer.event_uac_reply(reply)
        if inspect.iscoroutine(hook):
            worker.steps.step(hook, partial(self._ended, reply))

    def _ended(self, reply: UacReply, error: BaseException | None) -> None:
        if error is not None:
            self._worker.endpoint.counters.hook_failures += 1
            log.error("event_uac_reply failed for %r: %s", reply.uac_req, error, exc_info=error)


def result_of(reply: UacReply) -> Result:
    """Say how it ended; nothing in it is ours but times and addresses."""
    outcome, message = reply.outcome, reply.message
    target = outcome.target
    at = "" if target is None else f"{target.transport}:{target.address[0]}:{target.address[1]}"
    took = None if outcome.sent_at is None or message is None else round(outcome.at - outcome.sent_at, 6)
    reason = reply.reason.replace("\0", "�")  # PostgreSQL stores no NUL
    told = answer(outcome.code, reason) if message is not None else reason
    if took is not None:
        told += f" from {at}, after {took * 1000:.0f} ms"
    if message is not None and outcome.cause in CAUSES:
        told += f" ({CAUSES[outcome.cause].short})"
    return {
        "ok": reply.evcode // 100 == 2 and message is not None, "message": told,
        "code": outcome.code, "reason": reason, "cause": outcome.cause, "evcode": reply.evcode,
        "evtype": reply.evtype, "target": at, "round_trip": took,
        **_shown(message),
    }


def _shown(message: Message | None) -> dict[str, Any]:
    if message is None:
        return {"headers": [], "body": ""}
    return {
        "headers": [_text(line) for line in message.lines],
        "body": _text(message.body[:BODY_KEPT]),
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\0", "�")
