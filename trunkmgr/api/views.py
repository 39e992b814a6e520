"""`POST /api/uac_req_send` and `GET /api/orders/<id>`."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from trunkmgr.api.access import Caller, Permission, Refused, Told, api
from trunkmgr.exceptions import NoWorker
from trunkmgr.models import Order
from trunkmgr.services import requests

#: Bytes of a request: the longest body of a SIP request in JSON's longest way of writing it, and room for the rest.
LONGEST = 6 * 32768 + 32768


@api("POST")
def uac_req_send(request: HttpRequest, caller: Caller) -> Told:
    """Order a request; with `wait` (the default) answer with its result, else at once."""
    if not caller.may(Permission.UAC_REQ_SEND):
        raise Refused(403, f"{caller.who} may not send requests.")
    given = _json(request)
    account = _taken(given, "account", str, "")
    credential = _taken(given, "credential", int, None)
    apasswd = _taken(given, "apasswd", str, "")
    timeout = _taken(given, "timeout", (int, float), requests.TIMEOUT)
    wait = _taken(given, "wait", bool, True)
    hdrs = given.get("hdrs")
    if isinstance(hdrs, list) and all(isinstance(line, str) for line in hdrs):
        given["hdrs"] = "".join(f"{line}\r\n" for line in hdrs)
    try:
        order = requests.send(
            given, caller.who, account=account, credential=credential, apasswd=apasswd, timeout=timeout,
        )
    except NoWorker as error:
        raise Refused(503, str(error), {"Retry-After": "5"}) from None
    if wait:
        requests.wait(order, timeout)
        order.refresh_from_db()
    return (200 if order.result is not None else 202), shown(order)


@api("GET")
def order(request: HttpRequest, caller: Caller, pk: int) -> Told:
    """Tell of an order: one's own, or with the permission anybody's."""
    found = Order.objects.filter(pk=pk, verb=Order.Verb.UAC_REQ_SEND).defer("secret").first()
    if found is None or not (found.who == caller.who or caller.may(Permission.VIEW_ORDERS)):
        raise Refused(404, f"There is no order {pk} for you.")
    return 200, shown(found)


@csrf_exempt
def nothing(request: HttpRequest, path: str) -> HttpResponse:
    return Refused(404, f"There is nothing at /api/{path}.").response()


def shown(order: Order) -> dict[str, Any]:
    """Return what is told of an order; its keys hold no password."""
    late = order.result is None and order.deadline < timezone.now()
    return {
        "id": order.pk, "url": reverse("api:order", args=[order.pk]),
        "state": "done" if order.result is not None else "expired" if late else "waiting",
        "who": order.who, "created_time": order.created_time.isoformat(), "deadline": order.deadline.isoformat(),
        "request": order.payload.get("keys", {}), "account": order.payload.get("l_uuid") or None,
        "credential": order.payload.get("credential"), "result": order.result,
    }


def _json(request: HttpRequest) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise Refused(415, "Send JSON: Content-Type: application/json.")
    try:
        data = request.body
    except RequestDataTooBig:
        data = b" " * (LONGEST + 1)
    if len(data) > LONGEST:
        raise Refused(413, f"A request has at most {LONGEST} bytes.")
    try:
        given = json.loads(data)
        json.dumps(given, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise Refused(400, "This is no JSON.") from None
    if not isinstance(given, dict):
        raise Refused(400, "Send a JSON object with the keys of the request.")
    return given


def _taken(given: dict[str, Any], name: str, kind: Any, usual: Any) -> Any:
    """Take an option out of `given`, so that the keys of the request are left."""
    value = given.pop(name, None)
    if value is None:
        return usual
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = {str: "text", int: "a number", bool: "true or false"}.get(kind, "a number")
        raise Refused(400, f"{name}: Write {wanted}.", errors={name: [f"Write {wanted}."]})
    return value
