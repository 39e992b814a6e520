"""Writes the table of docs/profiles.md: what each shipped profile says, and what nobody has checked.

Reads `trunkmgr/profiles/*.toml`: `make profiles`; a test sees that the page is current.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "profiles.md"
MARK = "<!-- From here on: make profiles -->\n"


def table() -> str:
    """Return the table in Markdown."""
    lines = ["| Profile | For | Says | Known from |", "|---|---|---|---|"]
    for path in sorted((ROOT / "trunkmgr" / "profiles").glob("*.toml")):
        told = tomllib.loads(path.read_text("utf-8"))
        fields = told.get("fields", {})
        says = "<br>".join(f"{name} `{each['value']}`" for name, each in fields.items())
        known = "<br>".join(
            each["source"] + (" **(not checked)**" if each.get("general_knowledge") else "") for each in fields.values()
        )
        about = told["about"].replace("|", "\\|").replace("NAME.pstn", "`NAME`.pstn")
        lines.append(f"| `{path.stem}` {told['version']} | {told['name']}. {about} | {says} | {known} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    written, _, _ = PAGE.read_text("utf-8").partition(MARK)
    return written + MARK + "\n" + table()


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.exit()
