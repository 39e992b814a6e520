"""`reg_active`: where it comes from, where it is told, and that a worker follows it."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

from tests.trunkmgr.sip.test_worker import Stand, run  # noqa: F401 - a fixture
from trunkmgr import selectors
from trunkmgr.models import Change, Parameter
from trunkmgr.services import parameters
from trunkmgr.sip import changes


@pytest.mark.django_db
def test_the_environment_counts_until_an_operator_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert selectors.reg_active() and selectors.notices() == []
    monkeypatch.setattr(settings, "TRUNKMGR", dataclasses.replace(settings.TRUNKMGR, reg_active=False))
    assert not selectors.reg_active() and "UAC_REG_ACTIVE=0" in selectors.notices()[0]
    assert parameters.set_reg_active(True, "ada") is False
    assert selectors.reg_active() and selectors.notices() == []
    assert list(Change.objects.values_list("table", "key", "who")) == [("parameter", "reg_active", "ada")]
    assert parameters.set_reg_active(False, "bob") is True
    assert Parameter.objects.get().value == "0"


@pytest.mark.django_db
def test_every_page_and_the_status_say_that_registrations_are_stopped(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada"))
    assert "Registrations are stopped" not in client.get("/status/").content.decode()
    parameters.set_reg_active(False, "<bob>")
    for path in ("/status/", "/status/calls/"):
        page = client.get(path).content.decode()
        assert "Registrations are stopped since" in page and "by &lt;bob&gt;" in page
    out = io.StringIO()
    call_command("status", stdout=out)
    assert out.getvalue().startswith("Registrations are stopped since")
    assert "manage.py uac reg_active 1" in out.getvalue()
    out = io.StringIO()
    call_command("status", "--json", stdout=out)
    assert len(json.loads(out.getvalue())["notices"]) == 1


@pytest.mark.django_db
def test_the_picture_follows_the_log_and_the_compare() -> None:
    old = changes.read_snapshot()
    assert old.reg_active
    parameters.set_reg_active(False)
    assert changes.read_rows([("parameter", "reg_active")]).reg_active is False
    patch = changes.compare(old)
    assert patch and patch.reg_active is False
    assert not old.patched(reg_active=patch.reg_active).patched().reg_active
    assert not changes.compare(changes.read_snapshot())


@pytest.mark.django_db(transaction=True)
def test_a_worker_stops_sending_and_starts_again(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        async def switched(active: bool) -> None:
            await sync_to_async(parameters.set_reg_active)(active)
            async with asyncio.timeout(0.5):
                while stand.worker.endpoint.registrations.active != active:
                    await asyncio.sleep(0.01)

        await switched(False)
        await sync_to_async(stand.account)("alice")
        with pytest.raises(TimeoutError):
            await stand.provider.next("REGISTER", within=0.3)
        await switched(True)
        assert "Expires: 3600" in await stand.provider.next("REGISTER", within=0.5)

    run(scenario)


@pytest.mark.django_db(transaction=True)
def test_a_worker_starts_with_what_was_said_before(run: Callable[..., None]) -> None:  # noqa: F811
    seen: list[Any] = []

    async def scenario(stand: Stand) -> None:
        seen.append(stand.worker.endpoint.registrations.active)

    parameters.set_reg_active(False)
    run(scenario)
    assert seen == [False]
