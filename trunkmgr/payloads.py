"""What the status pages are told: one row a trunk, as JSON text, the same in the first snapshot and in every change.

Times are seconds since 1970 on the server's clock, and every snapshot and beat carries that clock, so that a wrong
clock in the browser does no harm.  Holds no secret: accounts are read without their password columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db.models import Count
from django.utils import timezone

from trunkmgr.causes import CAUSES, REASON_LIMIT, UNDER_WAY, Explanation, Shown, answer, call_result, explain
from trunkmgr.models import Call, Node, Registration
from trunkmgr.models.registration import Reachability, State

#: Seconds without a heartbeat after which nobody watches a trunk any more, and after which its news are late.
SILENT = 10.0
LATE = 6.0
#: Seconds after its end in which a binding may still turn out to be renewed.
LAPSED = 5.0
#: Rows of one snapshot message: about 3 ms of compression, so that calls in the same loop do not wait.
ROWS_PER_MESSAGE = 500
#: Up to so many trunks the board says what to do under its table.
ADVICE_LIMIT = 12

#: Columns of the board in the order in which a snapshot sends them.
FIELDS = (
    "l_uuid", "id", "local", "remote", "provider", "state", "label", "raw", "since", "code", "reason", "cause", "why",
    "until", "next", "worker", "generation",
)

_STEADY = {
    State.REGISTERED: Shown.REGISTERED, State.FAILING: Shown.FAILING, State.REFUSED: Shown.REFUSED,
    State.DISABLED: Shown.DISABLED,
}
_LABELS = {
    State.REGISTERING: "Registering", State.UNREGISTERING: "Unregistering",
}


def dumps(payload: dict[str, Any]) -> str:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def epoch(moment: datetime | None) -> float | None:
    return None if moment is None else round(moment.timestamp(), 1)


def duration(seconds: float) -> str:
    """`1 h 21 min`, `14 min 27 s`, `26 s`; never negative."""
    whole = max(0, int(seconds))
    days, hours, minutes, rest = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def shown_state(state: str, cause: str, failures: int, planned: bool) -> Shown:
    """The state people see, as long as the worker is alive.

    A retry that is under way does not turn a failing trunk into a refreshing one: for the 32 seconds of a timeout the
    board would tell good news that nobody has.
    """
    if state in _STEADY:
        return _STEADY[State(state)]
    if state == State.UNREGISTERED:
        return Shown.REFRESHING if planned else Shown.DISABLED
    if failures and state != State.UNREGISTERING:
        return Shown.REFUSED if cause in CAUSES and CAUSES[cause].shown is Shown.REFUSED else Shown.FAILING
    return Shown.REFRESHING


def silence(node: Node | None, now: datetime) -> tuple[str, float]:
    """Cause key and seconds since the last beat; an empty key while the worker is heard."""
    if node is None:
        return "no_worker", 0.0
    last = node.stopped_time or node.heartbeat_time
    age = (now - last).total_seconds() if last else SILENT + 1
    if node.stopped_time:
        return "worker_stopped", age
    return ("worker_silent" if age > SILENT else ""), age


def lapsed(registration: Registration, now: datetime) -> bool:
    """Whether a registration shown as good has run out: its worker lives, and does not watch over it."""
    until = registration.bound_until_time
    held = registration.state in (State.REGISTERED, State.REFRESHING)
    return held and until is not None and (now - until).total_seconds() > LAPSED


def facts(registration: Registration) -> dict[str, str]:
    """Parameters of the cause texts, as far as this registration tells them."""
    account, node = registration.account, registration.owner
    transport, _, rest = registration.target.partition(":")
    host, _, port = rest.rpartition(":")
    wait = ""
    if registration.failures == 1 and registration.next_attempt_time and registration.state_time:
        # Only after the first failure does the state begin with the answer that asked for it.
        wait = duration((registration.next_attempt_time - registration.state_time).total_seconds())
    now = timezone.now()
    _, age = silence(node, now)
    options = account.get_options()
    proxy = account.auth_proxy or (options.provider.proxy if options.provider else "")
    asked_host = proxy.rpartition("@")[2].removeprefix("sip:").partition(";")[0] or account.r_domain
    since = registration.state_time
    detail = "" if registration.code else registration.reason
    return {
        "cert": detail, "detail": detail,
        "got": registration.realm_seen, "want": account.realm, "number": account.r_username, "host": asked_host,
        "target": f"{host} port {port} ({transport.upper()})" if port else asked_host,
        "proto": transport.upper() if port else "", "port": port, "wait": wait,
        "our_ip": registration.contact.rpartition("@")[2].removeprefix("sip:").partition(";")[0].partition(">")[0],
        "granted": str(registration.granted or ""), "asked": str(account.expires), "renew": _renewal(registration),
        "worker": node.name if node else "", "worker_host": (node.host if node else "") or "its host",
        "silence": duration(age),
        "when": timezone.localtime(since).strftime(" on %-d %b %Y") if since else "",
        "note": f': "{options.note}"' if options.note else "",
    }


def _renewal(registration: Registration) -> str:
    if registration.bound_until_time is None or registration.next_attempt_time is None or not registration.granted:
        return ""
    left = (registration.bound_until_time - registration.next_attempt_time).total_seconds()
    return str(max(0, round(registration.granted - left)))


def reach(registration: Registration, now: datetime) -> tuple[str, str]:
    """What OPTIONS tell of the server, and since when: `Reachable, 23 ms`, `(OPTIONS 12 s ago)`; empty: none are sent.
    """
    if not registration.account.get_options().qualify:
        return "", ""
    told, answered = registration.get_qualify_state_display(), registration.qualify_time
    if registration.qualify_state == Reachability.REACHABLE and registration.qualify_round_trip is not None:
        told += f", {registration.qualify_round_trip * 1000:.0f} ms"
    return told, f"(OPTIONS {duration((now - answered).total_seconds())} ago)" if answered else ""


def explanation(registration: Registration, cause: str | None = None) -> Explanation:
    """Short text, sentence and cure of what holds for this registration (or of `cause` instead)."""
    key = registration.cause if cause is None else cause
    if key or registration.state in (State.FAILING, State.REFUSED):
        return explain(key, registration.code, registration.reason, facts(registration))
    if registration.state == State.UNREGISTERED and registration.next_attempt_time is None:
        return explain("unregistered", None, "", {})
    if registration.state == State.DISABLED:
        return explain("disabled", None, "", facts(registration))
    return Explanation(UNDER_WAY.get(registration.state, ""), "", "")


def registration_row(registration: Registration) -> dict[str, Any]:
    """Give one row of the board: the columns `FIELDS`, and the sentence and cure of its cause.

    `registration` must be loaded with account, options, provider and owner (`selectors.board_rows` does).  Whether the
    worker still watches is not part of the row: the page, which knows the time of the last beat, decides that.
    """
    account = registration.account
    provider = account.get_options().provider
    text = explanation(registration)
    shown = shown_state(
        registration.state, registration.cause, registration.failures, registration.next_attempt_time is not None,
    )
    return {
        "l_uuid": account.l_uuid, "id": account.pk,
        "local": f"{account.l_username}@{account.l_domain}", "remote": f"{account.r_username}@{account.r_domain}",
        "provider": provider.name if provider else account.r_domain,
        "state": shown.value, "label": label(registration.state, shown), "raw": registration.state,
        "since": epoch(registration.state_time), "code": registration.code,
        # Without a code the reason is our own, and stands in the cause's words already.
        "reason": registration.reason[:REASON_LIMIT] if registration.code else "",
        "cause": registration.cause, "why": text.short,
        "until": epoch(registration.bound_until_time), "next": epoch(registration.next_attempt_time),
        "worker": registration.owner.name if registration.owner else "", "generation": registration.generation,
        "sentence": text.sentence, "fix": text.fix,
    }


def label(state: str, shown: Shown) -> str:
    """The word on the badge: the shown state's, unless the worker knows it better."""
    if shown is Shown.REFRESHING and state in _LABELS:
        return _LABELS[State(state)]
    if state == State.UNREGISTERED:
        return "Waiting" if shown is Shown.REFRESHING else "Not registered"
    return shown.label


def seen_row(registration: Registration, now: datetime) -> dict[str, Any]:
    """Give the row as a page drawn at `now` shows it: Unknown where nobody watches."""
    row = registration_row(registration)
    key, age = silence(registration.owner, now)
    unseen = "" if registration.state == State.DISABLED else key or ("lapsed" if lapsed(registration, now) else "")
    if unseen:
        text = explanation(registration, unseen)
        row |= {
            "state": Shown.UNKNOWN.value, "label": Shown.UNKNOWN.label, "cause": unseen, "why": text.short,
            "sentence": text.sentence, "fix": text.fix, "until": None, "next": None,
        }
    row["late"] = not key and age > LATE
    return row


def node_row(node: Node | None, now: datetime) -> dict[str, Any]:
    """What pages know of a worker; of None for the trunks that no worker has taken."""
    key, age = silence(node, now)
    name, host = (node.name, node.host or node.name) if node else ("", "")
    row = {"name": name, "cause": key, "late": not key and age > LATE}
    if key:
        text = explain(key, None, "", {"worker": name, "worker_host": host, "silence": duration(age)})
        row |= {"why": text.short, "sentence": text.sentence, "fix": text.fix}
    return row


def snapshot(
    rows: Iterable[dict[str, Any]], nodes: list[dict[str, Any]], calls: dict[str, int],
) -> Iterator[dict[str, Any]]:
    """Cut the whole board into messages; the first carries clock, workers and calls, the last says so."""
    everything = list(rows)
    parts = [everything[at:at + ROWS_PER_MESSAGE] for at in range(0, len(everything), ROWS_PER_MESSAGE)] or [[]]
    advice = {}
    if len(everything) <= ADVICE_LIMIT:
        advice = {row["l_uuid"]: [row["sentence"], row["fix"]] for row in everything}
    for number, part in enumerate(parts):
        message: dict[str, Any] = {
            "kind": "snapshot", "part": number, "last": number == len(parts) - 1,
            "rows": [[row[name] for name in FIELDS] for row in part],
        }
        if number == 0:
            message |= {
                "now": epoch(timezone.now()), "fields": FIELDS, "nodes": nodes, "calls": calls, "advice": advice,
                "lapsed": {"after": LAPSED, **asdict(explain("lapsed", None, "", {}))},
            }
        yield message


def call_row(call: Call, now: datetime) -> dict[str, Any]:
    """What pages show of one call: who called whom, how it stands or ended, and the answer that says so."""
    outbound = call.direction == Call.Direction.OUTBOUND
    evidence = ""
    if call.ended_time is None:
        result = "Talking" if call.answered_time else "Ringing"
    elif call.answered_time:
        result = "Answered"
    else:
        result, raw = call_result(call.code, call.reason, outbound=outbound), answer(call.code, call.reason)
        evidence = raw if raw != result else ""
    talk = (call.ended_time or now) - call.answered_time if call.answered_time else None
    return {
        "call": call, "time": call.started_time, "direction": call.get_direction_display(),
        "caller": call.caller.removeprefix("sip:"), "callee": call.callee.removeprefix("sip:"),
        "result": result, "evidence": evidence,
        "hidden": f"hidden from the {'provider' if outbound else 'PBX'}" if call.anonymous else "",
        "since": epoch(call.answered_time or call.started_time),
        "seconds": (now - (call.answered_time or call.started_time)).total_seconds(),
        "talk": duration(talk.total_seconds()) if talk is not None else "",
    }


def calls_going_on() -> dict[str, int]:
    """How many calls each trunk has at this moment; trunks without one are left out."""
    going_on = Call.objects.filter(ended_time=None).order_by().values_list("l_uuid")
    return dict(going_on.annotate(number=Count("pk")))
