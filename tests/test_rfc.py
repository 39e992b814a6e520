"""docs/rfc.md tells what the tests pin now, and no rule of the checklist is without test or reason."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from mutants import run
from tests import rfc_index


@pytest.fixture(scope="module")
def lines() -> list[rfc_index.Line]:
    return rfc_index.checklist(rfc_index.collect())


def test_the_table_is_up_to_date() -> None:
    assert (rfc_index.DOCS / "rfc.md").read_text() == rfc_index.render(), "run make rfc"


@pytest.mark.parametrize("priority", ["P0", "P1"])
def test_each_line_is_pinned_or_says_why_not(lines: list[rfc_index.Line], priority: str) -> None:
    reasons = rfc_index.left_out()
    bare = [line.id for line in lines if line.priority == priority and not line.tests and line.id not in reasons]
    assert not bare, f"neither a test nor a reason in docs/rfc-left-out.toml: {', '.join(bare)}"


def test_reasons_are_of_known_lines_and_sorted(lines: list[rfc_index.Line]) -> None:
    priorities = {line.id: line.priority for line in lines}
    entries = tomllib.loads((rfc_index.DOCS / "rfc-left-out.toml").read_text()).get("left_out", [])
    names = [entry["line"] for entry in entries]
    assert names == sorted(set(names), key=lambda name: (name[0], int(name[1:])))
    for entry in entries:
        assert entry["priority"] == priorities[entry["line"]]
        assert entry["why"].endswith(".")


def test_checklist_marks_name_lines(lines: list[rfc_index.Line]) -> None:
    assert {mark[1] for mark in rfc_index.collect() if mark[0] == "checklist"} <= {line.id for line in lines}


def test_marks_are_found_wherever_pytest_takes_them(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(
        'import pytest\npytestmark = pytest.mark.rfc("1", "2")\n'
        '@pytest.mark.checklist("A1")\nclass TestIt:\n'
        '    @pytest.mark.rfc("3", "4.5")\n    async def test_a(self): ...\n'
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.rfc("6", "7"))])\ndef test_b(x): ...\n'
    )
    a, b = "tests/test_it.py::TestIt::test_a", "tests/test_it.py::test_b"
    assert rfc_index.collect(tmp_path / "tests") == {
        ("rfc", "1", "2"): [a, b], ("checklist", "A1"): [a], ("rfc", "3", "4.5"): [a], ("rfc", "6", "7"): [b],
    }  # fmt: skip


def test_a_mark_pins_its_section_and_those_above_but_not_its_neighbours() -> None:
    assert rfc_index._covers("3261 17.1.1", ("rfc", "3261", "17.1.1.2"))
    assert not rfc_index._covers("3261 17.1.1", ("rfc", "3261", "17.1.10"))
    assert not rfc_index._covers("3261 17.1.1.2", ("rfc", "3261", "17.1.1"))


def test_sections_are_sorted_by_number() -> None:
    text = rfc_index.render().partition("## By section")[2]
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert numbers == sorted(numbers)


def test_each_mutant_still_applies() -> None:
    """A change that moves the code of one would leave it to fall out of the next `make mutants`."""
    for mutant in run.load():
        assert mutant.applied(run.ROOT) != (run.ROOT / mutant.file).read_text()
