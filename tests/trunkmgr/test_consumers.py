"""The websocket of the status pages: staff only, everything at first, then what changed, and a beat."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.db import DatabaseError
from django.utils import timezone

from tests.trunkmgr.pages import PASSWORD, node, trunk
from trunkmgr import consumers, live, payloads
from trunkmgr.models import Call, Node, Registration, UacReg
from trunkmgr.services import accounts

pytestmark = pytest.mark.django_db


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test so that database work happens in this thread, in the test's transaction."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async_to_sync(test)(*args, **kwargs)

    return run


@pytest.fixture
def staff() -> User:
    return User.objects.create_user("op", is_staff=True)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "BEAT", 60.0)
    monkeypatch.setattr(consumers, "GATHER", 0.01)
    # As Django's own test client does: the connection carries the test's transaction, and must not be closed.
    monkeypatch.setattr("channels.db.close_old_connections", lambda: None)


class Page:
    """An open page, at ASGI level: `channels.testing` would want daphne."""

    def __init__(self, user: Any, query: str = "view=board") -> None:
        scope = {
            "type": "websocket", "path": "/ws/status/", "query_string": query.encode(), "headers": [],
            "subprotocols": [], "user": user,
        }
        self.socket = ApplicationCommunicator(consumers.StatusConsumer.as_asgi(), scope)

    async def __aenter__(self) -> Page:
        await self.socket.send_input({"type": "websocket.connect"})
        assert (await self.output())["type"] == "websocket.accept"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.socket.send_input({"type": "websocket.disconnect", "code": 1001})
        await self.socket.wait()

    async def output(self) -> dict[str, Any]:
        output = await self.socket.receive_output(3)
        assert isinstance(output, dict)
        return output

    async def read(self) -> dict[str, Any]:
        message = json.loads((await self.output())["text"])
        assert isinstance(message, dict)
        return message

    async def send(self, text: str | None = None, data: bytes | None = None) -> None:
        await self.socket.send_input({"type": "websocket.receive", "text": text, "bytes": data})

    async def silent(self) -> bool:
        return bool(await self.socket.receive_nothing(timeout=0.1, interval=0.01))


@pytest.mark.parametrize("user", [None, AnonymousUser(), "customer"])
@in_loop
async def test_others_are_told_to_sign_in_and_get_nothing(user: Any) -> None:
    if user == "customer":
        user = await User.objects.acreate(username="customer")
    await sync_to_async(lambda: trunk("one", node()))()
    async with Page(user) as page:
        closed = await page.output()
        assert (closed["type"], closed["code"]) == ("websocket.close", consumers.SIGNED_OUT)
        await live.apublish(["one"])
        assert await page.silent()


@in_loop
async def test_a_board_begins_with_everything(staff: User) -> None:
    def rows() -> None:
        edge = node()
        trunk("one", edge)
        trunk("two", edge, "refused", cause="wrong_password", code=401, reason="Unauthorized")
        Call.objects.create(key="k", call_id="c", l_uuid="one", direction="in", started_time=timezone.now())

    await sync_to_async(rows)()
    async with Page(staff) as page:
        first = await page.read()
        one, two = (dict(zip(first["fields"], row, strict=True)) for row in first["rows"])
        assert (first["kind"], first["last"], first["calls"]) == ("snapshot", True, {"one": 1})
        assert (one["l_uuid"], one["state"], one["worker"], one["provider"]) == ("one", "ok", "edge-1", "Rheintel")
        assert (two["state"], two["why"], two["code"]) == ("ref", "Password refused", 401)
        assert first["advice"]["two"][0] == "The provider does not accept the password."
        assert [(each["name"], each["cause"]) for each in first["nodes"]] == [("edge-1", ""), ("", "no_worker")]
        assert abs(first["now"] - timezone.now().timestamp()) < 5
        assert PASSWORD not in payloads.dumps(first)


@in_loop
async def test_changes_come_gathered_and_fresh(staff: User) -> None:
    await sync_to_async(lambda: trunk("one", node(), "registering"))()
    async with Page(staff) as page:
        await page.read()
        await Registration.objects.aupdate(state="registered", code=200, reason="OK", generation=1)
        for _ in range(5):
            await live.apublish(["one"])
        changes = await page.read()
        assert (changes["kind"], changes["removed"]) == ("changes", [])
        (row,) = changes["rows"]
        assert (row["l_uuid"], row["state"], row["label"], row["code"]) == ("one", "ok", "Registered", 200)
        await asyncio.sleep(0.05)
        seen = 1
        while not await page.silent():
            await page.read()
            seen += 1
        assert seen <= 2


@in_loop
async def test_added_edited_and_deleted_accounts_show(staff: User) -> None:
    edge = await sync_to_async(node)()
    async with Page(staff) as page:
        assert (await page.read())["rows"] == []
        account = UacReg(l_uuid="new", l_username="u", l_domain="pbx.example", r_username="r", r_domain="sip.example")
        await sync_to_async(lambda: trunk("new", edge, "unregistered"))()
        await live.apublish(["new"])
        assert (await page.read())["rows"][0]["local"] == "user-new@pbx.example"
        await UacReg.objects.aupdate(l_username=account.l_username)
        await live.apublish(["new"])
        assert (await page.read())["rows"][0]["local"] == "u@pbx.example"
        await sync_to_async(accounts.remove)("new")
        await live.apublish(["new"])
        assert (await page.read())["removed"] == ["new"]


@in_loop
async def test_calls_are_counted(staff: User) -> None:
    await sync_to_async(lambda: trunk("one", node()))()
    async with Page(staff) as page:
        await page.read()
        call = await Call.objects.acreate(
            key="k", call_id="c", l_uuid="one", direction="in", started_time=timezone.now(),
        )
        await live.apublish([], ["one"])
        changes = await page.read()
        assert (changes["calls"], changes["rows"]) == ({"one": 1}, [])
        call.ended_time = timezone.now()
        await call.asave()
        await live.apublish([], ["one"])
        assert (await page.read())["calls"] == {"one": 0}


@pytest.mark.parametrize(("query", "trunks", "calls", "told"), [
    ("view=trunk&l_uuid=a%2Fb", ["a/b"], [], True),
    ("view=trunk&l_uuid=a%2Fb", [], ["a/b"], True),
    ("view=trunk&l_uuid=a%2Fb", ["other"], ["other"], False),
    ("view=calls", [], ["other"], True),
    ("view=calls", ["other"], [], False),
])
@in_loop
async def test_other_pages_hear_only_what_is_theirs(
    staff: User, query: str, trunks: list[str], calls: list[str], told: bool,
) -> None:
    async with Page(staff, query) as page:
        assert (await page.read())["kind"] == "hello"
        await live.apublish(trunks, calls)
        if told:
            assert await page.read() == {"kind": "stale"}
        else:
            assert await page.silent()


@in_loop
async def test_beats_carry_clock_pulse_and_sums(staff: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "BEAT", 0.05)

    def rows() -> None:
        edge = node(silent=20)
        trunk("one", edge, generation=4)
        trunk("two", edge, generation=5)
        trunk("bad", edge, "failing", cause="timeout", generation=9)

    await sync_to_async(rows)()
    async with Page(staff) as page:
        await page.read()
        beat = await page.read()
        assert beat["kind"] == "beat"
        assert beat["sums"] == {"registered": [2, 9], "failing": [1, 9]}
        assert beat["notices"] == []
        assert (beat["nodes"][0]["cause"], beat["nodes"][0]["why"]) == ("worker_silent", "Worker silent")
        await Node.objects.aupdate(heartbeat_time=timezone.now())
        while (beat := await page.read())["nodes"][0]["cause"]:
            pass
        assert beat["nodes"][0] == {"name": "edge-1", "cause": "", "late": False}


@in_loop
async def test_a_trunk_page_hears_that_its_worker_fell_silent(staff: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "BEAT", 0.05)
    await sync_to_async(lambda: trunk("one", node()))()
    async with Page(staff, "view=trunk&l_uuid=one") as page:
        assert (await page.read())["kind"] == "hello"
        assert [(await page.read())["kind"] for _ in range(3)] == ["beat"] * 3
        await Node.objects.aupdate(heartbeat_time=timezone.now() - timedelta(seconds=11))
        kinds = [(await page.read())["kind"] for _ in range(4)]
        assert kinds.count("stale") == 1


@in_loop
async def test_a_dead_database_ages_the_pulse_and_keeps_the_line(staff: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "BEAT", 0.05)
    await sync_to_async(lambda: trunk("one", node(silent=9.5)))()
    async with Page(staff) as page:
        assert (await page.read())["nodes"][0]["cause"] == ""

        async def fails(*_: Any) -> None:
            raise DatabaseError("gone")

        monkeypatch.setattr(consumers, "_pulse", fails)
        while not (beat := await page.read())["nodes"][0]["cause"]:
            assert beat["kind"] == "beat"
        assert beat["nodes"][0]["cause"] == "worker_silent"
        assert "sums" not in beat


@in_loop
async def test_who_loses_staff_loses_the_line(staff: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "BEAT", 0.05)
    async with Page(staff) as page:
        await page.read()
        await User.objects.aupdate(is_staff=False)
        while (output := await page.output())["type"] == "websocket.send":
            pass
        assert (output["type"], output["code"]) == ("websocket.close", consumers.SIGNED_OUT)


@in_loop
async def test_a_page_may_ask_for_a_fresh_snapshot_and_for_nothing_else(staff: User) -> None:
    async with Page(staff) as page:
        await page.read()
        await page.send(data=b"\x00")
        for nonsense in ("{not json", "[]", '"snapshot"', '{"want": "passwords"}', "{}"):
            await page.send(nonsense)
        assert await page.silent()
        await page.send('{"want": "snapshot"}')
        assert (await page.read())["kind"] == "snapshot"
