"""`manage.py device`: who may register here, and what is registered."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from trunkmgr.management.output import OperatorCommand, add_yes, operator, since, until
from trunkmgr.management.secret_input import add_secret_options, read_secret
from trunkmgr.models import Device, Location


class Command(OperatorCommand):
    help = "Show and change the devices, phones and PBXs, that may register here, and end what they have registered."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
        listing = self.verb(verbs, "list", self.list, "show all devices", "manage.py device list --json")
        listing.add_argument("--json", action="store_true", help="write JSON")
        adding = self.verb(
            verbs, "add", self.add, "let a device register",
            "manage.py device add reception@pbx.example --password-stdin < password.txt",
        )
        editing = self.verb(
            verbs, "edit", self.edit, "change what is given of a device",
            "manage.py device edit reception@pbx.example --disable\n"
            "manage.py device edit reception@pbx.example --password",
        )
        for changing in (adding, editing):
            _add_aor(changing)
            switch = changing.add_mutually_exclusive_group()
            switch.add_argument("--enable", dest="enabled", action="store_true", default=None, help="it may register")
            switch.add_argument("--disable", dest="enabled", action="store_false", help="it may not, bindings end")
            changing.add_argument("--max-contacts", type=int, metavar="N", help="phones registered at the same time")
            changing.add_argument(
                "--digest", choices=Device.Digest.values, help="md5: for phones that give up when SHA-256 is offered"
            )
            changing.add_argument("--note", metavar="TEXT", help="a remark of yours")
            add_secret_options(changing)
        removing = self.verb(
            verbs, "remove", self.remove, "delete a device and what it has registered",
            "manage.py device remove reception@pbx.example",
        )
        _add_aor(removing)
        add_yes(removing)
        showing = self.verb(
            verbs, "bindings", self.bindings, "show what is registered, or end it",
            "manage.py device bindings\nmanage.py device bindings reception@pbx.example --remove",
        )
        showing.add_argument("aor", metavar="USER@DOMAIN", nargs="?", help="of this device only")
        showing.add_argument("--remove", action="store_true", help="end them; the device may register again")
        showing.add_argument("--json", action="store_true", help="write JSON")

    def list(self, options: dict[str, Any]) -> None:
        rows = list(Device.objects.all())
        if options["json"]:
            self.json([
                {
                    "device": row.aor, "enabled": row.enabled, "secret": "HA1" if row.ha1 else "password",
                    "digest": row.digest, "max_contacts": row.max_contacts, "note": row.note,
                }
                for row in rows
            ])
            return
        self.table(
            ("Device", "May register", "Secret", "Contacts at most", "Note"),
            (
                (row.aor, "yes" if row.enabled else "no", "HA1" if row.ha1 else "password", row.max_contacts, row.note)
                for row in rows
            ),
            empty="No devices yet. Add one with: manage.py device add USER@DOMAIN",
        )

    def add(self, options: dict[str, Any]) -> None:
        username, _, domain = options["aor"].rpartition("@")
        secret = read_secret(options, needed=True)
        device = self._save(Device(username=username, domain=domain), secret, options)
        self.stdout.write(f"{device.aor} may register." if device.enabled else f"{device.aor} is added, disabled.")

    def edit(self, options: dict[str, Any]) -> None:
        device = self._save(_device(options["aor"]), read_secret(options, needed=False), options)
        self.stdout.write(f"{device.aor} is changed.")

    def _save(self, device: Device, secret: dict[str, str], options: dict[str, Any]) -> Device:
        from trunkmgr.services import devices

        for name in ("enabled", "digest", "max_contacts", "note"):
            if options[name] is not None:
                setattr(device, name, options[name])
        if secret:
            device.password, device.ha1 = secret["auth_password"], secret["auth_ha1"]
        return devices.save(device, operator())

    def remove(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import devices

        device = _device(options["aor"])
        self.confirm(f"Remove the device {device.aor}?", options)
        devices.remove(device, operator())
        self.stdout.write(f"{device.aor} is removed.")

    def bindings(self, options: dict[str, Any]) -> None:
        from trunkmgr.services import locations

        now = timezone.now()
        found = Location.objects.filter(expires__gt=now)
        if options["aor"]:
            device = _device(options["aor"])
            found = found.filter(username=device.username, domain=device.domain)
        if options["remove"]:
            count = locations.remove(found.values_list("ruid", flat=True), operator())
            self.stdout.write("1 binding is ended." if count == 1 else f"{count:,} bindings are ended.")
        elif options["json"]:
            names = ("ruid", "username", "domain", "contact", "received", "path", "q", "expires", "user_agent")
            self.json(list(found.values(*names)))
        else:
            self.table(
                ("Device", "Contact", "From", "Q", "Since", "Expires in", "User agent"),
                (
                    (
                        f"{row.username}@{row.domain}", row.contact, row.received, row.q,
                        since(row.last_modified, now), until(row.expires, now), row.user_agent,
                    )
                    for row in found
                ),
                empty="Nothing is registered.",
            )


def _add_aor(parser: CommandParser) -> None:
    parser.add_argument("aor", metavar="USER@DOMAIN", help="its address, without sip:")


def _device(aor: str) -> Device:
    username, _, domain = aor.rpartition("@")
    device = Device.objects.filter(username=username, domain=domain.lower()).first()
    if device is None:
        raise CommandError(f"No device is called {aor!r}. See: manage.py device list")
    return device
