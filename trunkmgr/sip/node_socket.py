"""The Unix datagram socket on which other processes of this machine wake an embedded worker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path


class NodeSocket:
    """`node.sock` in the data folder, for this user only."""

    def __init__(self, path: Path, on_wake: Callable[[], None]) -> None:
        self.path = path
        self._on_wake = on_wake
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Bind and watch.  A file that an earlier worker left is replaced: its name is ours (`nodes.start`)."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(self.path.lstat().st_mode):
                self.path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        # The mode must hold from the first moment on, so a chmod after the bind would be too late.
        mask = os.umask(0o177)
        try:
            self._socket.bind(str(self.path))
        except OSError as error:
            self._socket.close()
            raise OSError(
                f"{self.path}: the wake-up socket cannot be made ({error.strerror or error}). "
                "Make the data folder writable for this user, or move whatever has this name.",
            ) from error
        finally:
            os.umask(mask)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _read(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                self._socket.recv(16)
        self._on_wake()

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            self.path.unlink(missing_ok=True)
