"""`manage.py provider`: who sells us trunks, and from where they may call."""

from __future__ import annotations

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db.models import Count

from trunkmgr import lint
from trunkmgr.management import trunks
from trunkmgr.management.output import OperatorCommand, add_yes, operator
from trunkmgr.models import Provider


class Command(OperatorCommand):
    help = "Show and set the providers that accounts register at."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        setting = self.verb(
            verbs, "set", self.set, "add a provider, or change what is given of it",
            "manage.py provider set RheinTel --domain sip.rheintel.example --proxy sip:192.0.2.10:5060\n"
            "manage.py provider set RheinTel --address 192.0.2.10 --address 198.51.100.0/24",
        )
        setting.add_argument("name", metavar="NAME")
        setting.add_argument("--domain", help="the provider's SIP domain")
        setting.add_argument("--proxy", metavar="URI", help="sip: URI that accounts without an auth_proxy register at")
        setting.add_argument(
            "--socket", metavar="PROTO:IP:PORT", help="what accounts without a socket of their own register from",
        )
        setting.add_argument(
            "--registrars", metavar="URIS", help="sip: URIs that they register at while nobody there answers",
        )
        setting.add_argument(
            "--address", action="append", metavar="ADDRESS",
            help="address or network that may call us (repeatable; replaces those before; '' for none)",
        )
        setting.add_argument(
            "--size-rule", choices=Provider.SizeRule.values,
            help="requests of more than 1,300 bytes: over TCP and back to UDP where TCP fails (rfc), or always UDP",
        )
        setting.add_argument(
            "--reg-rate", type=int, metavar="N",
            help="REGISTERs a second to each of its addresses at most, by all accounts together (0: 500)",
        )
        setting.add_argument(
            "--tls-name", choices=Provider.TlsName.values,
            help="whose certificate counts over TLS: the name that was asked for, or also the server that SRV names",
        )
        setting.add_argument(
            "--tls-wildcard", action=argparse.BooleanOptionalAction, help="whether a wildcard certificate counts",
        )
        setting.add_argument(
            "--tls-fingerprint", metavar="SHA256", help="the only certificate that counts ('' for none)",
        )
        setting.add_argument(
            "--tls-client-certificate", action=argparse.BooleanOptionalAction,
            help="whether we show our certificate",
        )
        setting.add_argument(
            "--profile", metavar="PROFILE",
            help="a profile: gives a new provider what is left out; compare and take later with: manage.py profile",
        )
        listing = self.verb(verbs, "list", self.list, "show all providers", "manage.py provider list --json")
        listing.add_argument("--json", action="store_true", help="write JSON")
        removing = self.verb(
            verbs, "remove", self.remove, "delete a provider; its accounts stay", "manage.py provider remove RheinTel",
        )
        removing.add_argument("name", metavar="NAME")
        add_yes(removing)

    def set(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import profiles, providers

        name = options["name"]
        provider = Provider.objects.filter(name=name).first() or Provider(name=name)
        if options["profile"]:
            provider.profile = trunks.profile(options["profile"])
        provider.domain = options["domain"] or provider.domain
        if options["proxy"] is not None:
            provider.proxy = options["proxy"]
        if options["address"] is not None:
            provider.addresses = "\n".join(filter(None, options["address"]))
        provider.size_rule = options["size_rule"] or provider.size_rule
        for name in (
            "registrars", "socket", "reg_rate", "tls_name", "tls_wildcard", "tls_fingerprint", "tls_client_certificate",
        ):
            if options[name] is not None:
                setattr(provider, name, options[name])
        if not provider.pk:
            profiles.fill_in(provider)
            if not provider.domain:
                raise CommandError(f"The provider {provider.name} is new: say its SIP domain with --domain.")
        providers.save(provider, operator())
        for remark in lint.provider(provider, [socket.partition(":")[0] for socket in settings.TRUNKMGR.sip_listen]):
            self.stdout.write(f"Note: {remark}")
        self.stdout.write(f"{provider.name} is set: {provider.domain}.")

    def list(self, options: dict[str, Any]) -> None:
        rows = list(Provider.objects.select_related("profile").annotate(count=Count("accounts")))
        if options["json"]:
            self.json([
                {
                    "name": row.name, "domain": row.domain, "proxy": row.proxy, "registrars": row.registrars,
                    "socket": row.socket,
                    "addresses": row.addresses.split(),
                    "size_rule": row.size_rule, "reg_rate": row.reg_rate, "tls_name": row.tls_name,
                    "tls_wildcard": row.tls_wildcard,
                    "tls_fingerprint": row.tls_fingerprint, "tls_client_certificate": row.tls_client_certificate,
                    "profile": row.profile.slug if row.profile else "", "profile_version": row.profile_version,
                    "accounts": row.count,
                }
                for row in rows
            ])
            return
        self.table(
            ("Provider", "Domain", "Proxy", "May call from", "Size rule", "Accounts"),
            (
                (row.name, row.domain, row.proxy, ", ".join(row.addresses.split()), row.size_rule, row.count)
                for row in rows
            ),
            empty="No providers yet. Add one with: manage.py provider set NAME --domain DOMAIN",
        )

    def remove(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import providers

        provider = trunks.provider(options["name"])
        if provider is None:
            raise CommandError("Name the provider to remove.")
        if used := provider.accounts.count():
            self.confirm(f"{used:,} accounts belong to {provider.name} and lose its proxy. Remove it?", options)
        providers.remove(provider.pk, operator())
        self.stdout.write(f"{provider.name} is removed.")
