"""The keys of a request from outside the SIP worker: read and checked by the engine's own rules, before it is ordered.

Small on purpose: commands and pages import it, and want neither sockets nor hooks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError

from sipengine.uac.uac_req import UacRequest

#: Keys that an order may hold; the password has a column of its own, the rest are results.
KEYS = frozenset(UacRequest.KEYS) - {"all", "apasswd", "evcode", "evtype"}


def uac_req_of(keys: Mapping[str, Any], apasswd: str = "") -> UacRequest:
    """Read the keys of an order; raise ValidationError that names each one that cannot be used, and no value."""
    uac_req, problems = UacRequest(), {}
    for key, value in (*keys.items(), ("apasswd", apasswd)):
        if key not in KEYS and key != "apasswd":
            problems[key] = f"There is no such key; the keys are {', '.join(sorted(KEYS))} and apasswd."
            continue
        try:
            uac_req[key] = value
        except (TypeError, ValueError) as error:
            problems[key] = _sentence(str(error).removeprefix(f"$uac_req({key}) "))
    if problems:
        raise ValidationError(problems)
    return uac_req


def check(keys: Mapping[str, Any], apasswd: str = "", account: str = "", credential: int | None = None) -> None:
    """Raise ValidationError for what makes no request; `account` and `credential` stand for keys of their own."""
    uac_req = uac_req_of(keys, apasswd)
    if not uac_req.ruri:
        raise ValidationError({"ruri": "Enter where the request goes, such as sip:user@example.net."})
    if account:
        if uac_req.ouri:
            raise ValidationError({"ouri": "The account says where it goes: to its own proxy."})
        uac_req.ouri = "sip:the-account-says"
    if (account or credential) and (uac_req.auser or uac_req.apasswd):
        raise ValidationError({"auser": "The account or credential already says what challenges are answered with."})
    try:
        uac_req.check()
    except ValueError as error:
        raise ValidationError(_sentence(str(error).replace("$uac_req(", "").replace(")", ""))) from None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
