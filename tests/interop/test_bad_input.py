"""What people and peers get wrong: each gets an error that names the cause, and nothing stored is lost."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.conftest import Place
from tests.interop.peers import Registrar
from tests.interop.product import Embedded, account_file, new_key
from tests.interop.programs import ROOT, eventually, program

pytestmark = pytest.mark.interop("kamailio")


@dataclass
class Stand:
    product: Embedded
    registrar: Registrar
    place: Place

    def accounts(self) -> list[tuple]:
        return self.product.query("SELECT l_uuid, expires, auth_password FROM uacreg ORDER BY l_uuid")


@pytest.fixture(scope="module")
def stand(kamailio_registrar: Callable[..., Registrar], trunkmgr_up: Callable[..., Embedded], place: Place) -> Stand:
    registrar, product = kamailio_registrar(), trunkmgr_up()
    product.provision(
        registrar.uri,
        domain=registrar.realm,
        addresses=place.provider,
        next_hop=(place.pbx, 5060),
        accounts=[{"l_uuid": "alice"}, {"l_uuid": "bob"}],
    )
    eventually(lambda: len(registrar.bindings()) == 2, 3, "the accounts are registered")
    return Stand(product, registrar, place)


BROKEN = {
    "noise": bytes(range(256)),
    "empty lines": b"\r\n\r\n",
    "no headers": b"INVITE sip:alice@127.0.0.1 SIP/2.0\r\n\r\n",
    "no CSeq": (
        b"OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK1\r\n"
        b"From: <sip:a@b>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: 1\r\n\r\n"
    ),
    "a response to nothing": (
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\n"
        b"To: <sip:b@b>;tag=2\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
    ),
    "a status out of range": b"SIP/2.0 99999 \r\n\r\n",
    "a length that lies": b"INVITE sip:alice@127.0.0.1 SIP/2.0\r\nContent-Length: 99999999999\r\n\r\n",
    "not UTF-8": b"INVITE sip:\xff\xfe@127.0.0.1 SIP/2.0\r\nVia: \xff\r\n\r\n",
    "65,000 bytes": b"INVITE sip:alice@127.0.0.1 SIP/2.0\r\nX: " + b"x" * 65000,
}


def test_unparsable_datagrams_disturb_nothing_and_are_counted(stand: Stand) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as provider:
        provider.bind((stand.place.provider, 0))
        for data in BROKEN.values():
            provider.sendto(data, stand.product.sip)
    for data in BROKEN.values():  # the stream's framing may end the connection, and no more than that
        with socket.create_connection(stand.product.sip, timeout=5, source_address=(stand.place.provider, 0)) as stream:
            stream.sendall(data)
    stand.product.manage("uacreg", "register", "alice")
    assert stand.product.registration("alice")["state"] == "registered"
    assert "Traceback" not in stand.product.text
    said = stand.product.manage("status").out
    assert "unreadable" in said or "bad" in said, said


def test_an_unknown_host_is_the_trunks_cause(stand: Stand) -> None:
    stand.product.manage(
        "uacreg",
        "import",
        "-",
        stdin=account_file(stand.registrar.realm, [{"l_uuid": "lost", "auth_proxy": "sip:no-such-host.invalid"}]),
    )
    eventually(lambda: stand.product.registration("lost").get("cause") == "dns_empty", 15, "the trunk tells its cause")
    page = stand.product.admin().get("/status/lost/")
    assert "DNS has no address for no-such-host.invalid." in page
    assert stand.registrar.binding("alice"), "the other trunks stand"


def test_a_row_without_password_is_refused(stand: Stand) -> None:
    before = stand.accounts()
    done = stand.product.manage(
        "uacreg",
        "import",
        "-",
        check=False,
        stdin=account_file(stand.registrar.realm, [{"l_uuid": "ok"}, {"l_uuid": "bare", "auth_password": ""}]),
    )
    assert done.code != 0
    assert "line 3" in done.err + done.out
    assert "password" in done.err + done.out
    assert stand.accounts() == before, "half of the file was imported"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("l_uuid,l_username,l_domain\n", "no accounts"),
        ("l_uuid,colour\nalice,red\n", "colour"),
        ("l_uuid,expires\nalice,soon\n", "expires"),
        ('l_uuid,expires\nalice,"60\n', "quote"),
        ("l_uuid,expires\nalice,60,60\n", "3 fields"),
        ('[{"l_uuid": "alice", ', "line"),
        ("", "empty"),
    ],
    ids=["header only", "unknown column", "no number", "open quote", "too many fields", "cut JSON", "empty"],
)
def test_a_malformed_import_file_is_refused_and_nothing_is_changed(stand: Stand, text: str, named: str) -> None:
    before = stand.accounts()
    done = stand.product.manage("uacreg", "import", "-", stdin=text, check=False)
    assert done.code != 0
    assert named in done.err, done.err
    assert "Traceback" not in done.err
    assert stand.accounts() == before


def test_a_taken_port_is_named_and_the_first_service_goes_on(
    stand: Stand, trunkmgr_up: Callable[..., Embedded]
) -> None:
    port = stand.product.sip[1]
    second = trunkmgr_up({"TRUNKMGR_SIP_LISTEN": f"udp:127.0.0.1:{port}"}, start=False)
    up = second.spawn()
    second.programs["up"] = up
    assert up.wait(30) != 0
    assert str(port) in up.text
    assert "is taken by another program" in up.text
    assert "Traceback" not in up.text
    stand.product.manage("uacreg", "register", "bob")


def test_a_taken_web_port_is_named(stand: Stand, trunkmgr_up: Callable[..., Embedded]) -> None:
    second = trunkmgr_up({"TRUNKMGR_HTTP": stand.product.http}, start=False)
    up = second.spawn()
    second.programs["up"] = up
    assert up.wait(30) != 0
    assert stand.product.http.rsplit(":", 1)[1] in up.text
    assert "Traceback" not in up.text


def test_a_second_service_on_the_same_data_is_refused(stand: Stand, trunkmgr_up: Callable[..., Embedded]) -> None:
    second = trunkmgr_up({"TRUNKMGR_DATA_DIR": str(stand.product.data)}, start=False)
    up = second.spawn()
    second.programs["up"] = up
    assert up.wait(30) != 0
    assert "interop" in up.text
    assert "Traceback" not in up.text
    stand.product.manage("uacreg", "register", "bob")


def test_an_unwritable_data_folder_is_named(tmp_path: Path) -> None:
    """As an ordinary user: root may write everywhere."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    folder.chmod(0o555)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    argv = [sys.executable, "manage.py", "up"]
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        argv = [program("setpriv"), f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", *argv]
    env = {**os.environ, "TRUNKMGR_DATA_DIR": str(folder), "TRUNKMGR_HTTP": "127.0.0.1:1", "HOME": "/nonexistent"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert str(folder) in said, said
    assert "cannot be written" in said
    assert "Traceback" not in said


def test_a_wrong_encryption_key_is_named_and_loses_nothing(
    kamailio_registrar: Callable[..., Registrar], trunkmgr_up: Callable[..., Embedded], place: Place
) -> None:
    registrar, product = kamailio_registrar(place.provider_2), trunkmgr_up()
    product.provision(
        registrar.uri,
        domain=registrar.realm,
        addresses=place.provider_2,
        next_hop=(place.pbx, 5060),
        accounts=[{"l_uuid": "alice"}],
    )
    eventually(lambda: registrar.binding("alice"), 3, "alice is registered")
    product.stop()
    before = product.query("SELECT l_uuid, auth_password FROM uacreg")
    right = product.env.get("TRUNKMGR_FIELD_KEYS")
    product.env["TRUNKMGR_FIELD_KEYS"] = new_key()
    up = product.spawn()
    product.programs["up"] = up
    eventually(lambda: "TRUNKMGR_FIELD_KEYS" in up.text, 20, "the error names the key's variable")
    assert "Traceback" not in up.text
    up.stop(15)
    assert product.query("SELECT l_uuid, auth_password FROM uacreg") == before

    if right is None:
        del product.env["TRUNKMGR_FIELD_KEYS"]
    count = len(registrar.seen())
    product.start()
    product.manage("uacreg", "register", "alice")
    assert registrar.binding("alice")
    assert len(registrar.seen()) > count
