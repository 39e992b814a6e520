"""trunkmgr as a test starts it: `manage.py up`, or its four processes on PostgreSQL and Redis.

Only doors that people have are used: commands, the admin over HTTP, the environment, signals.
"""

from __future__ import annotations

import base64
import csv
import html.parser
import http.cookiejar
import io
import os
import re
import resource
import secrets
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.deployment import command
from tests.interop.programs import ROOT, Program, eventually, free_port
from tests.interop.services import Postgres, Redis


def new_key() -> str:
    """Return a key as `TRUNKMGR_FIELD_KEYS` takes it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str
    seconds: float
    cpu: float
    """Seconds of CPU that it used itself."""


def account_file(domain: str, accounts: Sequence[Mapping[str, str]]) -> str:
    """Return a CSV for `uacreg import`; an account needs its `l_uuid` only."""
    text = io.StringIO()
    usual = {
        "l_domain": "pbx.example",
        "r_domain": domain,
        "realm": "",
        "auth_password": "secret",
        "expires": "3600",
        "provider": "RheinTel",
        "inbound_identity": "anonymous",
    }
    rows = [
        {**usual, **dict.fromkeys(("l_username", "r_username", "auth_username"), account["l_uuid"]), **account}
        for account in accounts
    ]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Product:
    """What both set-ups share: an environment, commands in it, the admin, the database, the logs."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.http = f"127.0.0.1:{free_port()}"
        self.sip = ("127.0.0.1", free_port())
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("TRUNKMGR_", "UAC_", "DJANGO_", "PYTEST_"))
        }
        for name in ("DATABASE_URL", "REDIS_URL"):
            inherited.pop(name, None)
        self.env = {
            **inherited,
            "TRUNKMGR_DATA_DIR": str(self.data),
            "TRUNKMGR_HTTP": self.http,
            "TRUNKMGR_SIP_LISTEN": f"udp:127.0.0.1:{self.sip[1]},tcp:127.0.0.1:{self.sip[1]}",
            "TRUNKMGR_NODE": "interop",
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        self.programs: dict[str, Program] = {}

    def manage(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 60) -> Done:
        """Run `manage.py …` to its end; with `check` a failure fails the test."""
        start, used = time.monotonic(), _children_cpu()
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
        )
        if check and done.returncode:
            pytest.fail(
                f"manage.py {' '.join(arguments)} → {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False
            )
        return Done(done.returncode, done.stdout, done.stderr, time.monotonic() - start, _children_cpu() - used)

    def provision(
        self,
        registrar: str,
        *,
        domain: str,
        addresses: str,
        next_hop: tuple[str, int],
        accounts: Sequence[Mapping[str, str]],
    ) -> None:
        """Enter a provider, the PBX of pbx.example and accounts by the commands that operators use."""
        self.manage("provider", "set", "RheinTel", "--domain", domain, "--proxy", registrar, "--address", addresses)
        self.manage("domain", "set", "pbx.example", "--next-hop", f"sip:{next_hop[0]}:{next_hop[1]}")
        self.manage("uacreg", "import", "-", stdin=account_file(domain, accounts))

    def query(self, sql: str, *values: object) -> list[tuple]:
        """Ask the database behind the product's back; placeholders are `?`."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """All that its processes have printed."""
        return "".join(program.text for program in self.programs.values())

    @property
    def pids(self) -> list[int]:
        return [program.pid for program in self.programs.values() if program.code is None]

    def registration(self, l_uuid: str) -> dict[str, object]:
        """Return the stored state of an account; empty while there is none."""
        names = ("state", "trigger", "cause", "code", "owner_id", "generation", "failures")
        columns = ", ".join(f'"{name}"' for name in names)
        rows = self.query(f"SELECT {columns} FROM trunkmgr_registration WHERE l_uuid = ?", l_uuid)
        return dict(zip(names, rows[0], strict=True)) if rows else {}

    def events(self, l_uuid: str) -> list[dict[str, object]]:
        """Return the history of an account, oldest first."""
        names = ("state", "trigger", "cause", "code", "time")
        columns = ", ".join(f'"{name}"' for name in names)
        rows = self.query(
            f"SELECT {columns} FROM trunkmgr_registrationevent WHERE l_uuid = ? ORDER BY time, id", l_uuid
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def admin(self) -> Admin:
        """Log in as an administrator that is made for the test."""
        name, password = "interop", "interop-page-password"
        extra = {
            "DJANGO_SUPERUSER_PASSWORD": password,
            "DJANGO_SUPERUSER_USERNAME": name,
            "DJANGO_SUPERUSER_EMAIL": "i@example.org",
        }
        subprocess.run(
            [sys.executable, "manage.py", "createsuperuser", "--noinput"],
            cwd=ROOT,
            env={**self.env, **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,  # it may be there already
        )
        page = Admin(f"http://{self.http}")
        page.log_in(name, password)
        return page


class Embedded(Product):
    """`manage.py up`."""

    def start(self, *options: str, within: float = 30) -> Embedded:
        """Start it and wait for its `trunkmgr ready` line."""
        up = self.programs["up"] = self.spawn(*options)

        def ready() -> bool:
            if up.code is not None:
                pytest.fail(f"manage.py up ended with {up.code} before it was ready:\n{up.text}", pytrace=False)
            return re.search(r"^trunkmgr ready", up.log.read_text(errors="replace")[self._read :], re.M) is not None

        eventually(ready, within, "manage.py up prints trunkmgr ready")
        return self

    def spawn(self, *options: str) -> Program:
        """Start it without waiting."""
        log = self.folder / "up.log"
        self._read = len(log.read_text(errors="replace")) if log.exists() else 0
        return Program([sys.executable, "manage.py", "up", *options], log=log, env=self.env, cwd=ROOT)

    def stop(self) -> None:
        """SIGTERM: it drains and ends with 0 within 10 s."""
        up = self.programs.get("up")
        if up is None or up.code is not None:
            return
        start = time.monotonic()
        code = up.stop(15)
        took = time.monotonic() - start
        assert code == 0, f"manage.py up ended with {code}:\n{up.text[-4000:]}"
        assert took < 10, f"manage.py up needed {took:.1f} s to end."

    def kill(self) -> None:
        """`kill -9`."""
        self.programs["up"].kill()

    def end(self) -> None:
        """End it whatever its state; asserts nothing."""
        for program in self.programs.values():
            program.kill()

    def query(self, sql: str, *values: object) -> list[tuple]:
        (path,) = [p for p in self.data.rglob("*.sqlite3") if p.is_file()]
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()


class Cluster(Product):
    """web, runsip, Celery worker and Celery beat on PostgreSQL and Redis, by the commands of the units in deploy/."""

    def __init__(self, folder: Path, postgres: Postgres, redis: Redis, env: Mapping[str, str] | None = None) -> None:
        self.postgres, self.redis = postgres, redis
        keys = {
            "TRUNKMGR_SECRET_KEY": secrets.token_urlsafe(50),
            "TRUNKMGR_FIELD_KEYS": new_key(),
            "TRUNKMGR_SEAL_KEYS": new_key(),
        }
        super().__init__(folder, {**keys, "DATABASE_URL": postgres.url, "REDIS_URL": redis.url, **(env or {})})

    def start(self, within: float = 40) -> Cluster:
        self.manage("migrate", "--noinput", timeout=120)
        for name in ("runsip", "web", "worker", "beat"):
            self.start_one(name)
        eventually(lambda: self._ready("runsip") and self._ready("web"), within, "runsip and web are ready")
        return self

    def start_one(self, name: str) -> None:
        service = {"runsip": "sip@", "worker": "celery"}.get(name, name)
        program, *words = command(f"trunkmgr-{service}")
        module = ["-m", "celery"] if program.endswith("celery") else []
        argv = [sys.executable, *module, *words]
        self.programs[name] = Program(argv, log=self.folder / f"{name}.log", env=self.env, cwd=ROOT)

    def _ready(self, name: str) -> bool:
        program = self.programs[name]
        if program.code is not None:
            pytest.fail(f"{name} ended with {program.code} before it was ready:\n{program.text}", pytrace=False)
        if name == "web":
            try:
                urllib.request.urlopen(f"http://{self.http}/admin/login/", timeout=2).close()
            except (urllib.error.URLError, OSError):
                return False
            return True
        return "trunkmgr ready" in program.text

    def stop_one(self, name: str) -> None:
        code = self.programs[name].stop(10)
        assert code == 0, f"{name} ended with {code}:\n{self.programs[name].text[-4000:]}"

    def stop(self) -> None:
        for name in ("beat", "worker", "web", "runsip"):
            if self.programs[name].code is None:
                self.stop_one(name)

    def end(self) -> None:
        for program in self.programs.values():
            program.kill()

    def query(self, sql: str, *values: object) -> list[tuple]:
        return self.postgres.query(sql.replace("?", "%s"), *values)


@dataclass
class Form:
    """A form of a page as a browser would send it."""

    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class _Forms(html.parser.HTMLParser):
    """Collects a page's forms with the values that stand in them."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self._select = ""
        self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append(Form(given.get("action") or ""))
        if not self.forms:
            return
        values, name = self.forms[-1].fields, given.get("name") or ""
        if tag == "input" and name:
            kind = given.get("type") or "text"
            if kind in ("checkbox", "radio") and "checked" not in given:
                return
            if kind not in ("submit", "button", "image", "file", "reset"):
                values[name] = given.get("value") or ("on" if kind == "checkbox" else "")
        elif tag == "textarea":
            self._area, values[name] = name, ""
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select and (self._select not in values or "selected" in given):
            values[self._select] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        if self._area and self.forms:
            self.forms[-1].fields[self._area] += data


class Admin:
    """A browser without JavaScript that is logged in to the Django admin."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def get(self, path: str) -> str:
        with self._opener.open(self.base + path, timeout=20) as answer:
            return answer.read().decode()

    def post(self, path: str, fields: Mapping[str, str]) -> tuple[str, str]:
        """Send a form; return where it led to and that page."""
        request = urllib.request.Request(
            self.base + path,
            urllib.parse.urlencode(fields).encode(),
            {"Referer": self.base + path, "Origin": self.base},
        )
        with self._opener.open(request, timeout=20) as answer:
            return urllib.parse.urlsplit(answer.url).path, answer.read().decode()

    def form(self, path: str, having: str) -> Form:
        """Return the form of the page at `path` that has a field of this name."""
        parser = _Forms()
        parser.feed(self.get(path))
        found = [form for form in parser.forms if having in form.fields]
        assert found, f"No form with a field {having} at {path}: {[sorted(form.fields) for form in parser.forms]}"
        return found[0]

    def log_in(self, name: str, password: str) -> None:
        form = self.form("/admin/login/", "username")
        where, page = self.post(
            "/admin/login/", {**form.fields, "username": name, "password": password, "next": "/admin/"}
        )
        assert where == "/admin/", page

    def _send(self, path: str, values: Mapping[str, str], drop: tuple[str, ...] = ()) -> str:
        form = self.form(path, next(iter(values)))
        unknown = set(values) - set(form.fields)
        assert not unknown - {"enabled"}, f"{path} has no field {unknown}: {sorted(form.fields)}"
        fields = {k: v for k, v in {**form.fields, **values, "_save": "Save"}.items() if k not in drop}
        where, page = self.post(path, fields)
        errors = re.findall(r'class="[^"]*errorlist[^"]*"[^>]*>(.*?)</ul>', page, re.S)
        assert where != path, f"The admin refused the form at {path}: {errors or page[:3000]}"
        return where

    def add(self, model: str, **values: str) -> None:
        """Fill in and save the add page of `trunkmgr.<model>`."""
        self._send(f"/admin/trunkmgr/{model}/add/", values)

    def change(self, model: str, key: object, drop: tuple[str, ...] = (), **values: str) -> None:
        """Change fields on a row's page; `drop` names checkboxes to clear."""
        self._send(f"/admin/trunkmgr/{model}/{key}/change/", values, drop)
