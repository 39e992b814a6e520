#!/usr/bin/env python3
"""`mkdb.py DB N EXPIRES`: Kamailio's account store, an sqlite `uacreg` with N accounts (password `secret`)."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

COLUMNS = (
    "l_uuid,l_username,l_domain,r_username,r_domain,realm,auth_username,auth_password,auth_ha1,auth_proxy,expires,"
    "flags,reg_delay,contact_addr,socket"
)


def main(path: str, count: int, expires: int) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(path + suffix).unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE version (table_name VARCHAR(32) NOT NULL, table_version INTEGER DEFAULT 0 NOT NULL)")
    database.executescript(Path("/usr/share/kamailio/db_sqlite/uac-create.sql").read_text())
    local = os.environ.get("BENCH_IP", "127.0.0.1")
    proxy = f"sip:{local}:5070"
    rows = (
        (u, u, local, u, local, "bench", u, "secret", "", proxy, expires, 0, 0, "", "")
        for u in (f"acc{number:06d}" for number in range(count))
    )
    database.executemany(f"INSERT INTO uacreg ({COLUMNS}) VALUES ({','.join('?' * 15)})", rows)
    database.commit()
    database.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
