"""`manage.py uac`: the seed module's RPCs under their own names; the same services and orders as `manage.py uacreg`."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from trunkmgr import selectors
from trunkmgr.management import trunks
from trunkmgr.management.ordering import OrderCommand
from trunkmgr.management.output import clean, operator
from trunkmgr.models import Change, Order, UacReg
from trunkmgr.models.registration import State

#: `uac.reg_add`: what it wants in which order; the last may be left out.
ADDED = (
    "l_uuid", "l_username", "l_domain", "r_username", "r_domain", "realm", "auth_username", "auth_password", "auth_ha1",
    "auth_proxy", "expires", "flags", "reg_delay", "socket", "contact_addr", "contact_user",
)
NUMBERS = ("expires", "flags", "reg_delay")
SECRETS = ("auth_password", "auth_ha1")
#: Columns for which a record says `none` where they are empty.
NONE = ("auth_password", "auth_ha1", "auth_proxy", "contact_addr", "contact_user")

_FILTER = f"ATTR is one of {', '.join(trunks.ATTRIBUTES)}; of several accounts that match, the first is meant."
_ONGOING = (State.REGISTERING, State.REFRESHING, State.UNREGISTERING)


class Command(OrderCommand):
    help = "Kamailio's RPC commands of the module uac, by their names."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        dump = self.verb(
            verbs, "reg_dump", self.reg_dump, "show the records of all accounts", "manage.py uac reg_dump --json",
        )
        dump.add_argument("--json", action="store_true", help="write JSON")
        for name, run, help in (
            ("reg_info", self.reg_info, "show the record of one account"),
            ("reg_enable", self.reg_enable, "switch an account on; it registers at once"),
            ("reg_disable", self.reg_disable, "switch an account off and un-REGISTER it"),
            ("reg_register", self.reg_register, "send REGISTER now and wait for the answer"),
            ("reg_unregister", self.reg_unregister, "un-REGISTER now and wait; the account stays enabled"),
        ):
            verb = self.verb(
                verbs, name, run, help,
                f"manage.py uac {name} l_uuid berlin\nmanage.py uac {name} r_username 493023125010\n\n{_FILTER}",
            )
            verb.add_argument("attr", metavar="ATTR", nargs="?", default="")
            verb.add_argument("val", metavar="VAL", nargs="?", default="")
            if name == "reg_info":
                verb.add_argument("--json", action="store_true", help="write JSON")
        for name, run, help in (
            ("reg_refresh", self.reg_refresh, "have the row of an account read again now"),
            ("reg_remove", self.reg_remove, "un-REGISTER an account and delete it, without a question"),
        ):
            verb = self.verb(verbs, name, run, help, f"manage.py uac {name} berlin")
            verb.add_argument("l_uuid", metavar="L_UUID")
        self.verb(
            verbs, "reg_reload", self.reg_reload,
            "have the SIP workers compare all rows now; rows that did not change keep their registrations",
            "manage.py uac reg_reload",
        )
        add = self.verb(
            verbs, "reg_add", self.reg_add, "add an account and store it; it registers at once",
            "manage.py uac reg_add berlin reception pbx.example 493023125010 sip.rheintel.example . \\\n"
            "    493023125010 - . . 3600 0 0 . . < password.txt\n\n"
            f"The order is {' '.join(ADDED)}.\n"
            "contact_user may be left out. A single . is empty. auth_password or auth_ha1 is - (the first line of\n"
            "stdin) or . (none): as an argument it would show in ps and stay in the shell's history.",
        )
        add.add_argument("values", metavar="VALUE", nargs="*")
        active = self.verb(
            verbs, "reg_active", self.reg_active,
            "stop (0) or resume (1) sending registrations on all workers; without a value, show what holds",
            "manage.py uac reg_active 0",
        )
        active.add_argument("mode", metavar="0|1", nargs="?")

    def order(self, verb: str, payload: dict[str, Any]) -> None:
        try:
            super().order(verb, payload)
        except CommandError as error:
            raise CommandError(f"500 {error}") from None

    # looking

    def reg_dump(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        records = [record(trunks.trunk(account, now), now) for account in selectors.accounts().order_by("l_uuid")]
        if options["json"]:
            self.json(records)
            return
        for number, each in enumerate(records):
            if number:
                self.stdout.write("")
            self.pairs(each)

    def reg_info(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        shown = record(trunks.trunk(self._find(options), now), now)
        if options["json"]:
            self.json(shown)
        else:
            self.pairs(shown)

    # switching and ordering

    def reg_enable(self, options: dict[str, Any]) -> None:
        self._set_enabled(options, True)

    def reg_disable(self, options: dict[str, Any]) -> None:
        self._set_enabled(options, False)

    def reg_register(self, options: dict[str, Any]) -> None:
        self.order(Order.Verb.REGISTER, {"l_uuids": [self._find(options).l_uuid]})

    def reg_unregister(self, options: dict[str, Any]) -> None:
        self.order(Order.Verb.UNREGISTER, {"l_uuids": [self._find(options).l_uuid]})

    def reg_refresh(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import changes

        account, _ = trunks.find("l_uuid", options["l_uuid"])
        changes.log(Change.Table.UACREG, account.l_uuid, operator())
        self.stdout.write(f"The worker reads {account.l_uuid} again.")

    def reg_reload(self, options: dict[str, Any]) -> None:
        self.order(Order.Verb.RELOAD, {})

    def reg_active(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import parameters

        mode = options["mode"]
        if mode is None:
            self.pairs({"mode": int(selectors.reg_active())})
        elif mode in ("0", "1"):
            before = parameters.set_reg_active(mode == "1", operator())
            self.pairs({"omode": int(before), "nmode": mode})
        else:
            raise CommandError(f"400 Invalid parameters: {mode!r} is neither 0 nor 1.")

    # adding and removing

    def reg_add(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import accounts

        account = UacReg(**_columns(options["values"]))
        if UacReg.objects.filter(l_uuid=account.l_uuid).exists():
            raise CommandError(f"409 Record already exists: {account.l_uuid}; `uacreg edit` changes it.")
        try:
            accounts.save(account, who=operator())
        except ValidationError as error:
            faults = [f"{name}: {text}" for name, texts in error.message_dict.items() for text in texts]
            raise CommandError("\n".join(["500 Failed to add the record:", *map(clean, faults)])) from None
        self.stdout.write(f"{account.l_uuid} is added: {account}.")

    def reg_remove(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import accounts

        account, _ = trunks.find("l_uuid", options["l_uuid"])
        accounts.remove(account.l_uuid, operator())
        self.stdout.write(f"{account.l_uuid} is removed.")

    def _set_enabled(self, options: dict[str, Any], enabled: bool) -> None:
        from trunkmgr.services import accounts

        account = self._find(options)
        changed = accounts.set_enabled(account.l_uuid, enabled, operator())
        self.stdout.write(
            f"{account.l_uuid} is {'enabled' if enabled else 'disabled'} {'now' if changed else 'already'}."
        )

    def _find(self, options: dict[str, Any]) -> UacReg:
        account, others = trunks.find(options["attr"], options["val"])
        if others:
            self.stderr.write(f"{others:,} more match; {account.l_uuid} is the first. Its l_uuid names one exactly.")
        return account


def record(trunk: trunks.Trunk, now: datetime) -> dict[str, Any]:
    """Give the 19 fields of the seed's record in its order, then what it does not tell; secrets are never shown."""
    account, live = trunk.account, trunk.registration
    expiry = live.bound_until_time or live.next_attempt_time
    loaded = live.owner.started_time if live.owner else None
    values: dict[str, Any] = {name: getattr(account, name) for name in ADDED[:12]}
    values |= {name: "***" if values[name] else "" for name in SECRETS}
    values |= {
        "flags": flags(trunk, now),
        "diff_expires": round((expiry - now).total_seconds()) if expiry else 0,
        "timer_expires": round(expiry.timestamp()) if expiry else 0,
        "reg_init": round(loaded.timestamp()) if loaded else 0,
        "reg_delay": account.reg_delay, "contact_addr": account.contact_addr, "socket": account.socket,
        "contact_user": account.contact_user,
    }
    values |= {name: values[name] or "none" for name in NONE}
    return values | {
        "state": trunk.label, "why": trunk.sentence or trunk.why, "fix": trunk.fix, "code": live.code,
        "reason": live.reason, "granted": live.granted, "next_attempt_time": live.next_attempt_time,
        "failures": live.failures, "target": live.target, "service_route": live.service_route,
        "associated_uris": live.associated_uris, "worker": live.owner.name if live.owner else "",
    }


def flags(trunk: trunks.Trunk, now: datetime) -> int:
    """The seed's bits: 1 disabled, 2 ongoing, 4 online, 16 first delay over; 8 (credentials sent) is not told."""
    live = trunk.registration
    online = live.bound_until_time is not None and live.bound_until_time > now
    return (
        (not trunk.account.enabled) | (live.state in _ONGOING) << 1 | online << 2 | (live.generation > 0 or online) << 4
    )


def _columns(values: list[str]) -> dict[str, Any]:
    """Read the positional values of `reg_add`.  Raises CommandError, in which no secret stands."""
    if not len(ADDED) - 1 <= len(values) <= len(ADDED):
        raise CommandError(
            f"400 Invalid parameters: {len(values)} values, 15 or 16 are wanted: {' '.join(ADDED)}. "
            "An empty one is a single dot."
        )
    columns: dict[str, Any] = dict(zip(ADDED, values, strict=False))
    for name, value in columns.items():
        if name in SECRETS and value not in (".", "-", ""):
            raise CommandError(
                f"400 Invalid parameters: {name} stands in the arguments, where ps shows it to everybody. "
                "Write - and give it on stdin, or . for none; and change it at the provider if others use this machine."
            )
        if name in NUMBERS and not (value.isascii() and value.isdigit()):
            raise CommandError(f"400 Invalid parameters: {name} is {value!r}, a whole number is wanted.")
        columns[name] = int(value) if name in NUMBERS else "" if value == "." else value
    asked = [name for name in SECRETS if columns[name] == "-"]
    if len(asked) > 1:
        raise CommandError("400 Invalid parameters: give auth_password or auth_ha1, not both.")
    for name in asked:
        columns[name] = sys.stdin.readline().rstrip("\r\n")
        if not columns[name]:
            raise CommandError(f"500 Invalid password or HA1: stdin holds no {name}.")
    if not asked:
        raise CommandError("500 Invalid password or HA1: the account has neither; write - and give it on stdin.")
    return columns
