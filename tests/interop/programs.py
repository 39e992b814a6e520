"""Real programs for a test: found, started in a process group of their own, waited for, and ended by that group.

Knows nothing of SIP. A missing program skips the test and names its Debian package; with `CI=true` it fails instead.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

CI = os.environ.get("CI") == "true"
ROOT = Path(__file__).resolve().parents[2]

#: Program → the Debian package that brings it.
PACKAGES = {
    "sipp": "sip-tester",
    "kamailio": "kamailio",
    "kamcmd": "kamailio",
    "tcpdump": "tcpdump",
    "gcc": "gcc",
    "redis-server": "redis-server",
    "postgres": "postgresql",
    "initdb": "postgresql",
    "chromium": "chromium",
    "baresip": "baresip",
    "setpriv": "util-linux",
    "runuser": "util-linux",
    "curl": "curl",
    "nginx": "nginx-light",
    "openssl": "openssl",
    "bash": "bash",
}


def missing(reason: str) -> None:
    """Skip the test with `reason`; in CI, where every peer is installed, fail it."""
    if CI:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def program(name: str) -> str:
    """Return the path of a peer program."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None and name in ("postgres", "initdb"):
        found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        path = str(found[-1]) if found else None
    if path is None:
        missing(f"{name} is missing: apt-get install {PACKAGES[name]}")
    assert path is not None
    return path


#: Below the kernel's own range (32768 and up): no socket that binds to port 0 or connects can take one of these in
#: the moment between the finding and the use.
_PORTS = range(10_000, 32_000)
_given: set[int] = set()
_lock = threading.Lock()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of `host` that is free for UDP and TCP now, and that no earlier call has returned."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(200):
        with _lock:
            port = random.choice([port for port in _PORTS if port not in _given])
            _given.add(port)
        with socket.socket(family, socket.SOCK_STREAM) as tcp, socket.socket(family, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError(f"No port of {host} is free for both UDP and TCP.")


def eventually(condition: Callable[[], object], within: float, what: str, every: float = 0.02) -> float:
    """Wait until `condition()` holds and return the seconds it took; fail the test after `within` seconds."""
    start = time.monotonic()
    while True:
        if condition():
            return time.monotonic() - start
        if time.monotonic() - start > within:
            pytest.fail(f"Within {within:g} s it did not happen that {what}.")
        time.sleep(every)


class Program:
    """One running program; its output goes to `<log>` (stdout) and `<log>.err`."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        self.log = log
        self.err = log.with_name(log.name + ".err")
        with log.open("ab") as out, self.err.open("ab") as err:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                cwd=cwd,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
            )
        self.pid = self._process.pid

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace") + self.err.read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """Exit code; None while it runs."""
        return self._process.poll()

    def wait(self, timeout: float) -> int:
        return self._process.wait(timeout)

    def send(self, number: int) -> None:
        if self.code is None:
            os.kill(self.pid, number)

    def stop(self, timeout: float = 10, number: int = signal.SIGTERM) -> int:
        """Ask it to end, then end its whole process group; return the exit code."""
        self.send(number)
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = self.kill()
        self._kill_group()
        return code

    def kill(self) -> int:
        """`kill -9`, children included."""
        self._kill_group()
        return self._process.wait(10)

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
