"""One trunk: why it is as it is, what to do, what happened, and the orders an operator gives."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from trunkmgr import coverage, payloads, selectors
from trunkmgr.causes import CAUSES, UNDER_WAY, Shown, answer, explain
from trunkmgr.exceptions import NoWorker
from trunkmgr.models import Call, Registration, UacReg, UacRegOptions
from trunkmgr.models.registration import State, Trigger
from trunkmgr.services import accounts, foreign, orders
from trunkmgr.views import timeline
from trunkmgr.views.access import status_page

LINES_SHOWN, CALLS_SHOWN = 12, 8
#: A month of an account that registers every three minutes; beyond it the drawing begins later.
EVENTS_READ = 15000
#: Causes that end an attempt before a REGISTER leaves.
NOTHING_SENT = frozenset({"bad_proxy", "bad_row", "dns_empty", "no_socket"})
#: Seconds that a page waits for a worker's answer to an order.
PATIENCE = 6.0


@status_page
def trunk(request: HttpRequest, l_uuid: str) -> HttpResponse:
    registration = selectors.trunk(l_uuid)
    now = timezone.now()
    base = {"here": "trunk", "now": now, "now_epoch": payloads.epoch(now), "l_uuid": l_uuid}
    if registration is None:
        return render(request, "status/gone.html", base, status=404)
    row = payloads.seen_row(registration, now)
    calls = Call.objects.filter(l_uuid=l_uuid)
    return render(request, "status/trunk.html", base | {
        "row": row, "registration": registration, "account": registration.account,
        "enabled": registration.account.enabled, "why": why(registration, row), "facts": facts(registration, row, now),
        "since_seconds": (now - registration.state_time).total_seconds() if registration.state_time else None,
        "events": timeline.lines(selectors.timeline(l_uuid, now - timeline.WINDOWS["30d"]))[:LINES_SHOWN],
        "history": history(registration, now, request.GET.get("window", "24h")),
        "calls": [payloads.call_row(call, now) for call in calls[:CALLS_SHOWN]],
        "calls_now": calls.filter(ended_time=None).count(),
        "may_change": request.user.has_perm("trunkmgr.change_uacreg"),
        "can_unregister": registration.account.enabled and registration.bound_until_time is not None,
    })


def why(registration: Registration, row: dict[str, Any]) -> dict[str, Any]:
    """The card on top: cause, evidence, cure; or since when all is well."""
    shown = Shown(row["state"])
    fixes = [row["fix"]] if row["fix"] else []
    if shown in (Shown.REFUSED, Shown.FAILING) and registration.cause != "busy_503":
        fixes.append("Done? Press Register now: we try at once.")
    evidence: list[dict[str, Any]] = []
    target = registration.target or "no target yet"
    resumed = registration.trigger == Trigger.RECOVERY and registration.state == State.REGISTERED
    if resumed and not registration.code:
        evidence.append({"sent": False, "title": "Kept over a restart", "detail": "the binding from before stands"})
    elif registration.trigger and registration.cause not in NOTHING_SENT:
        evidence.append({
            "sent": True, "title": "REGISTER", "code": f"CSeq {registration.cseq}" if registration.cseq else "",
            "detail": f"{registration.get_trigger_display()}, to {target}",
        })
    took = "" if registration.round_trip is None else f"{registration.round_trip * 1000:.0f} ms"
    if registration.code:
        told = (f"after {took}" if took else "", f"realm {registration.realm_seen}" if registration.realm_seen else "")
        evidence.append({
            "sent": False, "key": True, "title": answer(registration.code, registration.reason),
            "detail": ", ".join(part for part in told if part),
        })
    elif registration.cause == "timeout":
        evidence.append({"sent": False, "key": True, "title": "No answer", "detail": "in 32 s"})
    elif registration.reason:
        evidence.append({"sent": False, "key": True, "title": registration.reason, "detail": ""})
    if registration.state in UNDER_WAY:
        # The answer is the one before the request that is out now.
        evidence.reverse()
    titles = {Shown.REGISTERED: "Working", Shown.REFRESHING: "Under way", Shown.DISABLED: "Switched off",
              Shown.UNKNOWN: "Why is it unknown"}
    return {
        "title": titles.get(shown, "Why is it down"), "working": shown is Shown.REGISTERED and not row["sentence"],
        "evidence": evidence, "fixes": fixes, "took": took,
    }


def facts(registration: Registration, row: dict[str, Any], now: datetime) -> list[tuple[str, str, str]]:
    """Label, value and remark of what is stored; a password only as set or not set."""
    account = registration.account
    options = account.get_options()
    realm = registration.realm_seen
    remark = ""
    if realm and account.realm:
        remark = "(matches)" if realm == account.realm else f"(set to {account.realm})"
    _, age = payloads.silence(registration.owner, now)
    granted = f", {registration.granted} s granted" if registration.granted else ""
    told = [
        ("Last grant", f"{account.expires} s asked{granted}", ""),
        ("Covered", coverage.until(registration, now).told(), ""),
        ("Contact", registration.contact, ""),
        ("Old addresses", ", ".join(registration.stale.split()), "(still bound; Register now takes them back)"),
        ("Seen as", seen_as(registration), "(by the provider: NAT between)"),
        ("Target", registration.target, ""),
        ("Server", *payloads.reach(registration, now)),
        ("Calls go by", registration.service_route, "(Service-Route of the provider)"),
        ("Way to us", registration.path, "(Path, as the provider tells it)"),
        ("Identities", registration.associated_uris, "(P-Associated-URI, the usual one first)"),
        ("Proxy", account.auth_proxy or (options.provider.proxy if options.provider else ""), ""),
        ("Also at", further(account), ""),
        ("Standby", standby(options), ""),
        ("Calls go to", options.outbound_proxy, ""),
        ("Auth user", account.auth_username or account.r_username, ""),
        ("Realm", realm or account.realm or "any", remark),
        ("Password", secret(account.l_uuid), ""),
        ("Signed with", registration.digest, ""),
        ("Caller shown", options.get_inbound_identity_display(), ""),
        ("Inbound calls from", options.get_inbound_from_display(), ""),
        ("May call", options.numbers, "(beginnings of numbers)"),
        ("Calls at most", str(options.max_calls or ""), ""),
        ("Calls out a second", str(options.max_rate or ""), "at most"),
        ("OPTIONS every", f"{options.qualify} s" if options.qualify else "", ""),
        ("Connection", "named and kept alive" if options.outbound else "", "(outbound, RFC 5626)"),
        ("Registers", "all numbers of the PBX" if options.gin else "", "(GIN)"),
        ("Local id", account.l_uuid, ""),
        ("Note", options.note, ""),
        ("Kept in", "another database" if foreign.is_foreign(account) else "", "(UAC_REG_DB_URL)"),
        ("Worker", row["worker"] or "none", f"(last beat {payloads.duration(age)} ago)" if row["worker"] else ""),
    ]
    return [(label, value, remark) for label, value, remark in told if value]


def standby(options: UacRegOptions) -> str:
    """The registrars that are asked while the first is silent."""
    given = options.registrars or (options.provider.registrars if options.provider else "")
    return "" if options.at_once else given


def further(account: UacReg) -> str:
    """How the account's bindings at its further registrars stand."""
    told = []
    for row in account.further_registrations.all():
        answer_ = explain(row.cause, row.code, row.reason, {}).short if row.cause else ""
        told.append(f"{row.registrar}: {answer_ or row.get_state_display()}")
    return "; ".join(told)


def seen_as(registration: Registration) -> str:
    """Our address as the provider sees it, where it is another."""
    seen = registration.seen_address
    return f"{seen}, sent from {registration.local_address}" if seen != registration.local_address else ""


def secret(l_uuid: str) -> str:
    """Whether a password is set: asked of the column, so that no page ever holds one."""
    stored = UacReg.objects.filter(l_uuid=l_uuid)
    if stored.exclude(auth_ha1="").exists():
        return "HA1 set"
    return "set" if stored.exclude(auth_password="").exists() else "not set"


def history(registration: Registration, now: datetime, window: str) -> dict[str, Any]:
    """The timeline of one window, ready to draw."""
    window = window if window in timeline.WINDOWS else "24h"
    since = now - timeline.WINDOWS[window]
    key, _ = payloads.silence(registration.owner, now)
    node = registration.owner
    silent_since = (node.stopped_time or node.heartbeat_time) if node and key else None
    events = selectors.history(registration.account_id, since, EVENTS_READ)
    parts = timeline.spans(events, since, now, silent_since if events else None, registration.bound_until_time)
    covered = coverage.within(registration, events, since, now)
    return {
        "window": window, "windows": list(timeline.WINDOWS), "summary": timeline.summary(parts),
        "covered": str(covered), "lost": payloads.duration(covered.lost) if covered.lost >= 1 else "",
        "marks": timeline.marks(parts, since, now, now), "axis": timeline.axis(since, now, now),
        "width": timeline.WIDTH, "height": timeline.FULL_HEIGHT,
    }


@status_page
def order(request: HttpRequest, l_uuid: str, verb: str) -> HttpResponse:
    """Ask once (GET, for what hurts), then do it (POST); scripts get JSON, others come back to the trunk's page."""
    registration = selectors.trunk(l_uuid)
    now = timezone.now()
    base = {"here": "trunk", "now": now, "now_epoch": payloads.epoch(now), "l_uuid": l_uuid}
    if registration is None or verb not in VERBS:
        return render(request, "status/gone.html", base, status=404)
    if not request.user.has_perm("trunkmgr.change_uacreg"):
        return _tell(request, l_uuid, {"ok": False, "message": "You may look at trunks, and not change them."}, 403)
    if request.method == "POST":
        return _tell(request, l_uuid, VERBS[verb](l_uuid, request.user.get_username()))
    if verb not in QUESTIONS:
        return HttpResponseNotAllowed(["POST"])
    calls = Call.objects.filter(l_uuid=l_uuid, ended_time=None).count()
    return render(request, "status/question.html", base | {
        "verb": verb, "account": registration.account, "question": QUESTIONS[verb], "calls": calls,
    })


def _tell(request: HttpRequest, l_uuid: str, result: dict[str, Any], status: int = 200) -> HttpResponse:
    if request.accepts("text/html"):
        messages.add_message(
            request, messages.SUCCESS if result["ok"] else messages.ERROR, result["message"],
            extra_tags="good" if result["ok"] else "bad",
        )
        return redirect("status:trunk", l_uuid)
    return JsonResponse(result, status=status)


def _ordered(verb: str) -> Callable[[str, str], dict[str, Any]]:
    def give(l_uuid: str, who: str) -> dict[str, Any]:
        try:
            placed = orders.place(verb, {"l_uuids": [l_uuid]}, who, timeout=PATIENCE)
        except NoWorker as error:
            return {"ok": False, "message": str(error)}
        result = orders.wait(placed[0], PATIENCE)
        told = result.get("accounts", {}).get(l_uuid, {})
        message = result.get("message") or "Done."
        if result.get("ok"):
            message = f"Registered, {told['granted']} s granted." if told.get("granted") else "Unregistered."
        elif told.get("cause") in CAUSES:
            raw = answer(told.get("code"), told.get("reason") or "")
            message = CAUSES[told["cause"]].short + (f": {raw}" if raw else ".")
        return {"ok": bool(result.get("ok")), "message": message}

    return give


def _switched(enabled: bool) -> Callable[[str, str], dict[str, Any]]:
    def switch(l_uuid: str, who: str) -> dict[str, Any]:
        word = "enabled" if enabled else "disabled"
        try:
            changed = accounts.set_enabled(l_uuid, enabled, who)
        except ValidationError as error:
            return {"ok": False, "message": "; ".join(error.messages)}
        return {"ok": True, "message": f"The trunk is {word}." if changed else f"The trunk was {word} already."}

    return switch


VERBS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "register": _ordered("register"), "unregister": _ordered("unregister"),
    "enable": _switched(True), "disable": _switched(False),
}

#: What is asked once before it is done: title, what follows from it.
QUESTIONS = {
    "disable": ("Disable", "Its registration is removed at the provider. No call comes in until it is enabled again."),
    "unregister": ("Unregister", "Its registration is removed at the provider until you register it again."),
}
