"""deploy/: units that systemd takes, commands that exist, and a service that is never given up."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from tests.deployment import DEPLOY, PREFIX, ROOT, SERVICES, command, unit, value
from trunkmgr import processes
from trunkmgr.env import Env, fields
from trunkmgr.sip import worker

PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
PROCESSES = [name for name in SERVICES if name != "trunkmgr.service"]


def test_there_is_a_unit_for_each_process() -> None:
    assert SERVICES == [
        "trunkmgr-beat.service", "trunkmgr-celery.service", "trunkmgr-sip@.service", "trunkmgr-web.service",
        "trunkmgr.service",
    ]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    for path in (*DEPLOY.glob("*.service"), *DEPLOY.glob("*.target")):
        # It looks whether the programs are there.
        text = path.read_text(encoding="utf-8").replace(f"{PREFIX}/.venv/bin/", f"{Path(sys.executable).parent}/")
        (tmp_path / path.name).write_text(text.replace(PREFIX, str(ROOT)), encoding="utf-8")
    units = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rated = subprocess.run(
        # Tenths: 10 is no protection at all; below 2 the rating is "OK", with access to the network.
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", *(x for x in units if ".service" in x)],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert rated.returncode == 0, rated.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_the_command_exists_and_takes_its_arguments(name: str) -> None:
    program, *words = command(name)
    assert value(name, "Service", "WorkingDirectory") == PREFIX
    if words[0] == "manage.py":
        assert program == f"{PREFIX}/.venv/bin/python" and (ROOT / "manage.py").is_file()
        assert get_commands()[words[1]] == "trunkmgr"
        load_command_class("trunkmgr", words[1]).create_parser("manage.py", words[1]).parse_args(words[2:])
    else:
        assert program == f"{PREFIX}/.venv/bin/celery"
        assert words[:2] == ["-A", "trunkmgr.celery"]
        # An option that it does not know goes before --help.
        done = subprocess.run(
            [sys.executable, "-m", "celery", *words, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_it_is_restarted_at_once_and_never_given_up(name: str) -> None:
    assert value(name, "Service", "Restart") == "always"
    assert float(value(name, "Service", "RestartSec")) <= 1
    assert value(name, "Unit", "StartLimitIntervalSec") == "0"


@pytest.mark.parametrize("name", SERVICES)
def test_it_has_the_time_that_its_end_takes(name: str) -> None:
    drain = worker.HOOKS + worker.DRAIN + 2 * worker.WRITE_LEFT
    longest = max(drain, processes.WEB_GRACE, processes.THREAD_GRACE)
    assert longest < 10 < float(value(name, "Service", "TimeoutStopSec"))
    assert value(name, "Service", "KillMode") == "mixed"


def test_all_have_the_same_user_settings_and_walls() -> None:
    own = {"ExecStart", "EnvironmentFile", "Environment"}
    seen = {name: {key: v for key, v in unit(name)["Service"].items() if key not in own} for name in SERVICES}
    assert all(each == seen["trunkmgr.service"] for each in seen.values())
    for name in SERVICES:
        assert unit(name)["Service"]["EnvironmentFile"][0] == "/etc/trunkmgr/trunkmgr.env"
        assert value(name, "Service", "User") == "trunkmgr" and value(name, "Service", "NoNewPrivileges") == "yes"
        assert value(name, "Service", "ProtectSystem") == "strict"


def test_one_process_and_several_exclude_each_other() -> None:
    assert value("trunkmgr.service", "Unit", "Conflicts") == "trunkmgr.target"
    assert value("trunkmgr.target", "Unit", "Conflicts") == "trunkmgr.service"
    for name in PROCESSES:
        assert value(name, "Unit", "PartOf") == value(name, "Install", "WantedBy") == "trunkmgr.target"
    assert value("trunkmgr-sip@.service", "Service", "Environment") == "TRUNKMGR_NODE=%i"


def test_the_settings_exist_and_lead_where_the_services_may_write() -> None:
    lines = (DEPLOY / "trunkmgr.env").read_text(encoding="utf-8").splitlines()
    settings = dict(re.findall(r"(?m)^#?([A-Z_]+)=(.*)$", "\n".join(lines)))
    assert settings.keys() <= {item.metadata["name"] for item in fields(Env) if item.metadata}
    assert "TRUNKMGR_NODE" not in settings, "it would go before the instance's name"
    env = Env.read({name: text.strip("'") for name, text in settings.items()})
    assert env.https and env.database_url.startswith("postgres://trunkmgr:") and not env.embedded
    assert env.data_dir == Path("/var/lib") / value("trunkmgr.service", "Service", "StateDirectory")


def test_the_command_reads_what_the_services_read(tmp_path: Path) -> None:
    """Run as it stands, with the places of this test: settings reach manage.py, and so do arguments with blanks."""
    text = (DEPLOY / "trunkmgr").read_text(encoding="utf-8")
    assert "/etc/trunkmgr/trunkmgr.env" in text and f"cd {PREFIX}\n" in text and "runuser -u trunkmgr -- " in text
    (tmp_path / "settings").write_text("TRUNKMGR_NODE='from the file'\n", encoding="utf-8")
    (tmp_path / "manage.py").write_text("import os, sys; print(os.environ['TRUNKMGR_NODE'], sys.argv[1:])")
    script = text.replace("/etc/trunkmgr/trunkmgr.env", str(tmp_path / "settings"))
    script = script.replace(f"cd {PREFIX}", f"cd {tmp_path}").replace("runuser -u trunkmgr --", "env")
    script = script.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["sh", "-c", script, "trunkmgr", "status", "a b"], capture_output=True, text=True, timeout=30, check=True,
    )
    assert done.stdout == "from the file ['status', 'a b']\n"


def test_the_page_names_each_file_and_none_that_is_not_there() -> None:
    named = set(re.findall(r"deploy/([\w.@-]+)", PAGE))
    assert named <= {path.name for path in DEPLOY.iterdir()}
    covered = {path.name for path in DEPLOY.iterdir() if path.suffix in (".service", ".target")}
    assert {path.name for path in DEPLOY.iterdir()} - covered <= named
    assert "deploy/*.service" in PAGE and "deploy/trunkmgr.target" in PAGE


def test_the_kernel_may_give_what_the_worker_asks_for() -> None:
    from sipengine.asyncio import udp

    lines = (DEPLOY / "sysctl.conf").read_text(encoding="utf-8").splitlines()
    given = dict(line.split(" = ") for line in lines if not line.startswith("#"))
    assert given == {"net.core.rmem_max": str(udp.BUFFER), "net.core.wmem_max": str(udp.BUFFER)}
