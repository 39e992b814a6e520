"""What the operator's commands share: one style of errors, plain tables, JSON and durations for a terminal.

Text that came from the network or the database is shown without control characters: no peer can drive a terminal.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from textwrap import indent
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
#: Columns whose option is called otherwise.
_OPTIONS = {"addresses": "address", "hdrs": "hdr", "flags": "ha1", "body": "body-file", "apasswd": "apasswd-stdin"}


class OperatorCommand(BaseCommand):
    """A command of verbs (`uacreg list`)."""

    # The checks import the whole web part; they run where the product starts.
    requires_system_checks: list[str] = []

    def verb(
        self, verbs: Any, name: str, run: Callable[[dict[str, Any]], None], help: str, example: str = "",
    ) -> CommandParser:
        """Add one verb to the sub-parsers; `run` gets the parsed options."""
        parser: CommandParser = verbs.add_parser(
            name, help=help, description=help[0].upper() + help[1:] + ".", formatter_class=RawDescriptionHelpFormatter,
            epilog=example and "Examples:\n" + indent(example, "  "),
            allow_abbrev=False,
        )
        parser.set_defaults(run=run)
        return parser

    def handle(self, *args: Any, **options: Any) -> None:
        options["run"](options)

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            output: str | None = super().execute(*args, **options)
            self.stdout.flush()
            return output
        except ValidationError as error:
            raise CommandError("\n".join(explain(error))) from None
        except DatabaseError as error:
            raise CommandError(
                f"The database does not answer as it should: {clean(str(error)).strip()}. "
                "Look at DATABASE_URL and TRUNKMGR_DATA_DIR, then run: manage.py migrate",
            ) from None
        except BrokenPipeError:  # `… | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None

    def json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
        """Write rows in columns as wide as their widest text; `empty` is said where there are none."""
        texts = [[clean("–" if cell in (None, "") else str(cell)) for cell in row] for row in rows]
        if not texts:
            self.stdout.write(empty)
            return
        widths = [max(map(len, column)) for column in zip(headings, *texts, strict=True)]
        self.stdout.write(self.style.MIGRATE_HEADING(_line(headings, widths)))
        self.stdout.write("\n".join(_line(row, widths) for row in texts))

    def pairs(self, values: dict[str, Any]) -> None:
        """Write names and values, one a line, the empty ones as a dash."""
        width = max(map(len, values))
        for name, value in values.items():
            self.stdout.write(f"{name.ljust(width)}  {clean('–' if value in (None, '') else str(value))}")

    def confirm(self, question: str, options: dict[str, Any]) -> None:
        """Ask, unless --yes was given.  Raises CommandError when the answer is no or nobody can be asked."""
        if options["yes"]:
            return
        if not sys.stdin.isatty():
            raise CommandError(f"{question} Nobody can be asked here: say --yes.")
        if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.")


def add_yes(parser: CommandParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def explain(error: ValidationError) -> list[str]:
    """Say a validation error as lines `option: reason`."""
    if not hasattr(error, "error_dict"):
        return [clean(message) for message in error.messages]
    return [
        clean(message if column == "__all__" else f"--{_OPTIONS.get(column, column.replace('_', '-'))}: {message}")
        for column, messages in error.message_dict.items() for message in messages
    ]


def operator() -> str:
    """Who runs this command, for the change log."""
    try:
        return f"{os.environ.get('SUDO_USER') or getpass.getuser()} (command)"
    except (KeyError, OSError):  # a container's uid without a name
        return f"uid {os.getuid()} (command)"


def clean(text: str) -> str:
    return _CONTROL.sub("�", text)


def span(seconds: float) -> str:
    """Say a duration in at most two units; what lies in the past is "now"."""
    rest = round(seconds)
    if rest <= 0:
        return "now"
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def until(time: datetime | None, now: datetime) -> str:
    return span((time - now).total_seconds()) if time else ""


def since(time: datetime | None, now: datetime) -> str:
    return span((now - time).total_seconds()) if time else ""


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
