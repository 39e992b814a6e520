"""Tell SIP workers that something was written: they look at once instead of at their next poll.

A wake-up carries nothing and may be lost; the poll is the safety net. So it never fails the writer.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable

from django.conf import settings

if not settings.TRUNKMGR.embedded:
    # Loaded before any commit, because loading takes longer than a wake-up may; embedded commands need neither.
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer

    get_channel_layer()

log = logging.getLogger("trunkmgr.wake")

#: Whether the last wake-up was lost; only the first loss in a row is worth a line.
_lost = False


def wake(nodes: Iterable[str]) -> None:
    """Wake the workers called `nodes`: through the shared channel layer, else by one byte to `node.sock`."""
    global _lost
    env = settings.TRUNKMGR
    try:
        for node in nodes:
            if env.embedded:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as unix:
                    unix.sendto(b"\0", str(env.node_socket))
            else:
                _send(f"sip.{node}")
    except Exception as error:  # a dead Redis, a stopped worker, a full buffer: the poll finds what was written
        if not _lost:
            log.warning("A SIP worker could not be woken (%s); it looks by itself within a second.", error)
        _lost = True
    else:
        _lost = False


def _send(channel: str) -> None:
    async_to_sync(get_channel_layer().send)(channel, {"type": "node.wake"})
