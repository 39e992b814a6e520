"""The wake-up socket of an embedded worker."""

from __future__ import annotations

import asyncio
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkmgr.sip.node_socket import NodeSocket


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be too long for a Unix socket
        yield Path(folder) / "node.sock"


def send(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.sendto(b"\0", str(path))


def test_a_byte_wakes_and_a_stale_file_is_replaced(path: Path) -> None:
    async def main() -> None:
        woken = asyncio.Event()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(str(path))
        node_socket = NodeSocket(path, woken.set)
        node_socket.open()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        send(path)
        await asyncio.wait_for(woken.wait(), 1)
        node_socket.close()
        assert not path.exists()

    asyncio.run(main())


def test_what_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("precious")

    async def main() -> None:
        with pytest.raises(OSError, match="move whatever has this name"):
            NodeSocket(path, lambda: None).open()

    asyncio.run(main())
    assert path.read_text() == "precious"
