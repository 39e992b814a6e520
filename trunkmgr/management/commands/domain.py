"""`manage.py domain`: which PBX serves the calls of a local domain."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from trunkmgr.management.output import OperatorCommand, add_yes, operator
from trunkmgr.models import Domain, UacReg

#: What stands for "no next hop": calls ring what the users of the domain have registered.
DEVICES = "devices"


class Command(OperatorCommand):
    help = "Show and set the next hop, the PBX, of local domains."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        setting = self.verb(
            verbs, "set", self.set, "add a domain, or change what is given of it",
            "manage.py domain set pbx.example --next-hop sip:192.0.2.20:5060\n"
            "manage.py domain set phones.example --next-hop devices\n"
            "manage.py domain set pbx.example --address 192.0.2.21 --address 198.51.100.0/24",
        )
        setting.add_argument("l_domain", metavar="L_DOMAIN", help="as in l_domain of the accounts")
        setting.add_argument(
            "--next-hop", metavar="URI", help="sip: URI that its calls go to; 'devices': what has registered"
        )
        setting.add_argument(
            "--address", action="append", metavar="ADDRESS",
            help="further address or network of this PBX (repeatable; replaces those before; '' for none)",
        )
        listing = self.verb(verbs, "list", self.list, "show all domains", "manage.py domain list --json")
        listing.add_argument("--json", action="store_true", help="write JSON")
        removing = self.verb(verbs, "remove", self.remove, "delete a domain", "manage.py domain remove pbx.example")
        removing.add_argument("l_domain", metavar="L_DOMAIN")
        add_yes(removing)

    def set(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import domains

        name = options["l_domain"]
        domain = Domain.objects.filter(l_domain=name).first() or Domain(l_domain=name)
        if not domain.pk and not options["next_hop"]:
            raise CommandError(
                f"The domain {name} is new: say where its calls go with --next-hop sip:HOST:PORT or devices.",
            )
        if options["next_hop"]:
            domain.next_hop = "" if options["next_hop"] == DEVICES else options["next_hop"]
        if options["address"] is not None:
            domain.addresses = "\n".join(filter(None, options["address"]))
        domains.save(domain, operator())
        where = domain.next_hop or "what its devices have registered"
        self.stdout.write(f"Calls for {domain.l_domain} go to {where}.")

    def list(self, options: dict[str, Any]) -> None:
        rows = list(Domain.objects.all())
        if options["json"]:
            self.json([
                {"l_domain": row.l_domain, "next_hop": row.next_hop, "addresses": row.addresses.split()} for row in rows
            ])
            return
        self.table(
            ("Domain", "Next hop", "Further addresses"),
            ((row.l_domain, row.next_hop or "(devices)", ", ".join(row.addresses.split())) for row in rows),
            empty="No domains yet. Add one with: manage.py domain set L_DOMAIN --next-hop sip:HOST:PORT",
        )

    def remove(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import domains

        name = options["l_domain"]
        if not Domain.objects.filter(l_domain=name).exists():
            raise CommandError(f"No domain is called {name!r}. See: manage.py domain list")
        if used := UacReg.objects.filter(l_domain=name).count():
            self.confirm(f"{used:,} accounts lead to {name}; calls for them fail without it. Remove it?", options)
        domains.remove(name, operator())
        self.stdout.write(f"{name} is removed.")
