"""Writes docs/rfc.md: which tests pin which section of which RFC, and which line of docs/checklist.toml.

Reads the marks out of the sources of the tests, so that it needs no run of them: `make rfc`.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PARTS = {
    "A": "Messages", "B": "UDP, TCP, TLS and WebSocket", "C": "Transactions", "D": "Proxy core", "E": "Extensions",
    "F": "Where to send", "G": "Digest", "I": "What a call translates", "K": "The token",
    "M": "Security",
}  # fmt: skip
SHOWN = 6
"""Tests named for a line of the checklist; the table by section names all."""

Mark = tuple[str, ...]
"""("rfc", number, section) or ("checklist", line)."""


@dataclass(frozen=True)
class Line:
    id: str
    priority: str
    rule: str
    rfc: tuple[str, ...]
    """`number section`."""
    tests: list[str] = field(default_factory=list)


def collect(folder: Path = ROOT / "tests") -> dict[Mark, list[str]]:
    """Test ids of each mark."""
    found: dict[Mark, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        module = ast.parse(path.read_text(), str(path))
        name = str(path.relative_to(folder.parent))
        for test, marks in _tests(module.body, name, _assigned(module.body)):
            for mark in marks:
                tests = found.setdefault(mark, [])
                if test not in tests:
                    tests.append(test)
    return found


def _tests(body: list[ast.stmt], prefix: str, marks: list[Mark]) -> Iterator[tuple[str, list[Mark]]]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            inner = marks + _assigned(node.body) + _marks(*node.decorator_list)
            yield from _tests(node.body, f"{prefix}::{node.name}", inner)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield f"{prefix}::{node.name}", marks + _marks(*node.decorator_list)


def _assigned(body: list[ast.stmt]) -> list[Mark]:
    """Marks of `pytestmark`."""
    return [
        mark
        for node in body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "pytestmark"
        for mark in _marks(node.value)
    ]


def _marks(*expressions: ast.expr) -> list[Mark]:
    """Marks anywhere in these expressions: decorators, and `marks=` of a pytest.param."""
    return [
        (node.func.attr, *(str(ast.literal_eval(argument)) for argument in node.args))
        for expression in expressions
        for node in ast.walk(expression)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in ("rfc", "checklist") and getattr(node.func.value, "attr", "") == "mark"
    ]


def checklist(marks: dict[Mark, list[str]]) -> list[Line]:
    """The lines of docs/checklist.toml, each with the tests that pin it."""
    lines = []
    for name, entry in tomllib.loads((DOCS / "checklist.toml").read_text()).items():
        line = Line(name, entry["priority"], entry["rule"], tuple(entry["rfc"]))
        for mark, tests in marks.items():
            if mark == ("checklist", name) or any(_covers(section, mark) for section in line.rfc):
                line.tests.extend(test for test in tests if test not in line.tests)
        lines.append(line)
    return lines


def _covers(section: str, mark: Mark) -> bool:
    """Whether a mark names this section, or one below it."""
    named = " ".join(mark[1:])
    return mark[0] == "rfc" and (named == section or named.startswith(section + "."))


def left_out() -> dict[str, dict[str, str]]:
    """Reasons of docs/rfc-left-out.toml by line."""
    entries = tomllib.loads((DOCS / "rfc-left-out.toml").read_text()).get("left_out", [])
    return {entry["line"]: entry for entry in entries}


def count(lines: list[Line]) -> str:
    """How many rules are pinned, in words."""
    p0, p1 = ([line for line in lines if line.priority == priority] for priority in ("P0", "P1"))
    pinned0, pinned1 = (sum(bool(line.tests) for line in group) for group in (p0, p1))
    return f"rules pinned: {pinned0} of {len(p0)} P0, {pinned1} of {len(p1)} P1"


def render() -> str:
    """The text of docs/rfc.md."""
    marks = collect()
    lines, reasons = checklist(marks), left_out()
    sections = [mark for mark in marks if mark[0] == "rfc"]
    tests = {test for mark in marks for test in marks[mark]}
    out = [
        "# Which test pins which rule",
        "",
        "Made by `make rfc` from the marks of the tests and from `docs/checklist.toml`; do not edit. P0 must hold",
        "before production; a P1 is built, or the reason stands here (`docs/rfc-left-out.toml`).",
        "",
        f"**{count(lines)}**; {len(sections)} sections of {len({mark[1] for mark in sections})} RFCs by {len(tests)} "
        "tests.",
    ]
    for letter, title in PARTS.items():
        out += ["", f"## {letter}. {title}", "", "| Line | | Rule | Pinned by |", "|---|---|---|---|"]
        for line in lines:
            if line.id[0] == letter:
                why = reasons.get(line.id, {}).get("why", "")
                shown = [_code(test.rpartition("/")[2]) for test in line.tests[:SHOWN]]
                if len(line.tests) > SHOWN:
                    shown.append(f"{len(line.tests) - SHOWN} more")
                cell = "<br>".join([*shown, *([f"Left out: {why}"] if why else [])]) or "**nothing**"
                out.append(f"| {line.id} | {line.priority} | {_cell(line.rule)} | {_cell(cell)} |")
    out += ["", "## By section", "", "| RFC | Section | Tests |", "|---|---|---|"]
    for mark in sorted(sections, key=_order):
        out.append(f"| {mark[1]} | {_cell(mark[2])} | {'<br>'.join(_code(test) for test in sorted(marks[mark]))} |")
    return "\n".join(out) + "\n"


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _order(mark: Mark) -> tuple[int, list[tuple[int, str]]]:
    words = re.findall(r"\d+|\D+", mark[2])
    return int(mark[1]), [(int(word), "") if word.isdigit() else (-1, word) for word in words if word != "."]


if __name__ == "__main__":
    if "--count" not in sys.argv:
        (DOCS / "rfc.md").write_text(render())
    sys.stdout.write(f"{count(checklist(collect()))}\n")
