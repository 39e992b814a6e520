"""`manage.py uacreg`: the accounts, by command; writes through services as the admin does."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import models
from django.db.models import Q
from django.utils import timezone

from trunkmgr import coverage, lint, payloads, selectors
from trunkmgr.causes import Shown
from trunkmgr.exceptions import NoWorker
from trunkmgr.management import trunks
from trunkmgr.management.ordering import OrderCommand
from trunkmgr.management.output import add_yes, clean, operator, since, until
from trunkmgr.management.secret_input import add_secret_options, read_secret
from trunkmgr.models import Change, Order, UacReg, UacRegOptions

#: Columns that an option sets, in the table's order; the secrets have their own ways in.
COLUMNS = tuple(
    field for field in UacReg._meta.concrete_fields if field.name not in ("id", "l_uuid", "auth_password", "auth_ha1")
)
#: Refused rows of a file that are worth reading before the first are mended.
SHOWN_REFUSALS = 20


class Command(OrderCommand):
    help = "Show and change the accounts that register at providers."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        listing = self.verb(
            verbs, "list", self.list, "show all accounts with their state",
            "manage.py uacreg list --state failing --state refused\n"
            "manage.py uacreg list --provider RheinTel --search 4989 --json",
        )
        listing.add_argument(
            "--state", action="append", choices=[shown.name.lower() for shown in Shown],
            help="only this state (repeatable)",
        )
        listing.add_argument("--provider", metavar="NAME", help="only accounts of this provider")
        listing.add_argument("--search", metavar="TEXT", help="only where an identity or the note contains TEXT")
        listing.add_argument("--json", action="store_true", help="write JSON")
        show = self.verb(
            verbs, "show", self.show, "show all of one account but its secrets, its state, and why",
            "manage.py uacreg show 4711",
        )
        show.add_argument("l_uuid", metavar="L_UUID")
        show.add_argument("--json", action="store_true", help="write JSON")
        add = self.verb(
            verbs, "add", self.add, "add an account; it registers at once",
            "manage.py uacreg add 4711 --l-username alice --l-domain pbx.example --r-username 49895550100 \\\n"
            "    --r-domain sip.rheintel.example --provider RheinTel --auth-password\n"
            "manage.py uacreg add 4712 … --password-stdin < password.txt",
        )
        add.add_argument("l_uuid", metavar="L_UUID", nargs="?", help=_help(UacReg, "l_uuid"))
        add.add_argument("--l-uuid", dest="l_uuid_option", metavar="L_UUID", help="the same, as an option")
        edit = self.verb(
            verbs, "edit", self.edit, "change an account; the change takes effect at once",
            "manage.py uacreg edit 4711 --expires 600 --inbound-identity anonymous\n"
            "manage.py uacreg edit 4711 --auth-password",
        )
        edit.add_argument("l_uuid", metavar="L_UUID")
        for editor in (add, edit):
            _add_columns(editor)
        for name, run, help in (
            ("remove", self.remove, "un-REGISTER accounts and delete them"),
            ("enable", self.enable, "switch accounts on; they register at once"),
            ("disable", self.disable, "switch accounts off and un-REGISTER them"),
            ("register", self.register, "send REGISTER now and wait for the answer"),
            ("unregister", self.unregister, "un-REGISTER now and wait for the answer; the account stays enabled"),
            ("refresh", self.refresh, "have the rows read again now, as after a change by foreign hands"),
        ):
            verb = self.verb(verbs, name, run, help, f"manage.py uacreg {name} 4711")
            verb.add_argument("l_uuids", metavar="L_UUID", nargs="+")
            if name == "remove":
                add_yes(verb)
        showing = self.verb(
            verbs, "preview", self.preview, "show the exact REGISTER and INVITE that would be sent; nothing is sent",
            "manage.py uacreg preview 4711\nmanage.py uacreg preview 4711 --number +493012345678 --json",
        )
        showing.add_argument("l_uuid", metavar="L_UUID")
        showing.add_argument("--number", metavar="NUMBER", default="", help="whom the PBX calls")
        showing.add_argument("--json", action="store_true", help="write JSON")
        taking = self.verb(
            verbs, "import", self.import_, "take accounts over from a CSV or JSON file, all or none",
            "manage.py uacreg import uacreg.csv --dry-run\nmanage.py uacreg import - < accounts.json\n"
            "A dump of Kamailio's table is such a file: sqlite3 -csv -header kamailio.db 'select * from uacreg'",
        )
        taking.add_argument("file", metavar="FILE", help="the file, - for stdin; UTF-8, columns as export writes them")
        taking.add_argument("--format", choices=("csv", "json"), help="default: seen from the file's first character")
        taking.add_argument("--dry-run", action="store_true", help="write nothing, show what would change")
        giving = self.verb(
            verbs, "export", self.export, "write all accounts as CSV or JSON, without secrets",
            "manage.py uacreg export > accounts.csv\n"
            "manage.py uacreg export --output accounts.json --with-encrypted-secrets",
        )
        giving.add_argument("--format", choices=("csv", "json"), help="default: the output file's ending, else csv")
        giving.add_argument("--output", metavar="FILE", help="default: stdout; a file is readable for its owner only")
        giving.add_argument(
            "--with-encrypted-secrets", action="store_true",
            help="passwords as enc1: tokens, which an installation with the same TRUNKMGR_FIELD_KEYS can import",
        )

    def list(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        found = selectors.accounts().order_by("l_uuid")
        if provider := trunks.provider(options["provider"] or ""):
            found = found.filter(options__provider=provider)
        if text := options["search"]:
            columns = ("l_uuid", "l_username", "l_domain", "r_username", "r_domain", "auth_username", "options__note")
            found = found.filter(Q(*[(f"{column}__icontains", text) for column in columns], _connector=Q.OR))
        rows = [trunks.trunk(account, now) for account in found]
        if options["state"]:
            rows = [row for row in rows if row.shown.name.lower() in options["state"]]
        if options["json"]:
            self.json([row.summary() for row in rows])
            return
        self.table(
            ("State", "l_uuid", "Local", "Remote", "Provider", "Answer", "Why", "Expires in", "Next"),
            (
                (row.label, row.account.l_uuid, row.local, row.remote, row.provider, row.answer, row.why,
                 until(row.registration.bound_until_time, now), until(row.registration.next_attempt_time, now))
                for row in rows
            ),
            empty="No account matches." if text or provider or options["state"] else
                  "No accounts yet. Add one with: manage.py uacreg add, or the admin.",
        )

    def show(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import foreign

        now = timezone.now()
        trunk = trunks.trunk(trunks.account(options["l_uuid"]), now)
        account, own, live = trunk.account, trunk.account.get_options(), trunk.registration
        values: dict[str, Any] = {"l_uuid": account.l_uuid}
        values |= {field.name: getattr(account, field.name) for field in COLUMNS}
        values |= {"password": _set(account.auth_password), "ha1": _set(account.auth_ha1), "enabled": account.enabled}
        values |= {
            "provider": trunk.provider, "inbound_identity": str(own.inbound_identity),
            "inbound_from": str(own.inbound_from),
            "registrars": own.registrars, "at_once": own.at_once, "outbound_proxy": own.outbound_proxy,
            "digest_minimum": str(own.digest_minimum), "authentication": str(own.authentication),
            "numbers": own.numbers, "max_calls": own.max_calls, "max_rate": own.max_rate, "qualify": own.qualify,
            "outbound": own.outbound, "gin": own.gin, "note": own.note,
        }
        values["kept_in"] = "UAC_REG_DB_URL" if foreign.is_foreign(account) else "our database"
        counted = coverage.until(live, now)
        if options["json"]:
            self.json(values | {"registration": trunk.summary() | {
                "contact": live.contact, "stale": live.stale.split(),
                "target": live.target, "granted": live.granted, "round_trip": live.round_trip,
                "qualify_state": str(live.qualify_state), "qualify_round_trip": live.qualify_round_trip,
                "qualify_time": live.qualify_time,
                "realm_seen": live.realm_seen, "trigger": live.trigger, "call_id": live.call_id, "cseq": live.cseq,
                "service_route": live.service_route, "path": live.path, "associated_uris": live.associated_uris,
                "covered": counted.covered, "coverable": counted.coverable, "covered_ratio": counted.ratio,
            }})
            return
        self.pairs(values)
        self.stdout.write("")
        self.pairs({
            "state": trunk.label + (f" (was {trunk.was})" if trunk.was else ""), "since": since(live.state_time, now),
            "why": trunk.sentence or trunk.why, "what to do": trunk.fix, "last answer": trunk.answer,
            "expires in": until(live.bound_until_time, now), "next attempt": until(live.next_attempt_time, now),
            "caused by": live.get_trigger_display() if live.trigger else "", "failures in a row": live.failures,
            "registrar": live.target, "server": " ".join(payloads.reach(live, now)), "contact": live.contact,
            "earlier contacts, still bound": live.stale.replace("\n", " "),
            "calls go by (Service-Route)": live.service_route,
            "path": live.path, "identities (P-Associated-URI)": live.associated_uris,
            "covered": counted.told(),
            "worker": live.owner.name if live.owner else "",
        })

    def add(self, options: dict[str, Any]) -> None:
        named = [name for name in (options["l_uuid"], options["l_uuid_option"]) if name]
        if len(set(named)) != 1:
            raise CommandError("Name the new account by one L_UUID.")
        if UacReg.objects.filter(l_uuid=named[0]).exists():
            raise CommandError(f"The account {named[0]} is there already; uacreg edit changes it.")
        account = UacReg(l_uuid=named[0])
        self._save(account, options)
        self.stdout.write(f"{account.l_uuid} is added: {account}.")

    def edit(self, options: dict[str, Any]) -> None:
        account = trunks.account(options["l_uuid"])
        if self._save(account, options):
            self.stdout.write(f"{account.l_uuid} is changed: {account}.")
        else:
            self.stdout.write(f"{account.l_uuid} stays as it was: no option says what to change.")

    def _save(self, account: UacReg, options: dict[str, Any]) -> bool:
        from trunkmgr.services import accounts

        values = {field.name: options[field.name] for field in COLUMNS if options[field.name] is not None}
        without = options["authentication"] not in (None, UacRegOptions.Authentication.PASSWORD)
        values |= read_secret(options, needed=not account.pk and not without)
        if without:
            # Whoever says that there is none does not want the stored one either.
            values = {"auth_password": "", "auth_ha1": ""} | values
        own = account.get_options()
        own_values = {
            name: options[name]
            for name in (
                "inbound_identity", "inbound_from", "registrars", "at_once", "outbound_proxy", "digest_minimum",
                "authentication", "numbers", "max_calls", "max_rate", "qualify", "outbound", "gin", "note",
            )
            if options[name] is not None
        }
        if options["provider"] is not None:
            own_values["provider"] = trunks.provider(options["provider"])
        for row, changes in ((account, values), (own, own_values)):
            for name, value in changes.items():
                setattr(row, name, value)
        if account.pk and not values and not own_values:
            return False
        accounts.save(account, own, operator())
        for remark in lint.account(account, own):
            self.stdout.write(f"Note: {remark}")
        return True

    def remove(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import accounts

        found = [trunks.account(l_uuid) for l_uuid in options["l_uuids"]]
        named = ", ".join(f"{account.l_uuid} ({account})" for account in found)
        self.confirm(f"Remove {named} and end the registration at the provider?", options)
        for account in found:
            accounts.remove(account.l_uuid, operator())
            self.stdout.write(f"{account.l_uuid} is removed.")

    def enable(self, options: dict[str, Any]) -> None:
        self._set_enabled(options, True)

    def disable(self, options: dict[str, Any]) -> None:
        self._set_enabled(options, False)

    def _set_enabled(self, options: dict[str, Any], enabled: bool) -> None:
        from trunkmgr.services import accounts

        for account in [trunks.account(l_uuid) for l_uuid in options["l_uuids"]]:
            word = "enabled" if enabled else "disabled"
            changed = accounts.set_enabled(account.l_uuid, enabled, operator())
            self.stdout.write(f"{account.l_uuid} is {word}{' now' if changed else ' already'}.")

    def refresh(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import changes

        for account in [trunks.account(l_uuid) for l_uuid in options["l_uuids"]]:
            changes.log(Change.Table.UACREG, account.l_uuid, operator())
            self.stdout.write(f"The worker reads {account.l_uuid} again.")

    def register(self, options: dict[str, Any]) -> None:
        self._order(options, Order.Verb.REGISTER)

    def unregister(self, options: dict[str, Any]) -> None:
        self._order(options, Order.Verb.UNREGISTER)

    def _order(self, options: dict[str, Any], verb: str) -> None:
        # Looked up first, so that a misspelt id is not taken for a missing worker.
        self.order(verb, {"l_uuids": [trunks.account(l_uuid).l_uuid for l_uuid in options["l_uuids"]]})

    def preview(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import preflight

        account = trunks.account(options["l_uuid"])
        try:
            told = preflight.preview(account.l_uuid, operator(), options["number"])
        except NoWorker as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.json(told)
        if not told["ok"]:
            raise CommandError(clean(told["message"]))
        if options["json"]:
            return
        for request in told["requests"]:
            self.stdout.write(self.style.MIGRATE_HEADING(f"{request['title']}, to {request['goes_to']}"))
            self.stdout.write("\n".join(clean(line) for line in request["text"].split("\r\n")))
        for remark in told["remarks"]:
            self.stdout.write(f"Note: {clean(remark)}")

    def import_(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import exchange
        from trunkmgr.services.exchange_file import ImportRefused

        try:
            data = sys.stdin.buffer.read() if options["file"] == "-" else Path(options["file"]).read_bytes()
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be read: {error.strerror}.") from None
        try:
            diffs = exchange.import_accounts(
                data, options["format"], dry_run=options["dry_run"], who=operator(), progress=self._progress,
            )
        except ImportRefused as error:
            lines = [clean(str(refusal)) for refusal in error.refusals[:SHOWN_REFUSALS]]
            if (more := len(error.refusals) - len(lines)) > 0:
                lines.append(f"and {more:,} more.")
            raise CommandError("\n".join([*lines, "Nothing was imported."])) from None
        for diff in diffs:
            if options["dry_run"] and diff.verb != "unchanged":
                self.stdout.write(clean(str(diff)))
        counts = Counter(diff.verb for diff in diffs)
        self.stdout.write(
            f"{counts['added']:,} added, {counts['changed']:,} changed, {counts['unchanged']:,} unchanged."
            + (" Dry run: nothing was written." if options["dry_run"] else ""),
        )

    def _progress(self, done: int, total: int) -> None:
        if sys.stderr.isatty() and total > 1000:
            self.stderr.write(f"\r{done:,} of {total:,}", ending="\n" if done == total else "")

    def export(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import exchange

        output = options["output"]
        format = options["format"] or ("json" if output and output.endswith(".json") else "csv")
        lines = exchange.export_accounts(format, with_encrypted_secrets=options["with_encrypted_secrets"])
        if not output:
            self.stdout.write("".join(lines), ending="")
            return
        try:
            # Beside the target, then renamed: an export that breaks off leaves the old file as it was.
            part = f"{output}.part"
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.writelines(lines)
            Path(part).replace(output)
        except OSError as error:
            raise CommandError(f"{output} cannot be written: {error.strerror}.") from None


def _add_columns(parser: CommandParser) -> None:
    """Add an option for each column but the secrets, which have ways of their own."""
    group = parser.add_argument_group("columns of the account", "As in Kamailio's uacreg; what is left out stays.")
    for field in COLUMNS:
        number = isinstance(field, models.IntegerField)
        group.add_argument(
            f"--{field.name.replace('_', '-')}", dest=field.name, type=int if number else str,
            metavar="N" if number else "TEXT", help=_help(UacReg, field.name),
        )
    own = parser.add_argument_group("what trunkmgr adds")
    own.add_argument("--provider", metavar="NAME", help="the provider, empty for none")
    own.add_argument(
        "--inbound-identity", choices=UacRegOptions.InboundIdentity.values,
        help=_help(UacRegOptions, "inbound_identity"),
    )
    own.add_argument(
        "--inbound-from", choices=UacRegOptions.InboundFrom.values, help=_help(UacRegOptions, "inbound_from"),
    )
    own.add_argument("--registrars", metavar="URIS", help=_help(UacRegOptions, "registrars"))
    own.add_argument("--at-once", action=argparse.BooleanOptionalAction, help=_help(UacRegOptions, "at_once"))
    own.add_argument("--outbound-proxy", metavar="URI", help=_help(UacRegOptions, "outbound_proxy"))
    own.add_argument(
        "--digest-minimum", choices=UacRegOptions.DigestMinimum.values, help=_help(UacRegOptions, "digest_minimum"),
    )
    own.add_argument(
        "--authentication", choices=UacRegOptions.Authentication.values, help=_help(UacRegOptions, "authentication"),
    )
    own.add_argument("--numbers", metavar="PREFIXES", help=_help(UacRegOptions, "numbers"))
    own.add_argument("--max-calls", type=int, metavar="N", help=_help(UacRegOptions, "max_calls"))
    own.add_argument("--max-rate", type=int, metavar="N", help=_help(UacRegOptions, "max_rate"))
    own.add_argument("--qualify", type=int, metavar="SECONDS", help=_help(UacRegOptions, "qualify"))
    own.add_argument("--outbound", action=argparse.BooleanOptionalAction, help=_help(UacRegOptions, "outbound"))
    own.add_argument("--gin", action=argparse.BooleanOptionalAction, help=_help(UacRegOptions, "gin"))
    own.add_argument("--note", metavar="TEXT", help="a remark of yours")
    add_secret_options(parser)


def _help(model: type[models.Model], name: str) -> str:
    field = model._meta.get_field(name)
    return str(getattr(field, "help_text", "") or getattr(field, "verbose_name", name)).replace("%", "%%")


def _set(secret: object) -> str:
    return "set" if secret else "not set"
