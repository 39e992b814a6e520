"""System checks say what has no effect."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields

import pytest

from tests.test_docs import SEED, tables
from trunkmgr.checks import environment_messages
from trunkmgr.env import BASE_DIR, REPLACED, Env

TYPED = {item.metadata["name"] for item in fields(Env) if item.metadata}
STATES = {row[0].strip("`"): row[-1] for row in tables()["Parameters"]}


def test_a_replaced_parameter_is_named_with_what_stands_in_its_place() -> None:
    (message,) = environment_messages(("UAC_REG_HASH_SIZE",), foreign_writes=False)
    assert message.id == "trunkmgr.W001"
    assert "UAC_REG_HASH_SIZE is set and has no effect: the account table grows by itself." in str(message)
    assert len(environment_messages(tuple(REPLACED), foreign_writes=False)) == len(REPLACED)


def test_writing_clear_text_into_a_foreign_database_is_said() -> None:
    (message,) = environment_messages((), foreign_writes=True)
    assert message.id == "trunkmgr.W002" and not message.is_serious()
    assert "clear text" in str(message)


def test_nothing_set_nothing_said() -> None:
    assert environment_messages((), foreign_writes=False) == []


@pytest.mark.parametrize("parameter", SEED["Parameters"])
def test_a_parameter_of_the_seed_is_read_or_named_with_its_replacement(parameter: str) -> None:
    """Not both, not neither, and as docs/uac.md says."""
    name = f"UAC_{parameter.upper()}"
    assert (name in TYPED) != (name in REPLACED)
    assert (name in REPLACED) == (STATES[parameter] == "replaced")
    if name in REPLACED:
        assert Env.read({name: "8"}).replaced == (name,)
        (message,) = environment_messages((name,), foreign_writes=False)
        assert message.msg == f"{name} is set and has no effect: {REPLACED[name]}."
        assert REPLACED[name][0].islower() or REPLACED[name].startswith(("TRUNKMGR_", "UAC_"))
        assert REPLACED[name][-1] != ".", "the message is the sentence"


def test_manage_py_check_names_them_and_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, str(BASE_DIR / "manage.py"), "check"], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **dict.fromkeys(REPLACED, "8")},
    )
    assert done.returncode == 0, done.stderr
    for name, replacement in REPLACED.items():
        assert f"(trunkmgr.W001) {name} is set and has no effect: {replacement}." in done.stderr
