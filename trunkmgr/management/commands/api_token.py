"""`manage.py api_token`: the tokens with which programs use the HTTP API."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from trunkmgr.management.output import OperatorCommand, add_yes, operator, since
from trunkmgr.models import ApiToken


class Command(OperatorCommand):
    help = "Make, show and take back tokens of the HTTP API (docs/api.md)."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        adding = self.verb(
            verbs, "add", self.add, "make a token and write it, once; only a hash of it is stored",
            "manage.py api_token add nightly-check --may uac_req_send\n"
            "manage.py api_token add dashboard --may uac_req_send --may view_orders > token.txt",
        )
        adding.add_argument("name", metavar="NAME", help="who or what uses it; stands in the orders it places")
        adding.add_argument(
            "--may", action="append", default=[], choices=ApiToken.Permission.values, required=True,
            dest="permissions", help="what it may do (repeatable)",
        )
        listing = self.verb(verbs, "list", self.list, "show all tokens by name", "manage.py api_token list --json")
        listing.add_argument("--json", action="store_true", help="write JSON")
        removing = self.verb(
            verbs, "remove", self.remove, "take a token back at once", "manage.py api_token remove nightly-check",
        )
        removing.add_argument("name", metavar="NAME")
        add_yes(removing)

    def add(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import api_tokens

        _, clear = api_tokens.add(options["name"], options["permissions"], operator())
        self.stdout.write(clear)
        self.stderr.write("Store it now: it is not shown again.")

    def list(self, options: dict[str, Any]) -> None:
        rows, now = list(ApiToken.objects.all()), timezone.now()
        if options["json"]:
            self.json([
                {
                    "name": row.name, "permissions": row.permissions, "created_time": row.created_time,
                    "created_by": row.created_by, "used_time": row.used_time,
                }
                for row in rows
            ])
            return
        self.table(
            ("Name", "May", "Made by", "Made before", "Used before"),
            (
                (row.name, ", ".join(row.permissions), row.created_by, since(row.created_time, now),
                 since(row.used_time, now))
                for row in rows
            ),
            empty="No tokens yet. Make one with: manage.py api_token add NAME --may uac_req_send",
        )

    def remove(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import api_tokens

        name = options["name"]
        if not ApiToken.objects.filter(name=name).exists():
            raise CommandError(f"No token is called {name!r}. See: manage.py api_token list")
        self.confirm(f"Take back the token {name}? What uses it stops working at once.", options)
        api_tokens.remove(name)
        self.stdout.write(f"{name} is taken back.")
