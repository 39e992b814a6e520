"""`manage.py bans`: which addresses are banned, and ending that."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from trunkmgr.management.output import OperatorCommand, operator, since, until


class Command(OperatorCommand):
    help = "List the addresses that are banned for a time, or end bans."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
        listing = self.verb(verbs, "list", self.list, "show the bans that hold")
        listing.add_argument("--json", action="store_true", help="write JSON")
        removing = self.verb(verbs, "remove", self.remove, "end bans", "manage.py bans remove 203.0.113.66")
        removing.add_argument("addresses", nargs="+", metavar="ADDRESS")

    def list(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import bans

        now, standing = timezone.now(), list(bans.standing())
        if options["json"]:
            self.json([
                {"address": ban.address, "rule": ban.rule, "node": ban.node.name, "since": ban.since_time,
                 "until": ban.until_time}
                for ban in standing
            ])
            return
        self.table(
            ("Address", "Banned for", "Since", "Ends in", "Worker"),
            ((ban.address, ban.rule, since(ban.since_time, now), until(ban.until_time, now), ban.node.name)
             for ban in standing),
            empty="No address is banned.",
        )

    def remove(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import bans

        count = bans.lift(options["addresses"], operator())
        if not count:
            raise CommandError(f"No ban of {', '.join(options['addresses'])} holds. See: manage.py bans list")
        self.stdout.write(f"{count:,} ban{'' if count == 1 else 's'} ended.")
