"""The worker follows a foreign database: one worker does, and a dead one is told once."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from trunkmgr import selectors
from trunkmgr.exceptions import ForeignDatabaseError
from trunkmgr.models import Node
from trunkmgr.services import nodes
from trunkmgr.sip.foreign import ForeignAccounts

pytestmark = pytest.mark.django_db(transaction=True)


class Mirror:
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def look(self) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)


def followed(node: str, *answers: Any) -> tuple[list[str], Mirror]:
    """Look once for each answer; return the notices."""
    notices: list[str] = []
    mirror = Mirror(*answers)

    async def main() -> None:
        accounts = ForeignAccounts(node, 1.0)
        accounts._mirror = mirror  # type: ignore[assignment]
        for _ in answers:
            await accounts.look()
            notices.append(accounts.notice)
        await accounts.close()

    asyncio.run(main())
    return notices, mirror


def test_only_the_first_live_worker_looks() -> None:
    now = timezone.now()
    Node.objects.create(name="old", heartbeat_time=now - timedelta(minutes=1))
    Node.objects.create(name="one", heartbeat_time=now)
    Node.objects.create(name="two", heartbeat_time=now)
    assert followed("one", "a row is bad")[0] == ["a row is bad"]
    notices, mirror = followed("two", "a row is bad")
    assert notices == [""] and len(mirror.answers) == 1


def test_a_dead_database_is_told_once_and_its_return_too(caplog: pytest.LogCaptureFixture) -> None:
    Node.objects.create(name="one", heartbeat_time=timezone.now())
    dead = ForeignDatabaseError("It does not answer.")
    with caplog.at_level(logging.WARNING):
        notices, _ = followed("one", dead, dead, RuntimeError("a fault"), "")
    said = "It does not answer. Its accounts stay as they were read last."
    assert notices == [said, said, said, ""]
    assert [line for line in caplog.messages if "cannot be taken over" not in line] == [
        said, "The database of UAC_REG_DB_URL is read again.",
    ]


def test_what_a_worker_tells_with_its_heartbeat_is_on_every_page() -> None:
    node = nodes.start("one")
    nodes.heartbeat(node, notice="x" * 600)
    assert selectors.notices() == ["x" * 500]
    nodes.heartbeat(node)
    assert selectors.notices() == []
    nodes.heartbeat(node, notice="gone")
    nodes.stopped(node)
    assert selectors.notices() == []
