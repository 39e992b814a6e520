"""`manage.py doctor`: whether an account can register, step by step, without touching its registration."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from trunkmgr.exceptions import NoWorker
from trunkmgr.management import trunks
from trunkmgr.management.output import OperatorCommand, clean, operator

_MARKS = {"good": "ok  ", "remark": "note", "bad": "FAIL", "skipped": "skip"}


class Command(OperatorCommand):
    help = (
        "Look at an account from its row over DNS, connection, TLS and OPTIONS to a trial REGISTER, and say what to "
        "do. Its registration stays as it is."
    )

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        kwargs.setdefault("formatter_class", RawDescriptionHelpFormatter)
        return super().create_parser(
            prog_name, subcommand, epilog=(
                "Examples:\n  manage.py doctor berlin\n  manage.py doctor berlin --no-trial\n"
                "  manage.py doctor berlin --json | jq .verdict\n\n"
                "Exit code: 0 where all is well, 1 where something must be done."
            ), **kwargs,
        )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("l_uuid", metavar="ACCOUNT", help="the account's l_uuid")
        parser.add_argument(
            "--no-trial", dest="trial", action="store_false",
            help="only ask which bindings there are; for a provider that keeps one binding for an account",
        )
        parser.add_argument("--json", action="store_true", help="write JSON when it has ended")

    def handle(self, *args: Any, **options: Any) -> None:
        from trunkmgr.services import preflight

        account = trunks.account(options["l_uuid"])
        try:
            order = preflight.begin(account.l_uuid, operator(), trial=options["trial"])
        except NoWorker as error:
            raise CommandError(str(error)) from None
        result = preflight.follow(order, (lambda step: None) if options["json"] else self._step)
        if options["json"]:
            self.json(result)
        text = clean(result["message"])
        if not result["ok"]:
            raise CommandError(text)
        if not options["json"]:
            self.stdout.write(text)

    def _step(self, step: dict[str, Any]) -> None:
        took = f"  ({step['seconds'] * 1000:.0f} ms)" if step["seconds"] is not None else ""
        self.stdout.write(clean(f"{_MARKS.get(step['state'], '?   ')}  {step['title']}: {step['detail']}{took}"))
        for line in step["lines"]:
            self.stdout.write(clean(f"        {line}"))
        self.stdout.flush()
