"""`manage.py uac_req_send`: send one SIP request from the worker's socket and show the reply."""

from __future__ import annotations

import sys
from argparse import RawDescriptionHelpFormatter
from pathlib import Path
from textwrap import indent
from typing import Any

from django.core.management.base import CommandError, CommandParser

from trunkmgr.exceptions import NoWorker
from trunkmgr.management.output import OperatorCommand, clean, operator

EXAMPLES = """manage.py uac_req_send --ruri sip:sip.rheintel.example
manage.py uac_req_send --ruri sip:sip.rheintel.example --account berlin --json
manage.py uac_req_send --method MESSAGE --ruri sip:100@192.0.2.20 --furi sip:desk@pbx.example \\
    --hdr 'Content-Type: text/plain' --body-file - < note.txt
manage.py uac_req_send --method INFO --ruri sip:192.0.2.10 --auser alice --apasswd-stdin < password.txt"""

#: Options that hold text and are called as the seed's keys.
TEXTS = {
    "furi": ("URI", "From; left out: the account's, else as --ruri"),
    "turi": ("URI", "To; left out: as --ruri"),
    "ouri": ("URI", "the next hop, which stands nowhere in the request; left out: --ruri says where it goes"),
    "ftag": ("TAG", "From tag; left out: drawn"),
    "ttag": ("TAG", "To tag; left out: none"),
    "callid": ("ID", "Call-ID; left out: drawn"),
}
NUMBERS = {
    "cseqno": ("N", "CSeq number; left out: 10"),
    "fr_timeout": ("MS", "milliseconds that each target has to answer; left out: 32,000"),
    "fr_inv_timeout": ("MS", "milliseconds that an INVITE may ring; left out: 120,000"),
}


class Command(OperatorCommand):
    help = (
        "Send a SIP request from a socket of the SIP worker, answer its challenge, and show the reply. "
        "Ends with 0 for a 2xx. An INVITE that is answered is hung up at once."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.formatter_class = RawDescriptionHelpFormatter
        parser.allow_abbrev = False  # --apasswd with its value would show in ps
        parser.epilog = "Examples:\n" + indent(EXAMPLES, "  ")
        parser.add_argument("--method", default="OPTIONS", help="default: OPTIONS")
        parser.add_argument("--ruri", metavar="URI", required=True, help="Request-URI, such as sip:100@192.0.2.20")
        for name, (metavar, help) in TEXTS.items():
            parser.add_argument(f"--{name}", metavar=metavar, help=help)
        parser.add_argument("--hdr", action="append", default=[], metavar="'NAME: VALUE'", help="header (repeatable)")
        parser.add_argument("--body-file", metavar="FILE", help="the body, - for stdin; it needs a Content-Type header")
        parser.add_argument(
            "--sock", "--socket", metavar="PROTO:IP:PORT", help="socket of the worker; left out: that of the route",
        )
        for name, (metavar, help) in NUMBERS.items():
            parser.add_argument(f"--{name.replace('_', '-')}", dest=name, type=int, metavar=metavar, help=help)
        group = parser.add_argument_group("what a challenge is answered with")
        group.add_argument("--account", metavar="L_UUID", help="as this account, which also says where it goes")
        group.add_argument("--credential", type=int, metavar="ID", help="a stored one; see manage.py credential list")
        group.add_argument("--auser", metavar="USER", help="this user, with --apasswd-stdin")
        group.add_argument("--apasswd-stdin", action="store_true", help="its password is the first line of stdin")
        group.add_argument("--ha1", action="store_true", help="what is read is the HA1 (MD5 or SHA-256), no password")
        parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="seconds to wait; default: 10")
        parser.add_argument("--json", action="store_true", help="write JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        from trunkmgr.services import requests

        if options["apasswd_stdin"] and options["body_file"] == "-":
            raise CommandError("Password and body cannot both come from stdin; put the body into a file.")
        keys = {name: options[name] for name in ("method", "ruri", "sock", "auser", *TEXTS, *NUMBERS)}
        keys["hdrs"] = "".join(f"{line}\r\n" for line in options["hdr"])
        keys["body"] = _body(options["body_file"])
        keys["flags"] = int(options["ha1"])
        apasswd = ""
        if options["apasswd_stdin"]:
            apasswd = sys.stdin.readline().rstrip("\r\n")
            if not apasswd:
                raise CommandError("The password that was given is empty.")
        try:
            order = requests.send(
                keys, operator(), account=options["account"] or "", credential=options["credential"],
                apasswd=apasswd, timeout=options["timeout"],
            )
        except NoWorker as error:
            raise CommandError(str(error)) from None
        result = requests.wait(order, options["timeout"])
        if options["json"]:
            self.json({"order": order.pk, **result})
        else:
            if result["ok"]:
                self.stdout.write(clean(result["message"]))
            for line in [*result.get("headers", ()), *result.get("body", "").splitlines()]:
                self.stdout.write(f"  {clean(line)}")
        if not result["ok"]:
            raise CommandError(clean(result["message"]))


def _body(path: str | None) -> str:
    if path is None:
        return ""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise CommandError(f"{path} is not UTF-8; only the routing script sends other bytes.") from None
