"""`manage.py status`: how all is doing, on one screen."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from trunkmgr import payloads, selectors
from trunkmgr.causes import Shown
from trunkmgr.exceptions import NoWorker
from trunkmgr.management import trunks
from trunkmgr.management.output import OperatorCommand, operator, since, until
from trunkmgr.models import Call, Node, Order
from trunkmgr.services import orders

#: Trunks that fit on a screen below totals and workers.
WORST = 12
#: Seconds that a worker has to tell what it counted; one that hangs must not hold up the rest.
DUMP_TIMEOUT = 1.0
#: The worker's counters that say whether all is well, with the words for them.
COUNTERS = {
    "received": "received", "sent": "sent", "bad": "unreadable", "denied": "from strangers", "rejected": "refused",
    "timeouts": "unanswered", "transport_errors": "not sent",
}


class Command(OperatorCommand):
    help = "Show how the trunks are doing: totals, those that need a person first, and the workers."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="write JSON")
        parser.set_defaults(run=self.status)

    def status(self, options: dict[str, Any]) -> None:
        now = timezone.now()
        everything = [trunks.trunk(account, now) for account in selectors.accounts().order_by("l_uuid")]
        bad = sorted((row for row in everything if row.shown.needs_attention), key=lambda row: row.shown.rank)
        nodes = list(Node.objects.all())
        going_on = Call.objects.filter(ended_time=None).count()
        dumps = _dumps()
        notices = selectors.notices()
        if options["json"]:
            self.json({
                "notices": notices,
                "totals": trunks.totals(everything), "attention": [row.summary() for row in bad], "calls": going_on,
                "nodes": [
                    {
                        "name": node.name, "host": node.host, "listen": node.listen, "live": selectors.is_live(node),
                        "heartbeat_time": node.heartbeat_time, "stopped_time": node.stopped_time,
                        "counters": dumps.get(node.name, {}).get("counters"),
                        "load": dumps.get(node.name, {}).get("load"),
                    }
                    for node in nodes
                ],
            })
            return
        for notice in notices:
            self.stdout.write(notice)
        coming = sum(row.shown is Shown.REFRESHING for row in everything)
        count = f"{len(everything):,}"
        self.stdout.write(
            f"{len(bad):,} of {count} trunks need attention." if bad else
            f"{coming:,} of {count} trunks are being registered or refreshed, the others are well." if coming else
            f"All {count} trunks are well." if everything else "No trunks yet.",
        )
        self.stdout.write(
            "  ".join(f"{name} {count:,}" for name, count in trunks.totals(everything).items())
            + f"  Calls going on {going_on:,}",
        )
        if bad:
            self.stdout.write("")
            self.table(
                ("State", "l_uuid", "Provider", "Answer", "Why", "Next", "What to do"),
                (
                    (row.label, row.account.l_uuid, row.provider, row.answer, row.why,
                     until(row.registration.next_attempt_time, now), row.fix)
                    for row in bad[:WORST]
                ),
                empty="",
            )
            if len(bad) > WORST:
                self.stdout.write(f"and {len(bad) - WORST:,} more, see: manage.py uacreg list --state failing")
        self.stdout.write("")
        self.table(
            ("Worker", "Host", "State", "Last beat", "Listens on"),
            ((node.name, node.host, _state(node, now), _ago(node, now), ", ".join(node.listen)) for node in nodes),
            empty="No SIP worker has run yet. Start it with: make run (or manage.py runsip)",
        )
        for name, dump in dumps.items():
            load = dump.get("load", {})
            if load.get("share"):
                self.stdout.write(
                    f"The worker {name} is overloaded and refuses {load['share']:.0%} of new calls; calls that are up "
                    "go on. Give it more CPU, or spread the trunks over more workers."
                )
            elif load.get("refused"):
                self.stdout.write(f"The worker {name} refused {load['refused']:,} requests under load since its start.")
            if refused := dump.get("rules"):
                told = ", ".join(f"{rule} {count:,}" for rule, count in refused.items())
                self.stdout.write(f"Refused by rule at {name}: {told}. Addresses banned now: {len(dump['bans']):,}.")
        if dumps:
            self.stdout.write("")
            self.table(
                ("Messages", *COUNTERS.values()),
                (
                    (name, *(f"{dump['counters'][counter]:,}" if "counters" in dump else "?" for counter in COUNTERS))
                    for name, dump in dumps.items()
                ),
                empty="",
            )


def _dumps() -> dict[str, dict[str, Any]]:
    """Ask each live worker what it counted since its start."""
    try:
        placed = orders.place(Order.Verb.DUMP, {}, operator(), DUMP_TIMEOUT)
    except NoWorker:
        return {}
    return {order.node.name: orders.wait(order, DUMP_TIMEOUT) for order in placed}


def _state(node: Node, now: Any) -> str:
    return {"": "running", "worker_stopped": "stopped"}.get(payloads.silence(node, now)[0], "silent")


def _ago(node: Node, now: Any) -> str:
    age = since(node.heartbeat_time, now)
    return f"{age} ago" if age and age != "now" else age
