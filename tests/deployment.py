"""What deploy/ says, read for tests: the units, and what a supervisor makes of them."""

from __future__ import annotations

import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
SERVICES = sorted(path.name for path in DEPLOY.glob("*.service"))
#: Where docs/deploy.md installs it.
PREFIX = "/opt/trunkmgr"


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Sections of a unit, and in each the values of a key."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def value(name: str, section: str, key: str) -> str:
    """The only value of a key that is there once."""
    (found,) = unit(name)[section][key]
    return found


def command(name: str) -> list[str]:
    """What a service starts; its name with or without `.service`."""
    return shlex.split(value(f"{name.removesuffix('.service')}.service", "Service", "ExecStart"))
