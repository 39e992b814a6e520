"""A hunt for the password: database, WAL, Redis, logs, pages, exports and the process list, in both set-ups."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Capture, Registrar
from tests.interop.product import Cluster, Embedded, Product
from tests.interop.programs import eventually

pytestmark = pytest.mark.interop("kamailio", "postgresql", "redis")

PASSWORD = "hunt-4-ZmQ9xK27"
SECOND = "hunt-5-PwL3vT81"


def prey(realm: str) -> dict[str, bytes]:
    """The forms in which a secret could lie about."""
    forms = {}
    for password in (PASSWORD, SECOND):
        ha1 = hashlib.md5(f"alice:{realm}:{password}".encode()).hexdigest()
        forms |= {
            password: password.encode(),
            f"base64 of {password}": base64.b64encode(password.encode()).rstrip(b"=")[:-1],
            f"HA1 of {password}": ha1.encode(),
            f"UTF-16 of {password}": password.encode("utf-16-le"),
        }
    return forms


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_socket():
            yield str(path.relative_to(folder)), path.read_bytes()


class Processes(threading.Thread):
    """Keeps the command line and the environment of every process that appears, as `ps eww` would show them."""

    LOOKS = 4
    """A process is looked at this often: what it is called changes when it execs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: dict[str, bytes] = {}
        self.over = threading.Event()

    def run(self) -> None:
        looks = dict.fromkeys(self._pids(), self.LOOKS)  # what ran before is not ours
        while not self.over.wait(0.03):
            for pid in self._pids():
                if looks.setdefault(pid, 0) < self.LOOKS:
                    looks[pid] += 1
                    self._look(pid)

    def _pids(self) -> list[str]:
        return [name for name in os.listdir("/proc") if name.isdigit()]

    def _look(self, pid: str) -> None:
        for kind in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                data = Path(f"/proc/{pid}/{kind}").read_bytes()
                if b"kamcmd" not in data:  # the test tells the registrar the password that way
                    self.found[f"ps: {kind} of {pid} {len(data)}"] = data


@pytest.mark.parametrize("setup", ["embedded", "postgresql-redis"])
@pytest.mark.checklist("M11")
def test_the_password_is_nowhere(
    setup: str,
    request: pytest.FixtureRequest,
    kamailio_registrar: Callable[..., Registrar],
    place: Place,
    loopback_capture: Callable[..., Capture],
) -> None:
    make = request.getfixturevalue("trunkmgr_up" if setup == "embedded" else "trunkmgr_cluster")
    registrar = kamailio_registrar()
    registrar.set_password("alice", PASSWORD)
    watcher = Processes()
    watcher.start()
    try:
        product: Embedded | Cluster = make({"TRUNKMGR_LOG_LEVEL": "DEBUG"})
        capture = loopback_capture(f"udp port {product.sip[1]}")
        pages = use(product, registrar, place)
    finally:
        watcher.over.set()
        watcher.join()

    haystack: dict[str, bytes] = {**watcher.found, **{f"shown: {name}": text.encode() for name, text in pages.items()}}
    haystack |= {f"data folder: {name}": data for name, data in files(product.folder)}
    haystack["printed"] = product.text.encode()
    haystack["on the wire"] = "".join(packet.text for packet in capture.stop()).encode()
    if isinstance(product, Cluster):
        haystack["Redis"] = product.redis.dump()
        product.postgres.query("CHECKPOINT")
        haystack |= {f"PostgreSQL: {name}": data for name, data in files(product.postgres.data)}
    # The hunt is worth something only where the user name, which is no secret, is found.
    stored = "PostgreSQL" if isinstance(product, Cluster) else "data folder"
    for place_ in (stored, "shown", "on the wire"):
        assert any(b"alice" in data for name, data in haystack.items() if name.startswith(place_)), place_
    assert any(b"uacreg" in data for name, data in haystack.items() if name.startswith("ps: cmdline"))
    found = [
        f"{form} in {name}"
        for form, needle in prey(registrar.realm).items()
        for name, data in haystack.items()
        if needle in data
    ]
    assert found == []
    assert any(b"enc1:" in data for data in haystack.values()), "the encrypted form is somewhere"


def use(product: Product, registrar: Registrar, place: Place) -> dict[str, str]:
    """Enter, change, break and repair the password in every way there is; return what people get to see."""
    product.provision(
        registrar.uri,
        domain=registrar.realm,
        addresses=place.provider,
        next_hop=(place.pbx, 5060),
        accounts=[{"l_uuid": "alice", "auth_password": PASSWORD}],
    )
    eventually(lambda: registrar.binding("alice"), 3, "alice is registered")
    product.manage("uacreg", "edit", "alice", "--password-stdin", stdin=SECOND + "\n")
    eventually(lambda: product.registration("alice")["cause"] == "wrong_password", 5, "the changed password is refused")
    registrar.set_password("alice", SECOND)
    product.manage("uacreg", "register", "alice")
    admin = product.admin()
    admin.add(
        "uacreg",
        l_uuid="bob",
        l_username="bob",
        l_domain="pbx.example",
        r_username="bob",
        r_domain=registrar.realm,
        auth_username="bob",
        auth_password=PASSWORD,
        auth_proxy=registrar.uri,
    )
    (key,) = product.query("SELECT id FROM uacreg WHERE l_uuid = 'alice'")[0]
    shown = {
        path: admin.get(path)
        for path in (
            "/admin/trunkmgr/uacreg/",
            f"/admin/trunkmgr/uacreg/{key}/change/",
            f"/admin/trunkmgr/uacreg/{key}/history/",
            "/status/",
            "/status/alice/",
            "/status/calls/",
        )
    }
    commands = (
        ("list",),
        ("list", "--json"),
        ("show", "alice"),
        ("show", "alice", "--json"),
        ("export", "--format", "csv"),
        ("export", "--format", "json"),
    )
    for words in commands:
        done = product.manage("uacreg", *words)
        assert "alice" in done.out
        shown[f"uacreg {' '.join(words)}"] = done.out + done.err
    again = product.manage(
        "uacreg",
        "import",
        "--dry-run",
        "-",
        check=False,
        stdin=(
            "l_uuid,l_username,l_domain,r_username,r_domain,auth_username,auth_password,expires\n"
            f"alice,alice,pbx.example,alice,{registrar.realm},alice,{PASSWORD},soon\n"
        ),
    )
    shown["refused import"] = again.out + again.err
    return shown
