"""/healthz: what a monitor learns."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from trunkmgr import health, processes
from trunkmgr.models import Node
from trunkmgr.services import nodes

pytestmark = pytest.mark.django_db


class Thread:
    name = "celery beat"
    alive = True


def test_well_while_a_worker_beats_and_threads_live(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").status_code == 503, "no worker has ever run"
    nodes.start("one")
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["workers"]["one"] < 5
    thread = Thread()
    monkeypatch.setattr(processes, "PARTS", [thread])
    assert client.get("/healthz").json()["threads"] == {"celery beat": True}
    thread.alive = False
    assert client.get("/healthz").status_code == 503


def test_load_is_shown(client: Client) -> None:
    node = nodes.start("one")
    assert nodes.heartbeat(node, load={"share": 0.4, "refused": 7})
    assert client.get("/healthz").json()["load"] == {"one": {"share": 0.4, "refused": 7}}


def test_a_silent_worker(client: Client) -> None:
    nodes.start("one")
    Node.objects.update(heartbeat_time=timezone.now() - timedelta(seconds=60))
    assert client.get("/healthz").status_code == 503


def test_a_dead_database_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dead:
        def filter(self, **conditions: object) -> None:
            raise OperationalError("could not connect\nto the server")

    monkeypatch.setattr(health.Node, "objects", Dead())
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["database"] == "could not connect to the server"
