"""The system under test behind its adapter script, and the registrar that it registers at."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import plan


class Sut:
    """The adapter script and its verbs; or an already running system, named by its process ids."""

    def __init__(self, options: Namespace) -> None:
        self._adapter, self._pids = options.adapter, options.pids
        self.ip, port = options.sut.split(":")
        self.port = int(port)
        self.env = {**os.environ, **dict(pair.split("=", 1) for pair in options.env or [])}

    def verb(self, *words: str, timeout: float = 180) -> str:
        """Run one verb; an adapter that fails ends the benchmark with its own words."""
        done = subprocess.run(
            [self._adapter, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=timeout, text=True,
        )
        if done.returncode and words[0] in ("prepare", "start"):
            sys.exit(f"{self._adapter} {' '.join(words)} failed:\n{done.stdout}")
        return done.stdout.strip()

    def pids(self) -> list[int]:
        if self._pids:
            return [int(word) for word in self._pids.split(",")]
        if not self._adapter:
            return []
        found = [int(word) for word in self.verb("pids").split() if word.isdigit()]
        if not found:
            sys.exit(f"{self._adapter} names no process: is it started?")
        return found


class Registrar:
    """registrar.c: verifies every digest; starts with the first use and stays until `stop`."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(1)
        if self._alive():
            return
        source, binary = plan.HERE / "helpers" / "registrar.c", plan.RUN / "registrar"
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            subprocess.check_call(["gcc", "-O2", "-o", str(binary), str(source)])
        with (plan.RUN / "registrar.log").open("w") as log:
            subprocess.Popen(
                [str(binary), "-a", plan.IP, "-p", str(plan.REGISTRAR), "-c", str(plan.REGISTRAR_CONTROL)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )
        for _ in range(50):
            if self._alive():
                return
            time.sleep(0.05)
        sys.exit(f"The registrar does not answer: {Path(log.name).read_text()}")

    def _alive(self) -> bool:
        try:
            return bool(self._ask("stats", 1))
        except OSError:
            return False

    def _ask(self, command: str, tries: int) -> dict[str, Any]:
        for _ in range(tries):
            try:
                self._socket.sendto(command.encode(), (plan.IP, plan.REGISTRAR_CONTROL))
                return json.loads(self._socket.recv(4096))
            except TimeoutError:
                continue
        raise OSError("The registrar does not answer.")

    def command(self, command: str) -> dict[str, Any]:
        return self._ask(command, 3)

    def stats(self) -> dict[str, Any]:
        return self.command("stats")

    def stop(self) -> None:
        self._socket.sendto(b"quit", (plan.IP, plan.REGISTRAR_CONTROL))
