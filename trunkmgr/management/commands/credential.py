"""`manage.py credential`: what challenges of calls are answered with, besides the accounts' own passwords."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from trunkmgr.management import trunks
from trunkmgr.management.output import OperatorCommand, add_yes, operator
from trunkmgr.management.secret_input import add_secret_options, read_secret
from trunkmgr.models import Credential


class Command(OperatorCommand):
    help = "Show, add and remove the credentials that challenges of calls are answered with."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        listing = self.verb(
            verbs, "list", self.list, "show all credentials without their secrets", "manage.py credential list --json",
        )
        listing.add_argument("--json", action="store_true", help="write JSON")
        adding = self.verb(
            verbs, "add", self.add, "add a credential, for one account, for one provider's, or for every account",
            "manage.py credential add 49895550100 --realm sbc.rheintel.example --provider RheinTel \\\n"
            "    --password-stdin < password.txt\n"
            "manage.py credential add alice --account 4711\n"
            "manage.py credential add alice --realm example.net --ha1 --password-file ha1.txt",
        )
        adding.add_argument("username", metavar="USER")
        adding.add_argument("--realm", default="", help="the realm of the challenge; left out: every realm")
        owner = adding.add_mutually_exclusive_group()
        owner.add_argument("--account", metavar="L_UUID", help="only calls of this account")
        owner.add_argument("--provider", metavar="NAME", help="only calls of this provider's accounts")
        adding.add_argument("--note", metavar="TEXT", default="", help="a remark of yours")
        add_secret_options(adding)
        removing = self.verb(
            verbs, "remove", self.remove, "delete a credential", "manage.py credential remove 3",
        )
        removing.add_argument("id", metavar="ID", type=int, help="as `credential list` shows it")
        add_yes(removing)

    def list(self, options: dict[str, Any]) -> None:
        rows = list(Credential.objects.select_related("provider"))
        if options["json"]:
            self.json([
                {
                    "id": row.pk, "username": row.username, "realm": row.realm, "account": row.account_id,
                    "provider": row.provider.name if row.provider else None, "secret": _kind(row), "note": row.note,
                }
                for row in rows
            ])
            return
        self.table(
            ("Id", "User", "Realm", "Answers for", "Secret", "Note"),
            ((row.pk, row.username, row.realm or "(any)", row.scope, _kind(row), row.note) for row in rows),
            empty="No credentials besides those of the accounts. Add one with: manage.py credential add",
        )

    def add(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import credentials

        secret = read_secret(options, needed=True)
        credential = credentials.save(Credential(
            username=options["username"], realm=options["realm"], note=options["note"],
            account=trunks.account(options["account"]) if options["account"] else None,
            provider=trunks.provider(options["provider"] or ""),
            password=secret.get("auth_password", ""), ha1=secret.get("auth_ha1", ""),
        ), operator())
        self.stdout.write(f"{credential.pk} is added: {credential}, for {credential.scope}.")

    def remove(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import credentials

        credential = Credential.objects.select_related("provider").filter(pk=options["id"]).first()
        if credential is None:
            raise CommandError(f"No credential has the id {options['id']}. See: manage.py credential list")
        self.confirm(f"Remove the credential {credential} of {credential.scope}?", options)
        credentials.remove(credential.pk, operator())
        self.stdout.write(f"{credential.pk} is removed: {credential}.")


def _kind(credential: Credential) -> str:
    return "HA1" if credential.ha1 else "password"
