"""Fuzz each target for a bounded time and print how much was tried: `python -m tests.fuzz [SECONDS [TARGET …]]`.

With `--runs N` each target takes N inputs from a fixed seed and starts from the kept corpus alone: CI judges a commit
the same way twice.
New inputs that reach new code are kept in test-results/fuzz/ for the next run; one that fails is left there as
`<target>-crash-…`.  Move it to tests/fuzz/regressions/<target>/: from then on pytest replays it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FOUND = HERE.parents[1] / "test-results" / "fuzz"


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fuzz(target: str, seconds: int, runs: int) -> None:
    """Run in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["sipengine"]):
        from tests.fuzz.targets import TARGETS
    found = Path(tempfile.mkdtemp()) if runs else FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(parents=True, exist_ok=True)
    repeatable = [f"-runs={runs}", "-seed=1"] if runs else []
    atheris.Setup(
        [
            "fuzz", *repeatable, f"-max_total_time={seconds}", "-max_len=4096", "-timeout=5", "-rss_limit_mb=1024",
            "-print_final_stats=1", f"-dict={HERE / 'sip.dict'}", f"-artifact_prefix={FOUND / target}-", str(found),
            str(HERE / "corpus" / target),
        ],
        TARGETS[target],
    )
    atheris.Fuzz()


def main(seconds: int, names: list[str], runs: int) -> int:
    """Run each target in a process of its own."""
    failed = 0
    total = 0
    for name in names or sorted(path.name for path in (HERE / "corpus").iterdir()):
        with tempfile.TemporaryDirectory() as scratch:
            done = subprocess.run(
                [sys.executable, "-m", "tests.fuzz", "--in-process", "--runs", str(runs), str(seconds), name],
                capture_output=True, text=True, errors="replace", timeout=seconds + 120, cwd=HERE.parents[1],
                env={**os.environ, "TMPDIR": scratch, "PYTHONHASHSEED": "1" if runs else "random"},
            )
        tried = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        reached = re.findall(r"cov: (\d+)", done.stderr)
        total += int(tried[1]) if tried else 0
        say(f"fuzz {name}: {int(tried[1]) if tried else 0:,} inputs, {reached[-1] if reached else 0} edges reached")
        if done.returncode:
            failed += 1
            say(done.stdout[-2000:] + done.stderr[-4000:])
    say(f"fuzz: {total:,} inputs tried, {failed} targets failed")
    return min(failed, 1)


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    options.add_argument("seconds", type=int, nargs="?", default=10, help="for each target")
    options.add_argument("targets", nargs="*", metavar="TARGET")
    options.add_argument("--runs", type=int, default=0, help="so many inputs for each target, from a fixed seed")
    options.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.in_process:
        fuzz(given.targets[0], given.seconds, given.runs)
    else:
        sys.exit(main(given.seconds, given.targets, given.runs))
