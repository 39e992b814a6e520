"""The five route hooks and what a hook decides (Kamailio's routing blocks as methods).

`request_route` and `failure_route` decide where and may be coroutines; `branch_route` and `onreply_route` edit what
and may not.  `local_route` is the endpoint's, called with the message: requests of our own have no context.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any

log = logging.getLogger("sipengine")

REQUEST_ROUTE, BRANCH_ROUTE, ONREPLY_ROUTE, FAILURE_ROUTE = (
    "request_route", "branch_route", "onreply_route", "failure_route"
)  # fmt: skip

OnDone = Callable[[BaseException | None], None]
Step = Callable[[Coroutine[Any, Any, Any], OnDone], None]
"""Runs a coroutine until it ends or suspends and calls `on_done` at its end (`sipengine.asyncio.tasks`)."""


class Verdict(Enum):
    """What becomes of a request once its hook returned; the hook's last word counts."""

    NONE = "none"
    RELAY = "relay"
    REPLY = "reply"
    DROP = "drop"


def step_at_once(hook: Coroutine[Any, Any, Any], on_done: OnDone) -> None:
    """Step for hooks that never suspend; one that does is an error of its author."""
    try:
        hook.send(None)
    except StopIteration:
        on_done(None)
    except Exception as error:
        on_done(error)
    else:
        hook.close()
        on_done(RuntimeError("the hook suspended, but nothing here can resume it"))
