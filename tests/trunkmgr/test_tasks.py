"""The beat task: one message a node in chunks, no secret in it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.utils import timezone

from trunkmgr import live, tasks
from trunkmgr.models import Node, Registration, UacReg
from trunkmgr.services import accounts, nodes

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    messages: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(live, "send", lambda channel, message: messages.append((channel, message)))
    return messages


def due(l_uuid: str, node: Node, seconds: float) -> None:
    accounts.save(UacReg(
        l_uuid=l_uuid, l_username="1", l_domain="pbx.example", r_username="1", r_domain="sip.example",
        auth_password="do-not-tell",
    ))
    Registration.objects.filter(account_id=l_uuid).update(
        owner=node, state="registered", generation=7, next_attempt_time=timezone.now() + timedelta(seconds=seconds),
    )


def test_what_falls_due_goes_to_its_worker_in_chunks(
    sent: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "CHUNK", 2)
    node = nodes.start("one")
    for number in range(3):
        due(f"a{number}", node, seconds=number)
    due("later", node, seconds=3600)
    tasks.refresh_registrations()
    assert [(channel, [plan[:2] for plan in message["plans"]]) for channel, message in sent] == [
        ("sip.one", [["a0", 7], ["a1", 7]]), ("sip.one", [["a2", 7]]),
    ]
    assert all(message["type"] == "registrations.plan" for _, message in sent)
    assert "do-not-tell" not in json.dumps(sent)


def test_the_schedule_names_the_task() -> None:
    entry = settings.CELERY_BEAT_SCHEDULE["refresh-registrations"]
    assert entry["task"] == tasks.refresh_registrations.name
