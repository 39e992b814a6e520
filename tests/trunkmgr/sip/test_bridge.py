"""Events to rows: coalescing, order, bounds, a database that fails, rows that nobody can store."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.db import DataError, OperationalError

from sipengine.events import (
    CallAnswered,
    CallEnded,
    CallStarted,
    DialogOver,
    DialogShifted,
    FurtherChanged,
    QualifyChanged,
    Reachability,
    RegistrationChanged,
    RegistrationState,
    Trigger,
)
from trunkmgr.sip import bridge as bridge_module
from trunkmgr.sip.bridge import Batch, Bridge
from trunkmgr.sip.clock import Clock

State = RegistrationState


def changed(l_uuid: str, state: State = State.REGISTERED, *, final: bool = True, **fields: Any) -> RegistrationChanged:
    values: dict[str, Any] = {
        "trigger": Trigger.BEAT, "cause": "", "code": 200, "reason": "OK", "granted": 60, "bound_until_at": 160.0,
        "next_attempt_at": 140.0, "generation": 1, "failures": 0, "call_id": "c", "cseq": 2, "from_tag": "t",
        "contact": "sip:x", "target": "udp:192.0.2.1:5060", "round_trip": 0.01, "realm_seen": "r",
        "at": 100.0, **fields,
    }
    return RegistrationChanged(l_uuid=l_uuid, state=state, final=final, **values)


def qualified(l_uuid: str, at: float, cause: str = "") -> QualifyChanged:
    state = Reachability.UNREACHABLE if cause == "options_silent" else Reachability.REACHABLE
    return QualifyChanged(l_uuid, state, cause, 200, "OK", "udp:192.0.2.1:5060", 0.02, at, at)


class Database:
    """Stands for the services: remembers batches, fails as told."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.error: Exception | None = None
        self.poison = ""
        self.tries = 0

    async def store(self, batch: Batch) -> None:
        self.tries += 1
        if self.error:
            raise self.error
        if any(row["l_uuid"] == self.poison for row in batch.registrations):
            raise DataError("the value is too long")
        self.batches.append(batch)

    @property
    def registrations(self) -> list[dict[str, Any]]:
        return [row for batch in self.batches for row in batch.registrations]

    @property
    def calls(self) -> dict[str, dict[str, Any]]:
        laid: dict[str, dict[str, Any]] = {}
        for batch in self.batches:
            for row in batch.calls:
                laid.setdefault(row["key"], {}).update(row)
        return laid


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `scenario(bridge, database, told)` with a bridge at work."""
    monkeypatch.setattr(bridge_module, "GATHER", 0.001)
    monkeypatch.setattr(bridge_module, "CALLS_EVERY", 0.01)

    def go(scenario: Callable[[Bridge, Database, list], Awaitable[None]]) -> Database:
        database, told = Database(), []

        async def publish(trunks: Any, calls: Any) -> None:
            told.append((set(trunks), set(calls)))

        async def main() -> None:
            clock = Clock(lambda: asyncio.get_running_loop().time())
            bridge = Bridge(clock, database.store, publish, lambda event: None)
            bridge.start()
            await scenario(bridge, database, told)
            await bridge.close(2.0)

        asyncio.run(main())
        return database

    return go


def test_the_last_state_is_written_and_what_ended_otherwise_becomes_history(run: Callable) -> None:
    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        bridge.fences["a"] = 3
        events = deque([
            changed("a", State.REGISTERING, final=False), changed("a", State.FAILING, code=503),
            changed("a", State.REGISTERING, final=False), changed("a", cseq=4),
            changed("a", State.REFRESHING, final=False), changed("a", cseq=5, unchanged=True),
            changed("a", State.REFRESHING, final=False), changed("a", cseq=6, unchanged=True, counted_to=99.0),
        ])
        bridge.take(events)
        assert not events, "the engine's queue is emptied at once"
        await asyncio.sleep(0.05)
        assert told == [({"a"}, set())]

    rows = run(scenario).registrations
    assert [(row["state"], row["news"], row["fence"], row["cseq"]) for row in rows] == [
        ("failing", True, 3, 2), ("registered", True, 3, 4), ("registered", False, 3, 6),
    ]
    assert (rows[2]["time"] - rows[2]["counted_time"]).total_seconds() == 1.0
    bound, time = rows[1]["bound_until_time"], rows[1]["time"]
    assert (bound - time).total_seconds() == 60.0
    assert time.tzinfo is not None
    assert not {"at", "bound_until_at", "next_attempt_at"} & rows[1].keys(), "engine clock stays inside"


def test_refreshes_wait_for_their_round_and_news_do_not(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def refresh(l_uuid: str, **fields: Any) -> list[RegistrationChanged]:
        return [changed(l_uuid, State.REFRESHING, final=False, **fields), changed(l_uuid, unchanged=True, **fields)]

    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        bridge.fences["a"] = 3
        bridge.take(deque(refresh("a", cseq=5, counted_to=99.0)))
        await asyncio.sleep(0.05)
        assert [row["cseq"] for batch in database.batches for row in batch.refreshes] == [5], "a round was due"
        now = asyncio.get_running_loop().time()
        bridge.take(deque([
            *refresh("a", cseq=6), *refresh("a", cseq=7), *refresh("b", cseq=1), changed("b", State.FAILING, cseq=2),
            changed("c", State.REFRESHING, final=False, at=now),
            changed("d", State.REFRESHING, final=False, at=now + 9),
            changed("e", State.REFRESHING, final=False, at=now - 9),
        ]))
        await asyncio.sleep(0.05)
        assert [(row["l_uuid"], row["cseq"]) for row in database.registrations] == [("b", 2)], "news go at once"
        bridge.take(deque([changed("c", unchanged=True, cseq=8)]))
        await asyncio.sleep(0.3)
        assert [row["l_uuid"] for row in database.registrations] == ["b", "e"], "an answer that is late is shown so"

    monkeypatch.setattr(bridge_module, "REFRESHES_EVERY", 0.3)
    database = run(scenario)
    rounds = [batch.refreshes for batch in database.batches if batch.refreshes]
    assert [[(row["l_uuid"], row["cseq"], row["fence"]) for row in rows] for rows in rounds] == [
        [("a", 5, 3)], [("a", 7, 3), ("c", 8, 0)],
    ]
    assert (rounds[0][0]["time"] - rounds[0][0]["counted_time"]).total_seconds() == 1.0
    assert (rounds[0][0]["bound_until_time"] - rounds[0][0]["time"]).total_seconds() == 60.0
    assert [row["l_uuid"] for row in database.registrations] == ["b", "e", "d"], "at the end all is written"


def test_each_turn_of_a_server_is_written_and_the_last_round_trip(run: Callable) -> None:
    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        bridge.fences["a"] = 3
        bridge.take(deque([
            qualified("a", 100.0), qualified("a", 160.0, "options_silent"), qualified("a", 220.0, "options_answered"),
            qualified("a", 280.0), qualified("a", 340.0), qualified("b", 340.0),
            qualified("c", 340.0), qualified("c", 350.0, "options_silent"),
        ]))
        await asyncio.sleep(0.05)
        assert told == [({"a", "c"}, set())], "pages hear of turns, not of each round trip"
        bridge.take(deque([qualified("b", 400.0)]))
        await asyncio.sleep(0.05)
        assert told[1:] == [(set(), set())]

    rows = [row for batch in run(scenario).batches for row in batch.qualified]
    assert [(row["l_uuid"], row["qualify_state"], row["cause"], row["fence"]) for row in rows] == [
        ("a", "unreachable", "options_silent", 3), ("a", "reachable", "options_answered", 3),
        ("c", "unreachable", "options_silent", 0), ("a", "reachable", "", 3),
        ("b", "reachable", "", 0), ("b", "reachable", "", 0),
    ]
    assert (rows[3]["time"] - rows[1]["time"]).total_seconds() == 120.0 and rows[3]["qualify_round_trip"] == 0.02
    assert rows[3]["qualify_time"] == rows[3]["time"]


def test_an_operators_exchange_names_him(run: Callable) -> None:
    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        bridge.operators["a"] = "ada"
        bridge.take(deque([changed("a", trigger=Trigger.OPERATOR), changed("b", trigger=Trigger.BEAT)]))
        await asyncio.sleep(0.05)
        assert not bridge.operators

    rows = {row["l_uuid"]: row for row in run(scenario).registrations}
    assert rows["a"]["who"] == "ada"
    assert "who" not in rows["b"]


def test_a_dead_database_loses_nothing_within_the_bounds(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "HISTORY_LIMIT", 5)

    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        database.error = OperationalError("the server closed the connection")
        bridge.take(deque([changed("first")]))
        await asyncio.sleep(0.05)
        assert database.tries == 1
        assert bridge.database.failures == 1
        for number in range(8):
            bridge.take(deque([changed("a", cseq=number)]))
            await asyncio.sleep(0.002)
        assert told == []
        database.error = None
        await asyncio.sleep(0.6)
        assert bridge.dropped == 3
        assert bridge.database.failures == 0

    rows = run(scenario).registrations
    assert rows[0]["l_uuid"] == "first", "what failed is tried again, before what came later"
    assert [row["cseq"] for row in rows[1:]] == [3, 4, 5, 6, 7], "the oldest history goes first, the last state stays"


def test_a_row_that_cannot_be_stored_does_not_hold_up_the_others(run: Callable) -> None:
    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        database.poison = "bad"
        bridge.take(deque([changed("a"), changed("bad"), changed("b")]))
        await asyncio.sleep(0.1)
        assert bridge.dropped == 1

    assert [row["l_uuid"] for row in run(scenario).registrations] == ["a", "b"]


def test_pages_that_cannot_be_told_do_not_stop_the_writing() -> None:
    async def main() -> Database:
        database = Database()

        async def publish(trunks: Any, calls: Any) -> None:
            raise ConnectionError("no Redis")

        bridge = Bridge(Clock(lambda: asyncio.get_running_loop().time()), database.store, publish, lambda event: None)
        bridge.start()
        for number in range(3):
            bridge.take(deque([changed("a", cseq=number)]))
            await asyncio.sleep(0.07)
        await bridge.close(1.0)
        return database

    assert [row["cseq"] for row in asyncio.run(main()).registrations] == [0, 1, 2]


def test_the_parts_of_a_call_end_up_in_one_record(run: Callable) -> None:
    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        started = CallStarted("k", "cid", "a", "in", "sip:caller", "100@pbx", True, 100.0)
        bridge.take(deque([started]))
        await asyncio.sleep(0.05)
        bridge.take(deque([CallAnswered("k", "a", 101.0), CallEnded("k", "a", 200, "OK", 130.0)]))
        await asyncio.sleep(0.05)
        assert told == [(set(), {"a"}), (set(), {"a"})]

    database = run(scenario)
    call = database.calls["k"]
    assert (call["l_uuid"], call["caller"], call["callee"], call["anonymous"]) == ("a", "sip:caller", "100@pbx", True)
    assert (call["answered_time"] - call["started_time"]).total_seconds() == 1.0
    assert (call["ended_time"] - call["started_time"]).total_seconds() == 30.0
    assert (call["code"], call["reason"]) == (200, "OK")


def test_calls_that_wait_are_bounded(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "CALLS_LIMIT", 10)

    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        bridge.take(deque(CallStarted(f"k{n}", "c", "a", "in", "x", "y", False, 1.0) for n in range(25)))
        await asyncio.sleep(0.05)
        assert bridge.dropped == 15

    assert len(run(scenario).calls) == 10


def shifted(key: str, state: str, expires_at: float = 1000.0) -> DialogShifted:
    return DialogShifted(key, "call-id", "a", state, expires_at, 100.0)


def test_the_last_state_of_a_dialog_is_written_and_its_end(run: Callable) -> None:
    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        events = [shifted("k1", "old"), shifted("k2", "x"), shifted("k1", "new", 2000.0), DialogOver("k2", 101.0)]
        bridge.take(deque(events))
        await asyncio.sleep(0.05)
        (batch,) = database.batches
        (row,) = batch.dialogs
        assert (row["key"], row["call_id"], row["l_uuid"], row["state"]) == ("k1", "call-id", "a", "new")
        assert (row["expires_time"] - row["changed_time"]).total_seconds() == 1900.0
        assert batch.dialogs_over == ["k2"]

    run(scenario)


def test_dialogs_wait_for_the_database_within_a_bound(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "DIALOGS_LIMIT", 3)

    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        database.error = OperationalError("gone")
        bridge.take(deque([shifted("first", "1")]))
        await asyncio.sleep(0.02)
        bridge.take(deque([shifted(f"k{n}", "1") for n in range(4)] + [shifted("first", "2"), shifted("k3", "2")]))
        await asyncio.sleep(0.02)
        assert bridge.dropped == 2
        database.error = None
        await asyncio.sleep(0.6)
        rows = [(row["key"], row["state"]) for batch in database.batches for row in batch.dialogs]
        assert rows == [("first", "1"), ("k2", "1"), ("k3", "2"), ("first", "2")], "the first was on its way already"

    run(scenario)


def test_the_end_of_a_call_of_before_is_written_and_told(run: Callable) -> None:
    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        bridge.take(deque([CallEnded("k", "a", 200, "OK", 1.0)]))
        await asyncio.sleep(0.05)
        assert told[-1][1] == {"a"}, "the pages hear of it"

    assert run(scenario).calls["k"]["code"] == 200


def test_a_row_that_nobody_can_store_takes_no_dialog_with_it(run: Callable) -> None:
    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        database.poison = "bad"
        bridge.take(deque([changed("bad"), shifted("k1", "s"), DialogOver("k2", 101.0)]))
        await asyncio.sleep(0.05)
        assert [row["key"] for batch in database.batches for row in batch.dialogs] == ["k1"]
        assert [key for batch in database.batches for key in batch.dialogs_over] == ["k2"]
        assert bridge.dropped == 1

    run(scenario)


def test_what_ends_within_its_round_is_written_once_and_what_goes_on_in_the_next() -> None:
    rows = bridge_module.CallRows()
    rows.row("long")["started_time"] = 1
    rows.row("short").update(started_time=1, ended_time=2)
    assert [row["key"] for row in rows.turn()] == ["short"] and len(rows) == 1
    rows.row("long")["answered_time"] = 3
    assert rows.turn() == [{"key": "long", "started_time": 1, "answered_time": 3}] and not len(rows)
    rows.row("long")["ended_time"] = 4
    assert rows.turn() == [{"key": "long", "ended_time": 4}], "only what is new"


def test_more_calls_than_one_batch_are_all_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "BATCH", 3)
    rows = bridge_module.CallRows()
    for number in range(8):
        rows.row(str(number)).update(ended_time=1)
    assert [len(rows.turn()) for _ in range(3)] == [3, 3, 2] and not len(rows)


def test_bindings_at_further_registrars_are_written_in_rounds_and_their_pages_told(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def further(registrar: str, state: State, **more: Any) -> FurtherChanged:
        return FurtherChanged("a", registrar, state, "", 200, "OK", 60, 160.0, 140.0, 100.0, **more)

    async def scenario(bridge: Bridge, database: Database, told: list) -> None:
        bridge.take(deque([
            further("sip:b", State.REGISTERING), further("sip:b", State.REGISTERED),
            further("sip:c", State.REGISTERED, gone=True),
        ]))
        await asyncio.sleep(0.1)
        assert told == [({"a"}, set())]
        bridge.take(deque([further("sip:b", State.REFRESHING)]))
        await asyncio.sleep(0.1)
        bridge.take(deque([further("sip:b", State.FAILING)]))
        await asyncio.sleep(0.3)

    monkeypatch.setattr(bridge_module, "REFRESHES_EVERY", 0.3)
    rows = [row for batch in run(scenario).batches for row in batch.further]
    assert [(row["registrar"], row["state"], row["gone"]) for row in rows] == [
        ("sip:b", "registered", False), ("sip:c", "registered", True), ("sip:b", "failing", False),
    ]
    assert rows[0]["bound_until_time"].tzinfo is not None
