"""Orders: what they ask of the engine, what they wait for, what they answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from sipengine.events import RegistrationState, Trigger
from tests.trunkmgr.sip.test_bridge import changed
from trunkmgr.models import Order
from trunkmgr.sip.clock import Clock
from trunkmgr.sip.orders import Orders


class Registrations:
    """Stands for the engine's registrations: knows `a` and `b`, answers nothing by itself."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def register(self, l_uuid: str) -> bool:
        self.asked.append(("register", l_uuid))
        return l_uuid in ("a", "b")

    def unregister(self, l_uuid: str) -> bool:
        self.asked.append(("unregister", l_uuid))
        return l_uuid in ("a", "b")


async def send(order: Order) -> dict[str, Any]:
    return {"ok": True, "message": f"sent for {order.who}"}


def run(verb: str, l_uuids: list[str], *events: Any, seconds: float = 1.0) -> tuple[dict[str, Any], Registrations, Any]:
    registrations, bridge = Registrations(), SimpleNamespace(operators={})
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    order = Order(verb=verb, payload={"l_uuids": l_uuids}, who="ada", deadline=deadline)

    async def reload() -> int:
        return 3

    async def main() -> dict[str, Any]:
        orders = Orders(
            registrations, lambda verb, *args: verb(*args), Clock(asyncio.get_running_loop().time), bridge,
            lambda: {"registrations": 2}, reload, lambda address: address == "203.0.113.66", {"uac_req_send": send},
        )
        running = asyncio.create_task(orders.run(order))
        await asyncio.sleep(0.01)
        for event in events:
            orders.heard(event)
        return await running

    return asyncio.run(main()), registrations, bridge


def test_register_waits_for_the_answer_of_its_own_exchange() -> None:
    result, registrations, bridge = run(
        "register", ["a"],
        changed("a", RegistrationState.FAILING, trigger=Trigger.BEAT, code=503),
        changed("a", RegistrationState.REGISTERING, trigger=Trigger.OPERATOR, final=False),
        changed("a", RegistrationState.REGISTERED, trigger=Trigger.OPERATOR),
    )
    assert registrations.asked == [("register", "a")]
    assert result["ok"] is True
    assert result["message"] == "a: 200 OK"
    assert result["accounts"]["a"]["state"] == "registered"
    assert bridge.operators == {"a": "ada"}, "the bridge takes the name with the history row"


def test_a_refusal_is_told_with_its_answer() -> None:
    result, _, _ = run("register", ["a"], changed(
        "a", RegistrationState.REFUSED, trigger=Trigger.OPERATOR, code=403, reason="Forbidden", cause="banned_403",
    ))
    assert result["ok"] is False
    assert result["message"] == "a: 403 Forbidden"
    assert result["accounts"]["a"]["cause"] == "banned_403"


def test_unregister_is_well_when_the_account_rests() -> None:
    result, _, _ = run("unregister", ["a"], changed("a", RegistrationState.UNREGISTERED, trigger=Trigger.OPERATOR))
    assert result["ok"] is True


def test_the_deadline_ends_the_waiting_not_the_attempt() -> None:
    result, _, bridge = run("register", ["a"], seconds=0.05)
    assert result["ok"] is False
    assert "the attempt goes on" in result["message"]
    assert bridge.operators == {}


def test_an_account_that_is_not_here() -> None:
    result, _, bridge = run("register", ["nobody"])
    assert result["ok"] is False
    assert "nobody is not at this worker" in result["message"]
    assert bridge.operators == {}


def test_reload_tells_how_many_accounts_differed() -> None:
    assert run("reload", [])[0] == {"ok": True, "message": "All accounts are read again, 3 differed."}


def test_dump_and_unknown_verbs() -> None:
    assert run("dump", [])[0] == {"ok": True, "message": "", "registrations": 2}
    assert run("dance", [])[0]["ok"] is False


def test_a_request_is_handed_on() -> None:
    assert run("uac_req_send", [])[0] == {"ok": True, "message": "sent for ada"}


def test_bans_are_lifted_by_their_addresses() -> None:
    order = Order(verb="unban", payload={"addresses": ["203.0.113.66", "203.0.113.67"]}, deadline=datetime.now(UTC))
    lifted: list[str] = []

    def lift(address: str) -> bool:
        lifted.append(address)
        return address == "203.0.113.66"

    orders = Orders(None, None, None, None, None, None, lift, {})  # type: ignore[arg-type]
    assert asyncio.run(orders.run(order)) == {"ok": True, "message": "1 bans ended."}
    assert lifted == ["203.0.113.66", "203.0.113.67"]
