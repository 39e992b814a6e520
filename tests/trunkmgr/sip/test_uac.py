"""The seed's functions on accounts, called as a routing class calls them: real worker, engine and tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from tests.trunkmgr.sip.test_worker import Stand, eventually, run  # noqa: F401 - a fixture
from trunkmgr.models import Change, Registration, UacReg
from trunkmgr.sip import behind
from trunkmgr.sip.behind import WriteBehind
from trunkmgr.sip.outage import Outage
from trunkmgr.sip.routing import TrunkRouting
from trunkmgr.sip.uac import ReturnCode

pytestmark = pytest.mark.django_db(transaction=True)


def routing(stand: Stand) -> TrunkRouting:
    routing = TrunkRouting()
    routing.scope = {"sip.snapshot": stand.worker.admission.snapshot, "sip.worker": stand.worker}
    return routing


def test_only_what_is_above_zero_is_true() -> None:
    assert ReturnCode(1) and not ReturnCode(-1) and not ReturnCode(0)
    assert ReturnCode(-2) == -2


@pytest.mark.parametrize(("attr", "val"), [("l_uuid", "alice"), ("l_username", "100"), ("r_username", "alice"),
                                           ("auth_username", "alice")])
def test_register_and_unregister_leave_at_once(run: Callable[..., None], attr: str, val: str) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        await eventually(lambda: Registration.objects.filter(state="registered").exists())
        assert routing(stand).uac_reg_send_unregister(attr, val) == 1
        assert "expires=0" in await stand.provider.next("REGISTER", within=0.5)
        await eventually(lambda: Registration.objects.filter(state="unregistered").exists())
        assert routing(stand).uac_reg_send_register(attr, val) == 1
        assert "Expires: 3600" in await stand.provider.next("REGISTER", within=0.5)
        assert routing(stand).uac_reg_send_register(attr, "nobody") == -1
        assert routing(stand).uac_reg_send_register("r_domain", "sip.example") == -1

    run(scenario)


def test_enable_and_disable_are_written_behind_and_take_effect(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        assert routing(stand).uac_reg_disable("l_uuid", "alice") == 1
        assert "expires=0" in await stand.provider.next("REGISTER", within=1)
        assert not (await sync_to_async(UacReg.objects.get)()).enabled
        assert await sync_to_async(Change.objects.filter(who="routing").count)() == 1
        assert routing(stand).uac_reg_enable("l_username", "100") == 1
        assert "Expires: 3600" in await stand.provider.next("REGISTER", within=1)
        for attr, val, code in (("", "x", -1), ("l_uuid", "", -1), ("l_uuid", "x", -2), ("realm", "x", -3)):
            assert routing(stand).uac_reg_enable(attr, val) == code
            assert routing(stand).uac_reg_disable(attr, val) == code

    run(scenario)


def test_refresh_reads_a_row_that_others_wrote(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        await sync_to_async(UacReg.objects.update)(expires=1234)
        assert routing(stand).uac_reg_refresh("alice") == 1
        assert "Expires: 1234" in await stand.provider.next("REGISTER", within=1)
        assert routing(stand).uac_reg_refresh("") == -1

    run(scenario)


class Database:
    """Answers from its third try on."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def run(self, service: Any, *args: Any) -> None:
        self.calls.append(args)
        if len(self.calls) < 3:
            raise OperationalError("gone")
        service(*args)


def test_a_dead_database_is_waited_for_and_the_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Outage, "pause", 0.0)
    monkeypatch.setattr(behind, "LIMIT", 3)
    written: list[int] = []

    def refused(number: int) -> None:
        raise ValueError("not this one")

    async def main() -> None:
        database = Database()
        writes = WriteBehind(database, Outage(behind.log, "The database", "It waits."))  # type: ignore[arg-type]
        assert writes.put(written.append, 1) and writes.put(refused, 2) and writes.put(written.append, 3)
        assert not writes.put(written.append, 4), "bounded"
        task = asyncio.create_task(writes.run())
        while len(written) < 2:
            await asyncio.sleep(0)
        task.cancel()
        assert database.calls == [(1,), (1,), (1,), (2,), (3,)]

    asyncio.run(main())
    assert written == [1, 3]


def test_a_full_queue_is_told_to_the_script() -> None:
    routing = TrunkRouting()
    full = SimpleNamespace(writes=SimpleNamespace(put=lambda service, *args: False))
    routing.scope = {"sip.worker": full}
    assert routing.uac_reg_refresh("alice") == -1
