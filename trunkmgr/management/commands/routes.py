"""`manage.py routes`: what the SIP worker would do with a request, and by which rule."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from trunkmgr.exceptions import NoWorker
from trunkmgr.management.output import OperatorCommand, clean, operator


class Command(OperatorCommand):
    help = "Say what would happen to a request: which rule decides, which account, where it goes. Nothing is sent."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--source", metavar="IP", required=True, help="the address that it comes from")
        parser.add_argument("--ruri", metavar="URI", required=True, help="Request-URI, such as sip:100@192.0.2.20")
        parser.add_argument("--from", dest="furi", metavar="URI", default="", help="From; default: nobody there")
        parser.add_argument("--method", default="INVITE", help="default: INVITE")
        parser.add_argument("--transport", default="udp", help="default: udp")
        parser.add_argument("--json", action="store_true", help="write JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        from trunkmgr.services import routes

        names = ("source", "ruri", "furi", "method", "transport")
        try:
            result = routes.ask(operator(), **{name: options[name] for name in names})
        except NoWorker as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.json(result)
        elif result["ok"]:
            self.pairs({
                "rule": result["rule"] or "(a routing of one's own)", "says": result["says"],
                "account": result["account"], "goes to": result["goes_to"], "request": clean(result["request"]),
                "shown as": clean(result["shown_as"]), "answer": clean(result["answer"]) or "none",
            })
        if not result["ok"]:
            raise CommandError(clean(result["message"]))
