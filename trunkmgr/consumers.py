"""The websocket of the status pages (`/ws/status/`): everything at first, then what changed, and a beat.

A message of the group only says *whose* picture is stale.  The rows are read here, gathered to two reads a second, so
that a page always gets the newest state, in one shape, and a burst of a thousand registrations is a few messages.
Beats carry the workers' pulse and the sums of the table, by which a page finds out that a message was lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from urllib.parse import parse_qs

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.contrib.auth import get_user_model
from django.db import DatabaseError
from django.db.models import Count, Sum
from django.utils import timezone

from trunkmgr import live, payloads, selectors
from trunkmgr.models import Node, Registration

log = logging.getLogger("trunkmgr.live")

#: Seconds between beats; a page counts the connection as lost after 10 s without a message.
BEAT = 2.5
#: Seconds over which changes gather.
GATHER = 0.5
#: A page that is not allowed to look (any more); it offers to sign in.
SIGNED_OUT = 4403
#: Rows of one read.
CHUNK = 500


class StatusConsumer(AsyncWebsocketConsumer):
    """One open page.  `?view=board` gets rows; `trunk` (with `l_uuid`) and `calls` are told when to fetch anew."""

    view = "board"
    only = ""
    background: set[asyncio.Task[None]]

    async def connect(self) -> None:
        self.background = set()
        self._stale: set[str] = set()
        self._called: set[str] = set()
        self._flushing = False
        self._nodes: list[Node] = []
        # Parts of a snapshot and changes must not mix.
        self._sending = asyncio.Lock()
        await self.accept()
        if not await self._may_look():
            await self.close(SIGNED_OUT)
            return
        query = parse_qs(self.scope["query_string"].decode("utf-8", "replace"))
        self.view, self.only = query.get("view", ["board"])[0], query.get("l_uuid", [""])[0]
        # Joined before the first read: what changes meanwhile comes after it.
        await self.channel_layer.group_add(live.GROUP, self.channel_name)
        if self.view == "board":
            await self._send_snapshot()
        else:
            await self._send({"kind": "hello", "now": payloads.epoch(timezone.now())})
        self._start(self._beats())

    async def disconnect(self, code: int) -> None:
        for task in self.background:
            task.cancel()
        await self.channel_layer.group_discard(live.GROUP, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            wish = json.loads(text_data or "{}")
        except ValueError:
            return
        wanted = isinstance(wish, dict) and wish.get("want") == "snapshot"
        if wanted and self.view == "board" and await self._may_look():
            await self._send_snapshot()

    async def live_text(self, message: dict[str, Any]) -> None:
        """Note whose picture is stale; the reading is left to `_flush`."""
        for item in json.loads(message["text"])["items"]:
            l_uuid = item.get("l_uuid")
            if l_uuid is None or (self.only and l_uuid != self.only):
                continue
            if item["type"] == "call":
                self._called.add(l_uuid)
            elif self.view != "calls":
                self._stale.add(l_uuid)
        if (self._stale or self._called) and not self._flushing:
            self._flushing = True
            self._start(self._flush())

    async def _flush(self) -> None:
        try:
            while self._stale or self._called:
                stale, called = self._stale, self._called
                self._stale, self._called = set(), set()
                async with self._sending:
                    if self.view == "board":
                        for changes in await _changes(stale, called):
                            await self._send(changes)
                    else:
                        await self._send({"kind": "stale"})
                await asyncio.sleep(GATHER)
        except DatabaseError as error:
            log.warning("A status page missed changes, the database does not answer: %s", error)
        finally:
            self._flushing = False

    async def _send_snapshot(self) -> None:
        async with self._sending:
            self._nodes, messages = await _snapshot()
            for text in messages:
                await self.send(text)
                await asyncio.sleep(0)

    async def _beats(self) -> None:
        before: list[dict[str, Any]] = []
        while True:
            await asyncio.sleep(BEAT)
            beat: dict[str, Any] = {"kind": "beat"}
            try:
                if not await self._may_look():
                    await self.close(SIGNED_OUT)
                    return
                self._nodes, table = await _pulse(self.view == "board")
                beat["notices"] = await _notices()
                beat |= table
            except DatabaseError as error:
                # The workers' last pulse grows old in the page, as it shall.
                log.warning("Status pages get no news, the database does not answer: %s", error)
            now = timezone.now()
            nodes = [payloads.node_row(node, now) for node in [*self._nodes, None]]
            pulse = [{"name": node["name"], "cause": node["cause"], "late": node["late"]} for node in nodes]
            if self.view == "trunk" and before and pulse != before:
                # Nobody tells of a worker that fell silent.
                await self._send({"kind": "stale"})
            before = pulse
            await self._send(beat | {"now": payloads.epoch(now), "nodes": nodes})

    async def _send(self, payload: dict[str, Any]) -> None:
        await self.send(payloads.dumps(payload))

    def _start(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self.background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Most likely the browser is gone; a page that is not finds out by the missing beat and connects again.
            log.info("A status page's connection ended: %s", error or type(error).__name__)

    async def _may_look(self) -> bool:
        user = self.scope.get("user")
        return user is not None and user.pk is not None and await _is_staff(user.pk)


@database_sync_to_async
def _is_staff(pk: int) -> bool:
    return get_user_model().objects.filter(pk=pk, is_active=True, is_staff=True).exists()


@database_sync_to_async
def _notices() -> list[str]:
    return selectors.notices()


@database_sync_to_async
def _snapshot() -> tuple[list[Node], list[str]]:
    now, nodes = timezone.now(), list(Node.objects.all())
    rows = [payloads.registration_row(registration) for registration in selectors.board_rows()]
    pulses = [payloads.node_row(node, now) for node in [*nodes, None]]
    return nodes, [payloads.dumps(part) for part in payloads.snapshot(rows, pulses, payloads.calls_going_on())]


@database_sync_to_async
def _changes(stale: set[str], called: set[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    names = sorted(stale)
    for start in range(0, len(names), CHUNK) or [0]:
        chunk = names[start:start + CHUNK]
        rows = [payloads.registration_row(each) for each in selectors.board_rows(chunk)] if chunk else []
        removed = sorted(set(chunk) - {row["l_uuid"] for row in rows})
        found.append({"kind": "changes", "rows": rows, "removed": removed, "calls": {}})
    if called:
        counts = payloads.calls_going_on()
        found[-1]["calls"] = {l_uuid: counts.get(l_uuid, 0) for l_uuid in sorted(called)}
    return found


@database_sync_to_async
def _pulse(board: bool) -> tuple[list[Node], dict[str, Any]]:
    nodes = list(Node.objects.all())
    if not board:
        return nodes, {}
    states = Registration.objects.order_by().values_list("state").annotate(Count("pk"), Sum("generation"))
    return nodes, {
        "sums": {state: [number, generations] for state, number, generations in states},
        "calls": payloads.calls_going_on(),
    }
