"""Asks a SIP worker what it would do with a request; nothing is sent."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from django.core.exceptions import ValidationError

from trunkmgr.models import Order
from trunkmgr.services import orders

TIMEOUT = 6.0

_METHOD = re.compile(r"[A-Z]{1,32}")
#: A URI as it may stand in a start line and between <>.
_URI = re.compile(r"(sips?|tel):[^\s<>\"\x00-\x1f\x7f]{1,400}", re.IGNORECASE)


def check(*, source: str, ruri: str, furi: str = "", method: str = "INVITE", transport: str = "udp") -> dict[str, str]:
    """Return the payload of the order; raise ValidationError by name for what is no request."""
    problems: dict[str, str] = {}
    try:
        source = str(ipaddress.ip_address(source.strip()))
    except ValueError:
        problems["source"] = f"{source!r} is no IP address."
    method = method.strip().upper()
    if not _METHOD.fullmatch(method) or method in ("ACK", "CANCEL"):
        problems["method"] = "Name a method that begins something, such as INVITE, OPTIONS or REGISTER."
    furi = furi.strip() or (f"sip:nobody@[{source}]" if ":" in source else f"sip:nobody@{source}")
    for name, uri in (("ruri", ruri.strip()), ("furi", furi)):
        if not _URI.fullmatch(uri) or (name not in problems and "source" not in problems and not uri.isascii()):
            problems[name] = "Write a URI such as sip:100@192.0.2.20, without name and brackets."
    if problems:
        raise ValidationError(problems)
    return {"source": source, "transport": transport, "method": method, "ruri": ruri.strip(), "furi": furi}


def ask(who: str = "", **request: str) -> dict[str, Any]:
    """Return `{"ok", "message", "rule", "says", "account", "goes_to", "answer", "request", "shown_as"}`.

    Raise ValidationError, or NoWorker.
    """
    order = orders.place_one(Order.Verb.DRY_RUN, check(**request), who, TIMEOUT)
    return orders.wait(order, TIMEOUT)
