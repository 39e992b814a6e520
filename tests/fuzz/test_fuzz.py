"""The kept inputs of the fuzz targets, and those that once failed: each is tried on every run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent


def kept() -> list[Any]:
    return [
        pytest.param(name, path, id=f"{name}-{path.name}")
        for name in TARGETS
        for folder in ("corpus", "regressions")
        for path in sorted((HERE / folder / name).glob("*"))
    ]


@pytest.mark.parametrize(("name", "path"), kept())
def test_kept_input(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    for name in TARGETS:
        assert len(list((HERE / "corpus" / name).glob("*"))) >= 5, name
