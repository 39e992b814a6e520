"""A proxy for scenarios of others: the shipped engine with a routing of one line, as a process of its own.

usage: python relay.py LISTEN TARGETS     LISTEN: 127.0.0.1:5060 (UDP and TCP); TARGETS: host:port; `,` forks, `>` hunts

Relays every new request to the targets, hides nothing, stays in the path.  SIGTERM ends it and prints what is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys

from sipengine.asyncio.server import SipServer
from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.proxy.context import ResponseContext


class Relay:
    def __init__(self, targets: str) -> None:
        self.rounds = [group.split(",") for group in targets.split(">")]
        self.hunts: dict[str, int] = {}

    def __call__(self, context: ResponseContext) -> None:
        context.routing = self
        context.record_route()
        self.aim(context, 0)
        context.routed()

    def aim(self, context: ResponseContext, turn: int) -> None:
        first, *others = [f"sip:{context.rU}@{target}" for target in self.rounds[turn]]
        self.hunts[context.call_id] = turn
        context.ruri = first
        for uri in others:
            context.append_branch(uri)
        context.t_relay()

    def failure_route(self, context: ResponseContext) -> None:
        turn = self.hunts[context.call_id] + 1
        if turn < len(self.rounds):
            self.aim(context, turn)


async def run(listen: str, targets: str) -> None:
    endpoint = Endpoint(
        Configuration(), application=Relay(targets), admission=lambda flow: True, entropy=os.urandom
    )
    server = SipServer(endpoint, [f"udp:{listen}", f"tcp:{listen}"], endpoint.events.clear)
    await server.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await ended.wait()
    await server.stop(0)
    sys.stdout.write(json.dumps(endpoint.counters.as_dict()))


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
