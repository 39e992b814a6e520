"""How a command gets a secret: from stdin, a file, the environment or the terminal, never from the command line.

An argument shows in `ps` to every user of the machine and stays in the shell's history.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

_WAYS = "--password-stdin, --password-file PATH, --password-env NAME, or no value at all to be asked for it"


class _AskOnly(argparse.Action):
    """An option that may not carry its value."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values is not None:
            parser.error(
                f"{option_string} takes no value: an argument shows in ps and stays in the shell's history. "
                f"Use {_WAYS}.",
            )
        namespace.secret_ask = self.dest


def add_secret_options(parser: argparse.ArgumentParser) -> None:
    """Add the ways in which a password, or with --ha1 its HA1, is given."""
    group = parser.add_argument_group(
        "password", "An argument would show in ps, so the password comes in by one of these ways.",
    )
    group.add_argument(
        "--auth-password", "--password", nargs="?", action=_AskOnly, dest="auth_password", metavar="(no value)",
        help="ask for the password at the terminal",
    )
    group.add_argument(
        "--auth-ha1", nargs="?", action=_AskOnly, dest="auth_ha1", metavar="(no value)",
        help="ask for the HA1 (32 hex digits) at the terminal",
    )
    ways = group.add_mutually_exclusive_group()
    ways.add_argument("--password-stdin", action="store_true", help="read the first line of stdin")
    ways.add_argument("--password-file", metavar="PATH", help="read the first line of a file")
    ways.add_argument("--password-env", metavar="NAME", help="take the environment variable NAME")
    group.add_argument(
        "--ha1", action="store_true", help="what is read is the HA1, the MD5 of user:realm:password, not the password",
    )


def read_secret(options: dict[str, Any], *, needed: bool) -> dict[str, str]:
    """Return the secret columns to set: none when no way was chosen, else both, one of them empty.

    One that is `needed` is asked for where somebody can be asked.  Raises CommandError, without the secret in it, when
    the chosen way yields none.
    """
    asked = options.get("secret_ask")
    ways = [name for name in ("password_stdin", "password_file", "password_env") if options[name]]
    if asked and ways:
        raise CommandError("Choose one way to give the password.")
    if needed and not ways and not asked and sys.stdin.isatty():
        asked = "auth_password"
    if not asked and not ways:
        if options["ha1"]:
            raise CommandError(f"--ha1 says what is read, but not from where. Use {_WAYS}.")
        return {}
    secret = _ask(asked) if asked else _read(ways[0], options)
    if not secret:
        raise CommandError("The password that was given is empty.")
    ha1 = asked == "auth_ha1" or options["ha1"]
    return {"auth_password": "" if ha1 else secret, "auth_ha1": secret if ha1 else ""}


def _ask(column: str) -> str:
    if not sys.stdin.isatty():
        raise CommandError("Nobody can be asked here. Use --password-stdin, --password-file or --password-env.")
    return getpass.getpass("HA1: " if column == "auth_ha1" else "Password: ")


def _read(way: str, options: dict[str, Any]) -> str:
    if way == "password_stdin":
        return sys.stdin.readline().rstrip("\r\n")
    if way == "password_env":
        try:
            return os.environ[options["password_env"]]
        except KeyError:
            raise CommandError(f"The environment has no variable {options['password_env']}.") from None
    try:
        with Path(options["password_file"]).open(encoding="utf-8") as lines:
            return lines.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise CommandError(f"{options['password_file']} is not UTF-8.") from None
    except OSError as error:
        raise CommandError(f"{options['password_file']} cannot be read: {error.strerror}.") from None
