"""System checks say what has no effect."""

from __future__ import annotations

from trunkmgr.checks import environment_messages
from trunkmgr.env import REPLACED


def test_a_replaced_parameter_is_named_with_what_stands_in_its_place() -> None:
    (message,) = environment_messages(("UAC_REG_HASH_SIZE",), reg_db_url=False)
    assert message.id == "trunkmgr.W001"
    assert "UAC_REG_HASH_SIZE is set and has no effect: the account table grows by itself." in str(message)
    assert len(environment_messages(tuple(REPLACED), reg_db_url=False)) == len(REPLACED)


def test_a_foreign_database_is_an_error_with_its_cure() -> None:
    (message,) = environment_messages((), reg_db_url=True)
    assert message.is_serious()
    assert "uacreg import" in str(message)


def test_nothing_set_nothing_said() -> None:
    assert environment_messages((), reg_db_url=False) == []
