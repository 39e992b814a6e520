"""A Kamailio database that is not ours (`UAC_REG_DB_URL`): how it is reached, and that it is never migrated.

What is read and written there is `services.foreign`'s.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import environ

#: Its name among Django's databases.
ALIAS = "uacreg"

#: Seconds to wait for it: a thread of its own waits, but a page that writes there does too.
TIMEOUT = 5

_POSTGRES = frozenset({"postgres", "postgresql", "psql", "pgsql"})


def url(text: str) -> str:
    """Check a URL as Kamailio writes it; an error never repeats it, because a password stands in it."""
    scheme = urlsplit(text).scheme
    if text and scheme not in {"sqlite", "mysql", *_POSTGRES}:
        raise ValueError(
            "write sqlite:///absolute/path, postgres://USER:PASSWORD@HOST/NAME or mysql://USER:PASSWORD@HOST/NAME"
        )
    if scheme == "sqlite" and not _path(text).strip("/"):
        raise ValueError("name the file: sqlite:///absolute/path")
    if scheme == "mysql" and find_spec("MySQLdb") is None:
        raise ValueError("MySQL needs the Python package mysqlclient, which is not installed: pip install mysqlclient")
    return text


def database(url: str, *, write: bool) -> dict[str, Any]:
    """Return Django's settings for it; without `write` the connection itself refuses to change anything."""
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        # Never `rwc`: a wrong path is an error, not a new file.
        name = f"file:{quote(_path(url))}?mode={'rw' if write else 'ro'}"
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": {"timeout": TIMEOUT}}
    config: dict[str, Any] = dict(environ.Env.db_url_config(url))
    if scheme in _POSTGRES:
        guard = "" if write else " -c default_transaction_read_only=on"
        options = {"connect_timeout": TIMEOUT, "options": f"-c statement_timeout={TIMEOUT * 1000}{guard}"}
    else:
        options = {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT, "charset": "utf8mb4"}
        if not write:
            options["init_command"] = "SET SESSION TRANSACTION READ ONLY"
    config["OPTIONS"] = {**config.get("OPTIONS", {}), **options}
    return config


def _path(url: str) -> str:
    """The file of a sqlite URL; Kamailio takes three slashes or four, and the path is absolute either way."""
    return "/" + unquote(url.partition("://")[2]).lstrip("/")


class Router:
    """Django's database router: Kamailio's tables are there, and nothing of ours is ever made there."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return ALIAS if model._meta.app_label == "kamailio" else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if db == ALIAS else None
