"""`make demo`: a lively board in under a minute, and nothing that leaves the loopback."""

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.product import Admin
from tests.interop.programs import ROOT, Program, eventually, free_port

pytestmark = pytest.mark.interop()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[Program, str]]:
    http = f"127.0.0.1:{free_port()}"
    env = {**os.environ, "TRUNKMGR_HTTP": http, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    running = Program([sys.executable, "-m", "simulation.demo"], log=tmp_path / "demo.log", env=env, cwd=ROOT)
    yield running, http
    running.kill()


def test_the_board_is_lively_within_a_minute(demo: tuple[Program, str], tmp_path: Path) -> None:
    running, http = demo
    start = time.monotonic()
    eventually(lambda: "trunkmgr ready" in running.text, 30, "the demo is ready")
    password = re.search(r"password (\S+)", running.text)
    assert password is not None
    admin = Admin(f"http://{http}")
    admin.log_in("admin", password[1])

    def states() -> Counter[str]:
        return Counter(re.findall(r'class="badge b-([a-z]+)"', admin.get("/status/")))

    wanted = {"ok", "ref", "fail", "off"}
    eventually(lambda: wanted <= set(states()), 60 - (time.monotonic() - start), f"the board shows {wanted}", 0.5)
    eventually(lambda: "Talking" in admin.get("/status/calls/"), 20, "somebody talks", 0.5)
    assert list(tmp_path.glob("trunkmgr-demo-*"))

    assert running.stop(15) == 0
    assert not list(tmp_path.glob("trunkmgr-demo-*")), "the demo's data is removed after it"
    assert "Traceback" not in running.text
