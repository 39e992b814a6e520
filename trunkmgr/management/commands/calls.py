"""`manage.py calls`: the calls going on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from trunkmgr import selectors
from trunkmgr.management.output import OperatorCommand, since


class Command(OperatorCommand):
    help = "Show the calls that are going on."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="write JSON")
        parser.set_defaults(run=self.calls)

    def calls(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        rows = selectors.calls_going_on()
        if options["json"]:
            self.json([
                {
                    "call_id": row.call_id, "l_uuid": row.l_uuid, "direction": row.direction, "caller": row.caller,
                    "callee": row.callee, "anonymous": row.anonymous, "started_time": row.started_time,
                    "answered_time": row.answered_time, "worker": row.node,
                }
                for row in rows
            ])
            return
        self.table(
            ("Direction", "Trunk", "Caller", "Callee", "Since", "Talking for", "Worker", "Call-ID"),
            (
                (row.get_direction_display(), row.l_uuid, f"{row.caller} (hidden)" if row.anonymous else row.caller,
                 row.callee, since(row.started_time, now), since(row.answered_time, now) or "ringing", row.node,
                 row.call_id)
                for row in rows
            ),
            empty="No calls are going on.",
        )
