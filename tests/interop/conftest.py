"""Fixtures for tests against software that nobody here wrote.

Peers and product run on free loopback ports, in process groups of their own; whatever a test leaves running is ended
with it. Provider, PBX and stranger have addresses of their own in every test, so that nothing passes because all came
from one address.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.interop.peers import Capture, Registrar, Sipp
from tests.interop.product import Cluster, Embedded
from tests.interop.programs import free_port, program
from tests.interop.services import Postgres, Redis

# SIGTERM ends a run as Ctrl-C does, so that what it started is ended with it.
signal.signal(signal.SIGTERM, signal.default_int_handler)

_next = itertools.count(os.getpid())


@dataclass(frozen=True)
class Place:
    """The loopback addresses that one test may use."""

    provider: str
    provider_2: str
    pbx: str
    stranger: str

    def provider_port(self) -> tuple[str, int]:
        return self.provider, free_port(self.provider)

    def pbx_port(self) -> tuple[str, int]:
        return self.pbx, free_port(self.pbx)

    def stranger_port(self) -> tuple[str, int]:
        return self.stranger, free_port(self.stranger)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(150))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Close with the figures that tests measured (`record_property("figure", text)`)."""
    figures = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.write_line(figure)


@pytest.fixture(scope="module")
def place() -> Place:
    at = next(_next)
    return Place(
        f"127.0.0.{2 + at % 24}", f"127.0.0.{26 + at % 24}", f"127.0.0.{50 + at % 16}", f"127.0.0.{66 + at % 64}"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="module")
def kamailio_registrar(folder: Path, place: Place) -> Iterator[Callable[..., Registrar]]:
    """A maker of registrars: `kamailio_registrar(max_expires=20)`; the first is at the provider's address."""
    program("kamailio")
    with ExitStack() as stack:
        numbers = itertools.count(1)

        def make(host: str = "", **options: Any) -> Registrar:
            registrar = Registrar(folder / f"registrar-{next(numbers)}", host or place.provider, **options)
            stack.callback(registrar.stop)
            return registrar

        yield make


@pytest.fixture(scope="module")
def trunkmgr_up(folder: Path) -> Iterator[Callable[..., Embedded]]:
    """A maker of running products: `trunkmgr_up({"UAC_REG_TIMER_INTERVAL": "2"})`, ready when it returns.

    Each is stopped at the end of its module, and must then end with 0 within 10 s unless the test ended it before.
    """
    with ExitStack() as stack:
        numbers = itertools.count(1)

        def make(env: dict[str, str] | None = None, *, start: bool = True) -> Embedded:
            product = Embedded(folder / f"up-{next(numbers)}", env)
            stack.callback(product.end)
            stack.callback(product.stop)
            return product.start() if start else product

        yield make


@pytest.fixture(scope="module")
def postgres_redis() -> Iterator[tuple[Postgres, Redis]]:
    program("postgres"), program("initdb"), program("redis-server")
    with ExitStack() as stack:
        postgres = Postgres()
        stack.callback(postgres.stop)
        redis = Redis()
        stack.callback(redis.stop)
        yield postgres, redis


@pytest.fixture(scope="module")
def trunkmgr_cluster(folder: Path, postgres_redis: tuple[Postgres, Redis]) -> Iterator[Callable[..., Cluster]]:
    """A maker of the four-process set-up on PostgreSQL and Redis; one a module."""
    with ExitStack() as stack:

        def make(env: dict[str, str] | None = None) -> Cluster:
            product = Cluster(folder / "cluster", *postgres_redis, env)
            stack.callback(product.end)
            product.start()
            stack.callback(product.stop)
            return product

        yield make


@pytest.fixture
def sipp(tmp_path: Path) -> Iterator[Callable[..., Sipp]]:
    """A starter of SIPps: `sipp("caller", local, target, count=1)`; all are ended with the test."""
    program("sipp")
    with ExitStack() as stack:

        def start(scenario: str, local: tuple[str, int], target: tuple[str, int] | None = None, **options: Any) -> Sipp:
            running = Sipp(tmp_path, scenario, local, target, **options)
            stack.callback(running.stop)
            return running

        yield start


@pytest.fixture
def loopback_capture(tmp_path: Path) -> Iterator[Callable[..., Capture]]:
    """A starter of captures on lo: `loopback_capture("udp port 5060")`."""
    with ExitStack() as stack:

        def start(expression: str = "udp") -> Capture:
            running = Capture(tmp_path, expression)
            stack.callback(running.stop)
            return running

        yield start
