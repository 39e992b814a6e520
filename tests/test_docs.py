"""The pages under docs/ say nothing that is not so: names, files and tests they name exist."""

from __future__ import annotations

import ast
import re
from argparse import ArgumentParser, _SubParsersAction
from functools import cache
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from trunkmgr.sip.rules import RULES

ROOT = Path(__file__).resolve().parents[1]
UAC = ROOT / "docs" / "uac.md"

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
STATES = ("works", "built", "replaced", "not yet")

#: Every name of the seed module, read from its source at version 6.2.
SEED = {
    "Parameters": """rr_from_store_param rr_to_store_param restore_mode restore_dlg restore_passwd restore_from_avp
        restore_to_avp credential auth_realm_avp auth_username_avp auth_password_avp reg_db_url reg_db_table
        reg_contact_addr reg_timer_interval reg_retry_interval reg_random_delay reg_keep_callid reg_active
        reg_gc_interval reg_hash_size reg_use_domain default_socket event_callback reload_delta""".split(),
    "Functions": re.findall(r"\w+(?:\([^)]*\))?", """uac_replace_from(display, uri) uac_replace_from(uri)
        uac_restore_from() uac_replace_to(display, uri) uac_restore_to() uac_auth() uac_auth(mode) uac_auth_mode(mode)
        uac_req_send() uac_reg_lookup(uuid, dst) uac_reg_lookup_uri(uri, dst) uac_reg_status(uuid)
        uac_reg_request_to(user, mode) uac_reg_enable(attr, val) uac_reg_disable(attr, val) uac_reg_refresh(l_uuid)
        uac_reg_send_register(attr, val) uac_reg_send_unregister(attr, val) bind_uac"""),
    "Variables and event route": [
        *(f"$uac_req({key})" for key in """all method ruri furi turi ftag ttag ouri hdrs body callid cseqno sock auser
            apasswd flags evroute evparam evcode evtype fr_timeout fr_inv_timeout""".split()),
        "event_route[uac:reply]",
    ],
    "RPC commands": [f"uac.reg_{name}" for name in """dump info enable disable reload refresh add remove active register
        unregister""".split()],
    "Counters": "regtotal regactive regdisabled".split(),
    "Columns of `uacreg`": """id l_uuid l_username l_domain r_username r_domain realm auth_username auth_password
        auth_ha1 auth_proxy expires flags reg_delay contact_addr contact_user socket""".split(),
}
COUNTS = {
    "Parameters": 25, "Functions": 19, "Variables and event route": 23, "RPC commands": 11, "Counters": 3,
    "Columns of `uacreg`": 17,
}


def tables() -> dict[str, list[list[str]]]:
    """The rows of the tables under each second-level heading of docs/uac.md, without head and rule."""
    found: dict[str, list[list[str]]] = {}
    section = ""
    for line in UAC.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
            found[section] = []
        elif section and line.startswith("| `"):
            found[section].append([cell.strip() for cell in line.strip("|").split("|")])
    return found


ROWS = [row for rows in tables().values() for row in rows]


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    """Node ids of a test file, without the path: `test_x` and `TestX::test_y`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}::{inner.name}" for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return frozenset(name for name in names if name.rpartition("::")[2].startswith("test"))


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


@pytest.mark.parametrize("section", SEED)
def test_every_name_of_the_seed_stands_in_the_table(section: str) -> None:
    assert [quoted(row[0])[0] for row in tables()[section]] == SEED[section]
    assert len(SEED[section]) == COUNTS[section]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_is_true(row: list[str]) -> None:
    name, ours, where, test, state = row
    assert state in STATES
    assert ours, f"{name} says nothing of ours"
    for path in quoted(where):
        assert (ROOT / path).is_file(), f"{name} names {path}, which does not exist"
    for node in quoted(test):
        path, _, inner = node.partition("::")
        assert (ROOT / path).is_file(), f"{name} names {path}, which does not exist"
        assert inner in names_of_tests(ROOT / path), f"{name} names the test {node}, which does not exist"
    if state == "works":
        assert quoted(test), f"{name} is said to work, and no test says so"
    if state in ("works", "built"):
        assert quoted(where), f"{name} is said to be there, and no file is named"


THREATS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| Threat ")
]
#: Lines of the checklist that must hold before production.
DEFENDED = {f"M{number}" for number in range(1, 15)}


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[0])
def test_each_threat_has_a_rule_and_a_test_that_exists(row: list[str]) -> None:
    threat, rule, tests = row
    assert rule and quoted(tests), f"nothing says that {threat!r} is met"
    for key in quoted(rule):
        assert key in (*RULES, "inbound_from", "received") or key.isupper(), f"{threat!r} names {key}, no rule"
    for node in quoted(tests):
        path, _, inner = node.partition("::")
        assert (ROOT / path).is_file() and inner in names_of_tests(ROOT / path), f"{threat!r} names {node}"


def test_every_threat_of_the_checklist_is_met() -> None:
    assert set(re.findall(r"M\d+", " ".join(row[0] for row in THREATS))) >= DEFENDED


REGISTRATIONS = [
    [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")]
    for table in (ROOT / "docs" / "registrations.md").read_text(encoding="utf-8").split("\n\n")
    if table.startswith("| ")
]
"""Beside seven systems, and against data of others; each table with its head."""


def test_the_tables_of_registrations_have_their_columns() -> None:
    assert [len(head) for head, *_ in REGISTRATIONS] == [10, 3]
    for head, *rows in REGISTRATIONS:
        for row in rows:
            assert len(row) == len(head) and all(row), f"{row[0]}: not every column has its word"


@pytest.mark.parametrize("row", [row for _, *rows in REGISTRATIONS for row in rows], ids=lambda row: row[0])
def test_what_registrations_do_has_a_test(row: list[str]) -> None:
    assert quoted(row[-1]), f"{row[0]}: no test shows it"
    for node in quoted(row[-1]):
        path, _, inner = node.partition("::")
        assert (ROOT / path).is_file() and inner in names_of_tests(ROOT / path), f"{row[0]} names {node}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    """Each `manage.py WORD VERB --option` of a page is a command, a verb of it and an option of that verb."""
    for words in re.findall(r"manage\.py ((?:[\w.:/-]+ ?)+)", page.read_text(encoding="utf-8")):
        command, *rest = words.split()
        assert command in get_commands(), f"{page.name} names the command {command}, which does not exist"
        if get_commands()[command] != "trunkmgr":
            continue
        parser: ArgumentParser = load_command_class("trunkmgr", command).create_parser("manage.py", command)
        verbs = next((action for action in parser._actions if isinstance(action, _SubParsersAction)), None)
        if verbs and rest and re.fullmatch("[a-z]+", rest[0]):
            assert rest[0] in verbs.choices, f"{page.name} names {command} {rest[0]}, which does not exist"
            parser = verbs.choices[rest[0]]
        known = set(parser._option_string_actions)
        named = {word for word in rest if word.startswith("--")}
        assert named <= known, f"{page.name} names {named - known} of {command}, which does not exist"
