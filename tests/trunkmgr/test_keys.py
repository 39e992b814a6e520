"""Keys are made once where that is safe, and asked for elsewhere."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from trunkmgr import keys
from trunkmgr.env import BASE_DIR, Env

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()


def read(folder: Path, **values: str) -> Env:
    return Env.read({"TRUNKMGR_DATA_DIR": str(folder), **values})


def test_embedded_makes_them_once_for_this_user_only(tmp_path: Path) -> None:
    env = read(tmp_path / "data")
    first = keys.load(env)
    assert keys.load(env) == first
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data/keys").stat().st_mode) == 0o700
    made = sorted(path.name for path in (tmp_path / "data/keys").iterdir())
    assert made == ["field", "seal", "secret"]
    for path in (tmp_path / "data/keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(first.seal_keys[0]) == 32
    assert len({first.secret_key, first.field_keys[0], first.seal_keys[0]}) == 3
    assert repr(first) == "Keys()"


def test_two_that_start_at_once_agree(tmp_path: Path) -> None:
    env, found = read(tmp_path), []
    threads = [threading.Thread(target=lambda: found.append(keys.load(env))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.field_keys for one in found}) == 1
    assert len(found) == 8


def test_the_environment_wins_and_may_hold_several(tmp_path: Path) -> None:
    other = base64.urlsafe_b64encode(b"o" * 32).decode()
    loaded = keys.load(read(
        tmp_path, TRUNKMGR_SECRET_KEY="s", TRUNKMGR_FIELD_KEYS=f"{KEY},{other}", TRUNKMGR_SEAL_KEYS=f"{KEY} {other}",
    ))
    assert loaded.field_keys == (KEY, other)
    assert loaded.seal_keys == (b"k" * 32, b"o" * 32)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("missing", ["TRUNKMGR_SECRET_KEY", "TRUNKMGR_FIELD_KEYS", "TRUNKMGR_SEAL_KEYS"])
def test_several_processes_need_them_given(tmp_path: Path, missing: str) -> None:
    given = {"TRUNKMGR_SECRET_KEY": "s", "TRUNKMGR_FIELD_KEYS": KEY, "TRUNKMGR_SEAL_KEYS": KEY}
    del given[missing]
    with pytest.raises(ImproperlyConfigured, match=rf"{missing} is not set.*make one with: python3 -c"):
        keys.load(read(tmp_path, REDIS_URL="redis://127.0.0.1", **given))
    assert not (tmp_path / "keys").exists()


def test_files_of_the_data_folder_serve_several_processes_too(tmp_path: Path) -> None:
    made = keys.load(read(tmp_path))
    assert keys.load(read(tmp_path, REDIS_URL="redis://127.0.0.1")) == made


def test_a_damaged_key_file_is_an_error(tmp_path: Path) -> None:
    keys.load(read(tmp_path))
    (tmp_path / "keys/field").write_text("short\n")
    with pytest.raises(ImproperlyConfigured, match="keys/field cannot be used: key 1 is not 32 bytes"):
        keys.load(read(tmp_path))


@pytest.mark.parametrize("where", ["/proc/trunkmgr", "{file}/data"])
def test_an_unwritable_folder_names_itself_and_the_cure(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").touch()
    folder = where.format(file=tmp_path / "file")
    done = subprocess.run(
        [sys.executable, str(BASE_DIR / "manage.py"), "check"], capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "TRUNKMGR_DATA_DIR": folder, "TRUNKMGR_FIELD_KEYS": "", "DATABASE_URL": "", "REDIS_URL": ""},
    )
    assert done.returncode == 1
    assert f"The data folder {folder} cannot be written" in done.stderr
    assert "TRUNKMGR_DATA_DIR" in done.stderr
    assert "Traceback" not in done.stderr
