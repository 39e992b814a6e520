"""PostgreSQL and Redis from Debian, each private to a test: own folder, free loopback port, ended by process id."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.interop.programs import Program, eventually, free_port, program


class Postgres:
    """A PostgreSQL cluster; as root it runs as user postgres, which PostgreSQL insists on."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trunkmgr-pg-"))
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            owner = pwd.getpwnam(user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.port = free_port()
        password = secrets.token_hex(8)
        (self.folder / "password").write_text(password)
        self.data = self.folder / "data"
        done = subprocess.run(
            [
                program("initdb"),
                "-D",
                str(self.data),
                "-U",
                "trunkmgr",
                "-A",
                "scram-sha-256",
                "--no-sync",
                f"--pwfile={self.folder / 'password'}",
                "-E",
                "UTF8",
                "--locale=C",
            ],
            user=user,
            group=user,
            extra_groups=[] if user else None,
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        self.url = f"postgres://trunkmgr:{password}@127.0.0.1:{self.port}/trunkmgr"
        self._connection = {"host": "127.0.0.1", "port": self.port, "user": "trunkmgr", "password": password}
        self._user = user
        self.resume()
        self.query("CREATE DATABASE trunkmgr", database="postgres")

    def resume(self) -> None:
        """Start it, at first or after `halt`."""
        self._program = Program(
            [
                program("postgres"),
                "-D",
                str(self.data),
                "-p",
                str(self.port),
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                f"unix_socket_directories={self.folder}",
                "-c",
                "shared_buffers=32MB",
            ],
            log=self.folder.with_suffix(".log"),
            user=self._user,
            cwd=self.folder,
        )
        eventually(self._answers, 20, "PostgreSQL answers")

    def halt(self) -> None:
        """End it at once; its data stay."""
        self._program.stop(10, signal.SIGINT)  # "fast" shutdown

    def _answers(self) -> bool:
        import psycopg  # lazy: an ordinary test run does not need the driver

        try:
            psycopg.connect(**self._connection, dbname="postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def query(self, sql: str, *values: object, database: str = "trunkmgr") -> list[tuple]:
        import psycopg

        with psycopg.connect(**self._connection, dbname=database, autocommit=True) as connection:
            cursor = connection.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)
        for log in (self._program.log, self._program.err):
            log.unlink(missing_ok=True)


class Redis:
    """A Redis server that writes nothing to disk unless told to (`dump()`)."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="trunkmgr-redis-"))
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.resume()

    def resume(self) -> None:
        """Start it, at first or after `halt`; it has forgotten everything."""
        self._program = Program(
            [
                program("redis-server"),
                "--bind",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--dir",
                str(self.folder),
                "--save",
                "",
                "--appendonly",
                "no",
            ],
            log=self.folder / "redis.log",
            cwd=self.folder,
        )
        eventually(lambda: self.command("PING").startswith("+PONG"), 10, "Redis answers")

    def command(self, line: str) -> str:
        """Send an inline command and return the start of the raw answer; empty while nobody listens."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(line.encode() + b"\r\n")
                return connection.recv(65536).decode(errors="replace")
        except ConnectionError:
            return ""

    def dump(self) -> bytes:
        """Let it write all that it holds to disk, uncompressed, and return that."""
        self.command("CONFIG SET rdbcompression no")
        self.command("SAVE")
        return (self.folder / "dump.rdb").read_bytes()

    def halt(self) -> None:
        self._program.stop(5)

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)
