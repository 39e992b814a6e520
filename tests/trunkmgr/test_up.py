"""`manage.py up` as people start it: a process, its ready line, its end, and what it says when it cannot start."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A starter of `manage.py up` on free loopback ports; what still runs at the end of a test is killed."""
    running: list[subprocess.Popen[str]] = []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TRUNKMGR_", "UAC_"))}
    inherited.pop("DATABASE_URL", None), inherited.pop("REDIS_URL", None)

    def go(*arguments: str, **env: str) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, "manage.py", *(arguments or ("up",))], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={
                **inherited, "TRUNKMGR_DATA_DIR": str(tmp_path / "data"), "TRUNKMGR_HTTP": "127.0.0.1:0",
                "TRUNKMGR_SIP_LISTEN": "udp:127.0.0.1:0,tcp:127.0.0.1:0", "TRUNKMGR_NODE": "up", **env,
            },
        )
        running.append(program)
        return program

    yield go
    for program in running:
        if program.poll() is None:
            program.kill()
        program.communicate()


def ready(program: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the ready line; return it and what came before it on standard output."""
    before = ""
    assert program.stdout is not None
    for line in program.stdout:
        if line.startswith("trunkmgr ready"):
            return line, before
        before += line
    pytest.fail(f"it ended before it was ready: {program.communicate()[1]}")


def refused(program: subprocess.Popen[str], *texts: str) -> None:
    """It ends with 1 and says why in one line, without a traceback."""
    _, err = program.communicate(timeout=40)
    assert program.returncode == 1, err
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert all(text in last for text in texts), err


def test_ready_then_sigterm_ends_it_with_zero_within_ten_seconds(start: Start) -> None:
    program = start()
    line, before = ready(program)
    url, udp = re.search(r"(http://\S+) · SIP udp:127\.0\.0\.1:(\d+) tcp:", line).groups()
    assert int(udp) > 0
    assert re.search(r"Administrator admin made, password \S{12,} ", before), "the password is shown once"
    with urllib.request.urlopen(url + "admin/login/", timeout=5) as page:
        assert page.status == 200
    began = time.monotonic()
    program.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    program.send_signal(signal.SIGTERM)  # must not cut the drain
    _, err = program.communicate(timeout=15)
    assert program.returncode == 0, err
    assert time.monotonic() - began < 10
    assert "Traceback" not in err

    again = start()
    _, before = ready(again)
    assert "password" not in before
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=15)
    assert again.returncode == 0


@pytest.mark.parametrize(("kind", "setting", "value"), [
    (socket.SOCK_STREAM, "TRUNKMGR_HTTP", "127.0.0.1:{}"),
    (socket.SOCK_DGRAM, "TRUNKMGR_SIP_LISTEN", "udp:127.0.0.1:{}"),
    (socket.SOCK_STREAM, "TRUNKMGR_SIP_LISTEN", "tcp:127.0.0.1:{}"),
])
def test_a_taken_port_is_named_with_its_cure(start: Start, kind: int, setting: str, value: str) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        refused(start(**{setting: value.format(port)}), f"127.0.0.1:{port}", setting)


def test_a_second_worker_of_the_same_name_refuses(start: Start) -> None:
    ready(start())
    refused(start(), "The SIP worker up already runs", "TRUNKMGR_NODE")


def test_a_wrong_key_is_told_before_anything_is_changed(start: Start, tmp_path: Path) -> None:
    def manage(*arguments: str, **env: str) -> None:
        _, err = (program := start(*arguments, **env)).communicate(timeout=40)
        assert program.returncode == 0, err

    manage("migrate", "--verbosity", "0")
    key, other = "ZmllbGQta2V5LWZvci10ZXN0cy0wMTIzNDU2Nzg5YWI=", "b3RoZXIta2V5LWZvci10ZXN0cy0wMTIzNDU2Nzg5YWI="
    code = (
        "from trunkmgr.models import UacReg; from trunkmgr.services import accounts; accounts.save(UacReg(l_uuid='a', "
        "l_username='1', l_domain='pbx.example', r_username='1', r_domain='sip.example', auth_password='secret'))"
    )
    manage("shell", "-c", code, TRUNKMGR_FIELD_KEYS=key)
    refused(start(TRUNKMGR_FIELD_KEYS=other), "TRUNKMGR_FIELD_KEYS")
    ready(start(TRUNKMGR_FIELD_KEYS=key))


def test_a_data_folder_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(start(TRUNKMGR_DATA_DIR=str(tmp_path / "file" / "data")), "TRUNKMGR_DATA_DIR")


def test_up_is_for_one_process_and_the_others_need_redis(start: Start) -> None:
    keys = {
        "TRUNKMGR_SECRET_KEY": "k" * 50, "TRUNKMGR_FIELD_KEYS": "ZmllbGQta2V5LWZvci10ZXN0cy0wMTIzNDU2Nzg5YWI=",
        "TRUNKMGR_SEAL_KEYS": "c2VhbC1rZXktZm9yLXRlc3RzLTAxMjM0NTY3ODlhYmM=", "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    refused(start("up", **keys), "REDIS_URL is set", "manage.py runsip")
    refused(start("web"), "REDIS_URL is not set", "manage.py up")
    refused(start("runsip"), "REDIS_URL is not set", "manage.py up")
