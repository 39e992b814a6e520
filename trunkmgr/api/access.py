"""Who calls the API, what they may do, and how often: a token, or the session of a page together with its CSRF token.

Every refusal is JSON with one sentence in `error`.  The rate is kept in this process: several web processes allow as
many times as much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from trunkmgr.models import ApiToken
from trunkmgr.services import api_tokens

Permission = ApiToken.Permission
Told = tuple[int, dict[str, Any]]

#: What a permission of a token is called among those of Django's users.
OF_USERS = {
    Permission.UAC_REQ_SEND: "trunkmgr.add_siprequest", Permission.VIEW_ORDERS: "trunkmgr.view_siprequest",
}
#: Callers whose rate is remembered; the longest silent is forgotten first, and its allowance is full again by then.
CALLERS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who may call; `who` stands in the orders they place."""

    who: str
    may: Callable[[str], bool]


class Refused(Exception):
    """A request that is not served; becomes a JSON answer."""

    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(error)
        self.status = status
        self.headers = headers or {}
        self.told = {"error": error, **more}

    def response(self) -> JsonResponse:
        return JsonResponse(self.told, status=self.status, headers=self.headers)


class Rate:
    """A token bucket for each caller, as large as what is allowed in a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, caller: str, a_minute: int) -> float:
        """Take one; return 0, or the seconds until there is one again."""
        now = self._clock()
        left, at = self._left.pop(caller, (float(a_minute), now))
        left = min(float(a_minute), left + (now - at) * a_minute / 60)
        taken = left >= 1
        self._left[caller] = (left - 1 if taken else left, now)
        if len(self._left) > CALLERS:
            del self._left[next(iter(self._left))]
        return 0.0 if taken else (1 - left) * 60 / a_minute


rate = Rate()


def api(method: str) -> Callable[[Callable[..., Told]], Callable[..., HttpResponse]]:
    """Make a view of a function of a request and its caller, which returns status and answer or raises Refused."""

    def decorate(view: Callable[..., Told]) -> Callable[..., HttpResponse]:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                if request.method != method:
                    raise Refused(405, f"Use {method}.", {"Allow": method})
                caller = _caller(request)
                if wait := rate.wait(caller.who, settings.TRUNKMGR.api_rate):
                    raise Refused(
                        429, f"At most {settings.TRUNKMGR.api_rate} requests a minute.", {"Retry-After": f"{wait:.0f}"},
                    )
                status, told = view(request, caller, *args, **kwargs)
            except Refused as refused:
                return refused.response()
            except ValidationError as error:
                return _invalid(error).response()
            return JsonResponse(told, status=status)

        checked: Callable[..., HttpResponse] = csrf_exempt(never_cache(guarded))
        return checked

    return decorate


class _Csrf(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _caller(request: HttpRequest) -> Caller:
    scheme, _, clear = request.headers.get("Authorization", "").partition(" ")
    if scheme:
        token = api_tokens.find(clear.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            raise Refused(401, "This is no token of ours, or it was taken back.", {"WWW-Authenticate": "Bearer"})
        return Caller(f"token {token.name}", token.may)
    user = request.user
    if not user.is_authenticated:
        raise Refused(401, "Send a token: Authorization: Bearer …", {"WWW-Authenticate": "Bearer"})
    if reason := _Csrf(lambda request: HttpResponse()).process_view(request, HttpResponse, (), {}):
        raise Refused(403, f"The CSRF token of the page is missing or wrong ({reason}).")
    if not user.is_staff:
        raise Refused(403, "Only staff may use the API.")
    return Caller(user.get_username(), lambda permission: user.has_perm(OF_USERS[Permission(permission)]))


def _invalid(error: ValidationError) -> Refused:
    if not hasattr(error, "error_dict"):
        return Refused(400, " ".join(error.messages))
    errors = error.message_dict
    first, reasons = next(iter(errors.items()))
    return Refused(400, f"{first}: {reasons[0]}", errors=errors)
