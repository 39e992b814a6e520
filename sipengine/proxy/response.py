"""Responses on their way back: provisionals and 2xx at once, else the best when all branches ended (RFC 3261 §16.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sipengine.message.fields import CANONICAL, CONTENT_LENGTH, FROM, TO, VIA
from sipengine.message.message import Message
from sipengine.message.values import params_at, tag_of
from sipengine.proxy.hooks import ONREPLY_ROUTE, Verdict, log

if TYPE_CHECKING:
    from sipengine.proxy.branch import Branch
    from sipengine.proxy.context import ResponseContext

PREFERRED = (401, 407, 415, 420, 484)
"""4xx that help the client to try again (§16.7 step 6)."""


def forward(context: ResponseContext, status: int, message: Message, now: float) -> None:
    """Send a response towards the client in the client's own view; our Via is gone already."""
    server = context.server
    if server is None or (status < 200 and not server.invite):
        return  # RFC 4320 §4.1: nothing but 100 goes before the final answer to a request other than INVITE
    keys, lines = message.keys, message.lines
    if VIA not in keys:
        # §8.2.6.2: a response has all Vias of its request; a UAS that copied ours alone has proved by its branch
        # which request it means, so §16.7 step 3 (a response without a Via is the element's own) is not meant.
        vias = [line for line in server.head if CANONICAL[line.partition(b":")[0]] is VIA]
        lines[:0] = vias
        keys[:0] = [VIA] * len(vias)
    if context.restore_from:
        lines[keys.index(FROM)] = context.from_line  # §8.2.6.2: a response's From is its request's, whatever came back
    if context.restore_to:
        i = keys.index(TO)
        line = context.to_line
        if not tag_of(line):
            line += lines[i][params_at(lines[i]) :]
        lines[i] = line
    if context.auth is not None:
        context.core.authenticator.translate(context, message, now)
    record = context.record
    if record is not None:
        context.core.within.on_response(context, record, status, message, now)
    if keys[-1] is not CONTENT_LENGTH and CONTENT_LENGTH not in keys:
        lines.append(b"Content-Length: %d" % len(message.body))
        keys.append(CONTENT_LENGTH)
    hook = context.on_reply
    if hook is not None:
        _onreply_route(context, hook, message)
    server.respond(status, message.serialize(), now)


def _onreply_route(context: ResponseContext, hook: Any, message: Message) -> None:
    route = context.route
    context.route, context.response = ONREPLY_ROUTE, message
    try:
        hook(context, message)
    except Exception as error:
        context.core.counters.hook_failures += 1
        log.error("onreply_route failed for call %s: %s", context.call_id, error, exc_info=error)
    context.route = route


def on_success(context: ResponseContext, branch: Branch, status: int, message: Message, now: float) -> None:
    """Forward a 2xx at once; of an INVITE every one, and the other branches are not wanted any more (steps 5, 10)."""
    if context.method == b"INVITE":
        if len(context.branches) > 1:
            cancel_others(context, branch, now, b'Reason: SIP;cause=200;text="Call completed elsewhere"\r\n')
    elif len(context.branches) > 1 and any(
        other.status // 100 == 2 for other in context.branches if other is not branch
    ):
        return
    first = context.server is not None and context.server.state < 2
    if context.auth is not None:
        context.core.authenticator.succeeded(context, branch, message, now)
    forward(context, status, message, now)
    if first:
        context.core.on_answered(context, status, message.reason, now)


def on_failed(context: ResponseContext, branch: Branch, now: float) -> None:
    """A branch ended without success."""
    if branch.status >= 600:
        cancel_others(context, branch, now, b"Reason: SIP;cause=%d\r\n" % branch.status)
    if any(not other.status for other in context.branches):
        return
    if any(other.status // 100 == 2 for other in context.branches):
        return
    best = choose(context)
    if (
        context.auth is not None and context.direction and best.status in (401, 407) and not context.cancelled
        and context.core.authenticator.again_within(context, now)
    ):
        return
    context.status, context.response = best.status, best.reply
    hook = context.failure_hook
    may_hunt = not context.cancelled and len(context.branches) < context.core.configuration.max_targets
    if hook is not None and may_hunt:
        if context.on_failure:
            hook = getattr(context.routing, context.on_failure)
            context.on_failure = ""
        context.verdict = Verdict.NONE
        context.appended = ()
        context.core.now = now
        context.run_hook(hook)
    else:
        send_best(context, now)


def cancel_others(context: ResponseContext, branch: Branch, now: float, reason: bytes) -> None:
    """CANCEL what is still under way and say why (RFC 3326)."""
    for other in context.branches:
        if other is not branch and not other.status:
            other.cancel(now, reason)


def choose(context: ResponseContext) -> Branch:
    """Best final response (§16.7 step 6): any 6xx, else the lowest class, and within it what the client can act on."""
    failed = [branch for branch in context.branches if branch.status >= 300]

    def rank(branch: Branch) -> tuple[int, bool, bool]:
        status = branch.status
        return (0 if status >= 600 else status // 100, status not in PREFERRED, branch.reply is None)

    return min(failed, key=rank)


def send_best(context: ResponseContext, now: float) -> None:
    server = context.server
    if server is None:
        return
    best = choose(context)
    status, reply = best.status, best.reply
    if context.cancelled and status != 487:
        context.answer(487, now)
    elif status == 408 and not server.invite:
        context.core.on_answered(context, 408, b"", now)
        server.vanish(now)  # RFC 4320 §4.2: nobody gets a 408, not even one that came from afar
    elif reply is None:
        context.answer(500 if status == 503 else status, now)
    else:
        if status == 503:
            # §16.7 step 6: 503 would make the client avoid us, not the server behind us
            status = 500
            reply.start = b"SIP/2.0 500 Server Internal Error"
        if status in (401, 407):
            _aggregate(context, best, reply)
        reason = reply.reason
        forward(context, status, reply, now)
        context.core.on_answered(context, status, reason, now)


def _aggregate(context: ResponseContext, best: Branch, reply: Message) -> None:
    """The challenges of all branches go into one answer, in order (§16.7 step 7)."""
    for branch in context.branches:
        if branch is best or branch.reply is None or branch.status not in (401, 407):
            continue
        for name in (b"WWW-Authenticate", b"Proxy-Authenticate"):
            for value in branch.reply.get_all(name):
                reply.append(name + b": " + value)

