"""Breaks rules of the core one at a time, each in a copy of the tree, and sees whether its tests turn red.

usage: python -m mutants.run [--sample N] [--seed S] [--jobs N] [--only RULE]     ends with 1 when one is not caught

A mutant is caught when a test that pins its line of docs/checklist.toml fails; tests against real peers are left out.
A test that is red without any mutant proves nothing and is left out.  A text that does not stand in its file once, or a
mutant that cannot be imported, is an error of mutants.toml.
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import rfc_index

ROOT = Path(__file__).parent.parent
PARTS = ("docs", "sipengine", "tests", "trunkmgr", "templates", "manage.py", "pyproject.toml")
"""What the tests of the core need of the tree."""
TIMEOUT = 180
CAUGHT, SURVIVED, BROKEN = "caught", "SURVIVED", "BROKEN"


@dataclass(frozen=True)
class Mutant:
    rule: str
    breaks: str
    file: str
    old: str
    new: str

    def applied(self, tree: Path) -> str:
        """The text of its file with the fault in it."""
        text = (tree / self.file).read_text()
        found = text.count(self.old)
        if found != 1:
            raise SystemExit(f"mutants.toml: {self.rule}, {self.breaks}: old stands {found} times in {self.file}")
        return text.replace(self.old, self.new)


def load() -> list[Mutant]:
    entries = tomllib.loads((ROOT / "mutants" / "mutants.toml").read_text())["mutant"]
    return [Mutant(**entry) for entry in entries]


def tests_of() -> dict[str, list[str]]:
    """Tests without real peers, by line of the checklist."""
    return {
        line.id: [test for test in line.tests if not test.startswith("tests/interop/")]
        for line in rfc_index.checklist(rfc_index.collect())
    }


def pytest(tree: Path, tests: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=no", *options, *tests],
        cwd=tree, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL,
        env={
            **os.environ, "PYTHONDONTWRITEBYTECODE": "1",
            "SIP_TESTDATA": os.environ.get("SIP_TESTDATA", str(ROOT.parent / "shared" / "testdata")),
        },
    )  # fmt: skip


def judge(mutant: Mutant, tree: Path, tests: list[str]) -> str:
    if not tests:
        return f"{BROKEN}: no test pins {mutant.rule}"
    path, text = tree / mutant.file, mutant.applied(tree)
    before = path.read_text()
    path.write_text(text)
    try:
        done = pytest(tree, tests, "-x")
    except subprocess.TimeoutExpired:
        return CAUGHT  # it hangs, and a run of the tests would tell
    finally:
        path.write_text(before)
    if done.returncode > 1:
        return f"{BROKEN}: pytest ended with {done.returncode}: {done.stdout[-300:]}"
    return CAUGHT if done.returncode else SURVIVED


def copy_tree(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", ".hypothesis", "*.sqlite3")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=ignored)
        else:
            shutil.copy(source, folder / part)
    return folder


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--sample", type=int, default=0, help="so many, drawn at random")
    options.add_argument("--seed", type=int, default=None)
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options.add_argument("--only", default="", help="mutants of this line only")
    chosen = options.parse_args()
    seed = random.randrange(10**6) if chosen.seed is None else chosen.seed
    mutants = [mutant for mutant in load() if chosen.only in ("", mutant.rule)]
    for mutant in mutants:
        mutant.applied(ROOT)
    total = len(mutants)
    if chosen.sample:
        mutants = random.Random(seed).sample(mutants, min(chosen.sample, total))
        sys.stdout.write(f"{len(mutants)} of {total} mutants, seed {seed}\n")
    tests = tests_of()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: queue.Queue[Path] = queue.Queue()
        for number in range(chosen.jobs):
            trees.put(copy_tree(Path(folder) / str(number)))
        tree = trees.get()
        wanted = sorted({test for mutant in mutants for test in tests[mutant.rule]})
        clean = pytest(tree, wanted)
        trees.put(tree)
        red = set(re.findall(r"^(?:FAILED|ERROR) ([^\s\[]+)", clean.stdout, re.MULTILINE))
        if clean.returncode > 1 or (clean.returncode and not red):
            sys.stdout.write(clean.stdout[-3000:] + "\nmutants: the tests do not run even without a mutant\n")
            return 1
        for test in sorted(red):
            sys.stdout.write(f"red without any mutant, so it proves nothing here: {test}\n")
        tests = {rule: [test for test in found if test not in red] for rule, found in tests.items()}

        def run(mutant: Mutant) -> str:
            tree = trees.get()
            try:
                verdict = judge(mutant, tree, tests[mutant.rule])
            finally:
                trees.put(tree)
            sys.stdout.write(f"{verdict:8} {mutant.rule:4} {mutant.file}: {mutant.breaks}\n")
            sys.stdout.flush()
            return verdict

        with ThreadPoolExecutor(chosen.jobs) as pool:
            verdicts = list(pool.map(run, mutants))
    caught = verdicts.count(CAUGHT)
    sys.stdout.write(f"mutants caught: {caught} of {len(mutants)} ({time.monotonic() - start:.0f} s)\n")
    return caught != len(mutants)


if __name__ == "__main__":
    sys.exit(main())
