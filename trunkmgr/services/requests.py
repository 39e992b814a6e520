"""SIP requests of people and programs: checked, then ordered of a worker; the order's row is their record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError

from trunkmgr.models import Credential, Order, UacReg
from trunkmgr.models.credential import Secret
from trunkmgr.services import orders
from trunkmgr.sip import uac_req

#: Seconds that somebody waits for the final answer, and the most that may be asked for.
TIMEOUT, MOST = 10.0, 120.0


def check(
    keys: Mapping[str, Any], *, account: str = "", credential: int | None = None, apasswd: str = "",
    timeout: float = TIMEOUT,
) -> dict[str, Any]:
    """Return the payload of the order; raise ValidationError by key for what cannot be sent."""
    keys = {"method": "OPTIONS", **{key: value for key, value in keys.items() if value not in (None, "", 0)}}
    problems: dict[str, str] = {}
    if "\0" in str(keys.get("body", "")):  # PostgreSQL stores none
        problems["body"] = "It holds a NUL, which only a routing script sends."
    if account and ("\0" in account or not UacReg.objects.filter(l_uuid=account).exists()):
        problems["account"] = f"No account has the l_uuid {account!r}."
    if credential:
        found = Credential.objects.filter(pk=credential).first()
        if found is None:
            problems["credential"] = f"No credential has the id {credential}."
        elif not found.realm:
            problems["credential"] = f"The credential {credential} names no realm, so anybody could ask for it."
    if account and credential:
        problems["credential"] = "Choose the account or the credential, not both."
    if not 1 <= timeout <= MOST:
        problems["timeout"] = f"Enter seconds from 1 to {MOST:g}."
    if problems:
        raise ValidationError(problems)
    uac_req.check(keys, apasswd, account, credential)
    return {"keys": keys, "l_uuid": account, "credential": credential}


def send(
    keys: Mapping[str, Any], who: str, *, account: str = "", credential: int | None = None, apasswd: str = "",
    timeout: float = TIMEOUT,
) -> Order:
    """Order `uac_req_send` with the keys of `$uac_req`; raise ValidationError by key, or NoWorker.

    Challenges are answered with the secret of the account (an l_uuid; it goes to the account's proxy) or the credential
    (its id), or with `auser` and `apasswd`, which lies sealed in the order until the worker has it.
    """
    payload = check(keys, account=account, credential=credential, apasswd=apasswd, timeout=timeout)
    return orders.place_one(
        Order.Verb.UAC_REQ_SEND, payload, who, timeout, l_uuid=account, secret=Secret(apasswd),
    )


def wait(order: Order, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Return the result of the order; a second more than it may take, for the way there and back.

    Where no worker took it in time, none will any more, and its secret goes.
    """
    result = orders.wait(order, timeout + 1.0)
    if "code" not in result:
        Order.objects.filter(pk=order.pk, claimed_time=None).exclude(secret="").update(secret="")
    return result
