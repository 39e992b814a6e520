"""Kamailio's own database served by ours: its sqlite file as its schema script makes it, and PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Registrar
from tests.interop.product import Cluster, Embedded
from tests.interop.programs import eventually, missing
from tests.interop.services import Postgres, Redis

pytestmark = pytest.mark.interop("kamailio")

SCHEMA = Path("/usr/share/kamailio/db_sqlite/uac-create.sql")
COLUMNS = "l_uuid, l_username, l_domain, r_username, r_domain, auth_username, auth_password, auth_proxy, expires"
INTERVAL = 2.0


@dataclass
class KamailioFile:
    path: Path

    def run(self, sql: str, *values: object) -> None:
        database = sqlite3.connect(self.path, timeout=5)
        database.execute(sql, values)
        database.commit()
        database.close()

    def add(self, l_uuid: str, registrar: Registrar, password: str = "secret") -> None:
        row = (l_uuid, l_uuid, "pbx.example", l_uuid, registrar.realm, l_uuid, password, registrar.uri, 600)
        self.run(f"INSERT INTO uacreg ({COLUMNS}) VALUES ({', '.join('?' * len(row))})", *row)

    @property
    def sum(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def registrar(kamailio_registrar: Callable[..., Registrar]) -> Registrar:
    return kamailio_registrar()


def made(path: Path) -> KamailioFile:
    """Make the file as kamdbctl does."""
    if not SCHEMA.exists():
        missing(f"{SCHEMA} is not there: apt install kamailio-sqlite-modules")
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE version (table_name VARCHAR(32) NOT NULL, table_version INTEGER DEFAULT 0 NOT NULL)")
    database.executescript(SCHEMA.read_text())
    database.close()
    return KamailioFile(path)


@pytest.fixture(scope="module")
def file(folder: Path, registrar: Registrar) -> KamailioFile:
    there = made(folder / "kamailio.sqlite")
    for l_uuid in ("one", "two"):
        there.add(l_uuid, registrar)
    return there


@pytest.fixture(scope="module")
def product(trunkmgr_up: Callable[..., Embedded], file: KamailioFile) -> Embedded:
    return trunkmgr_up({"UAC_REG_DB_URL": f"sqlite:///{file.path}", "UAC_REG_TIMER_INTERVAL": str(INTERVAL)})


def test_its_accounts_register_and_nothing_is_written_there(
    product: Embedded, file: KamailioFile, registrar: Registrar,
) -> None:
    before = file.sum
    for l_uuid in ("one", "two"):
        eventually(lambda name=l_uuid: registrar.binding(name), 5, f"{l_uuid} is registered")
    product.manage("uacreg", "disable", "two")
    eventually(lambda: not registrar.binding("two"), 3, "two is switched off here")
    product.manage("uacreg", "enable", "two")
    eventually(lambda: registrar.binding("two"), 3, "two is back")
    refused = product.manage("uacreg", "edit", "one", "--expires", "60", check=False)
    assert refused.code and "UAC_REG_DB_WRITE=1" in refused.err
    assert file.sum == before
    assert not [name for name in os.listdir(file.path.parent) if name.startswith("kamailio.sqlite-")]
    assert b"secret" not in (product.data / "trunkmgr.sqlite3").read_bytes()


def test_a_row_inserted_by_its_own_tools_registers_within_the_interval(
    product: Embedded, file: KamailioFile, registrar: Registrar, record_property: Callable[[str, str], None],
) -> None:
    start = time.monotonic()
    file.add("three", registrar)
    eventually(lambda: registrar.binding("three"), INTERVAL + 1, "three is registered")
    record_property("figure", f"a row by foreign hands was registered after {time.monotonic() - start:.1f} s")
    before = registrar.seen("three")[-1].expires
    file.run("UPDATE uacreg SET expires = 1200 WHERE l_uuid = 'three'")
    eventually(lambda: registrar.seen("three")[-1].expires == 1200 != before, INTERVAL + 1, "the edit is followed")
    file.run("DELETE FROM uacreg WHERE l_uuid = 'three'")
    eventually(lambda: not registrar.binding("three"), 2 * INTERVAL + 2, "three is un-registered")


def test_a_dead_database_keeps_the_last_picture_and_says_so(
    product: Embedded, file: KamailioFile, registrar: Registrar,
) -> None:
    away = file.path.with_suffix(".away")
    file.path.rename(away)
    said = "The database of UAC_REG_DB_URL does not answer as it should"
    eventually(lambda: said in product.manage("status").out, 10, "status says that the database is dead")
    assert registrar.binding("one")
    product.stop()
    product.start()
    assert product.manage("uacreg", "show", "one").code == 0, "the picture outlives a restart"
    assert not file.path.exists(), "a missing file is not made"
    product.manage("uacreg", "register", "one")
    away.rename(file.path)
    eventually(lambda: said not in product.manage("status").out, 10, "status is quiet again")


def test_its_table_in_postgresql_under_another_name(
    trunkmgr_up: Callable[..., Embedded], postgres_redis: tuple[Postgres, Redis], registrar: Registrar, place: Place,
) -> None:
    postgres, _ = postgres_redis
    postgres.query("CREATE DATABASE kamailio")
    text = ", ".join(
        f"{name} VARCHAR(255) DEFAULT '' NOT NULL" for name in (
            "l_username", "l_domain", "r_username", "r_domain", "realm", "auth_username", "auth_password", "auth_ha1",
            "auth_proxy", "contact_addr", "socket", "contact_user",
        )
    )
    postgres.query(
        f"CREATE TABLE trunks (id SERIAL PRIMARY KEY, l_uuid VARCHAR(64) UNIQUE, {text}, expires INTEGER DEFAULT 0 NOT "
        "NULL, flags INTEGER DEFAULT 0 NOT NULL, reg_delay INTEGER DEFAULT 0 NOT NULL)", database="kamailio",
    )
    insert = f"INSERT INTO trunks ({COLUMNS}) VALUES (%s, %s, 'pbx.example', %s, %s, %s, 'secret', %s, 600)"
    postgres.query(insert, "pg", "pg", "pg", registrar.realm, "pg", registrar.uri, database="kamailio")
    url = postgres.url.rpartition("/")[0] + "/kamailio"
    product = trunkmgr_up({
        "UAC_REG_DB_URL": url, "UAC_REG_DB_TABLE": "trunks", "UAC_REG_TIMER_INTERVAL": str(INTERVAL),
        "TRUNKMGR_NODE": "pg", "UAC_REG_DB_WRITE": "1",
    })
    eventually(lambda: registrar.binding("pg"), 5, "pg is registered")
    assert "clear text" in product.manage("check").err
    product.manage("uacreg", "edit", "pg", "--expires", "900")
    assert postgres.query("SELECT expires FROM trunks", database="kamailio") == [(900,)]
    eventually(lambda: registrar.seen("pg")[-1].expires == 900, 3, "the edit is followed")
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.query(tables, database="kamailio") == [("trunks",)], "nothing of ours is made there"


def test_four_processes_follow_it_and_obey_the_switch(
    trunkmgr_cluster: Callable[..., Cluster], folder: Path, registrar: Registrar,
) -> None:
    file = made(folder / "cluster.sqlite")
    file.add("cluster-1", registrar)
    product = trunkmgr_cluster({"UAC_REG_DB_URL": f"sqlite:///{file.path}", "UAC_REG_TIMER_INTERVAL": str(INTERVAL)})
    eventually(lambda: registrar.binding("cluster-1"), 6, "cluster-1 is registered")
    product.manage("uac", "reg_active", "0")
    file.add("cluster-2", registrar)
    eventually(lambda: product.manage("uac", "reg_info", "l_uuid", "cluster-2", check=False).code == 0, 6, "it is seen")
    time.sleep(1.5)
    assert not registrar.binding("cluster-2"), "another process stopped it"
    product.manage("uac", "reg_active", "1")
    eventually(lambda: registrar.binding("cluster-2"), 2, "what was held back is served at once")
    for name in ("runsip", "web", "worker"):
        text = product.programs[name].text
        assert "Traceback" not in text and "could not be woken" not in text, text[-2000:]
