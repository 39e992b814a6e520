"""What would happen: a running worker answers from its own rules, and does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from tests.trunkmgr.sip.test_worker import PBX, PROVIDER, STRANGER, Stand, eventually, run  # noqa: F401 - a fixture
from trunkmgr.models import Call, Order, Provider
from trunkmgr.services import providers, routes
from trunkmgr.sip.dry_run import DryRun
from trunkmgr.sip.rules import RULES, refusals

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(20)]

OTHER = "127.0.77.9"


async def dry(stand: Stand, **asked: str) -> dict[str, Any]:
    return await DryRun(stand.worker).run(routes.check(**asked))


def test_each_rule_by_its_name(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("acc1", inbound_identity="anonymous")
        await sync_to_async(providers.save)(Provider(name="Q", domain="q.example", addresses=OTHER))
        stand.worker.wake()
        await eventually(lambda: len(stand.worker.admission.snapshot.providers) == 2)
        await eventually(lambda: "acc1" in stand.worker.admission.snapshot.trunks)
        await eventually(lambda: stand.worker.endpoint.registrations.service_route("acc1"))
        before, received = dict(refusals.counts), stand.pbx.messages.qsize()
        pbx_uri, to_pbx = "sip:100@pbx.example", f"udp:{PBX}:{stand.pbx.port}"
        for asked, rule, answer, goes_to in (
            ({"source": PROVIDER, "ruri": "sip:acc1@x"}, "inbound", "", to_pbx),
            ({"source": PROVIDER, "ruri": "sip:nobody@x"}, "unknown_account", "404 Not Found", ""),
            ({"source": OTHER, "ruri": "sip:acc1@x"}, "other_provider", "404 Not Found", ""),
            ({"source": STRANGER, "ruri": "sip:acc1@x"}, "stranger", "", ""),
            ({"source": PROVIDER, "ruri": "sip:acc1@x", "method": "REGISTER"}, "method", "405 Method Not Allowed", ""),
            ({"source": PROVIDER, "ruri": "sip:x", "method": "OPTIONS"}, "options", "200 OK", ""),
            ({"source": PBX, "ruri": "sip:+4930@x", "furi": pbx_uri}, "outbound", "",
             f"udp:{PROVIDER}:5060"),  # the registrar's Service-Route
            ({"source": PBX, "ruri": "sip:+4930@x", "furi": "sip:999@pbx.example"}, "unknown_caller",
             "403 From names no account of this PBX", ""),
            ({"source": PBX, "ruri": "sip:x", "furi": pbx_uri}, "no_number", "484 No number dialled", ""),
        ):
            result = await dry(stand, **asked)
            assert (result["rule"], result["answer"], result["goes_to"]) == (rule, answer, goes_to), asked
            assert result["ok"] and RULES[rule] in result["message"]
        result = await dry(stand, source=PROVIDER, ruri="sip:acc1@x", furi="sip:+49301@provider.example")
        assert result["account"] == "acc1" and result["request"] == "INVITE sip:100@pbx.example SIP/2.0"
        assert "anonymous.invalid" in result["shown_as"] and "+49301" not in str(result)
        await asyncio.sleep(0.1)
        assert stand.pbx.messages.qsize() == received and refusals.counts == before, "nothing is sent, nothing counted"
        assert not stand.worker.endpoint.live["dialogs"] and not await sync_to_async(Call.objects.exists)()
        assert not stand.worker.defence.new

    run(scenario)


def test_the_limits_of_an_account_and_a_next_hop_that_nothing_leads_to(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)(
            "acc1", numbers="+49", max_rate=1, outbound_proxy="sip:nowhere.invalid:5060"
        )
        await eventually(lambda: "acc1" in stand.worker.admission.snapshot.trunks)
        for ruri, rule, answer in (
            ("sip:+1212@x", "number", "403 This account may not call this number"),
            *[("sip:+4930@x", "no_way", "500 Server Internal Error")] * 3,
        ):
            result = await dry(stand, source=PBX, ruri=ruri, furi="sip:acc1@pbx.example")
            assert (result["rule"], result["answer"]) == (rule, answer), "asking is no call: the rate is not used up"

    run(scenario)


def test_it_is_asked_by_an_order(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        result = await sync_to_async(routes.ask)("ada", source=STRANGER, ruri="sip:100@x")
        assert result["rule"] == "stranger" and result["message"].startswith("It gets no answer.")
        order = await sync_to_async(Order.objects.get)(verb="dry_run")
        assert order.who == "ada" and order.payload["source"] == STRANGER

    run(scenario)


def test_a_routing_class_that_waits_and_one_with_rules_of_its_own(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0.01)
            scope["extensions"]["sip.context"].sl_send_reply(486, "Not today")

        stand.worker.middleware.application = application
        result = await dry(stand, source=PROVIDER, ruri="sip:acc1@x")
        assert (result["rule"], result["answer"]) == ("", "486 Not today")
        assert "rule of its own" in result["message"]

    run(scenario)


@pytest.mark.parametrize(("wrong", "name"), [
    ({"source": "pbx.example"}, "source"), ({"ruri": "sip:a\r\nVia: x"}, "ruri"), ({"ruri": "100"}, "ruri"),
    ({"furi": "<sip:a@b>"}, "furi"), ({"method": "IN VITE"}, "method"), ({"method": "CANCEL"}, "method"),
])  # fmt: skip
def test_what_is_no_request_is_refused_before_it_is_ordered(wrong: dict[str, str], name: str) -> None:
    with pytest.raises(Exception) as refused:
        routes.check(**{"source": "192.0.2.1", "ruri": "sip:a@b", **wrong})
    assert set(refused.value.message_dict) == {name}
