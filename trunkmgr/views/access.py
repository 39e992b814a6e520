"""Who may see the status pages, and what a browser may do with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from django.contrib.admin.views.decorators import staff_member_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache

View = Callable[..., HttpResponse]

#: Only our own files: no inline script or style, no frame, no other host.  'self' covers our own websocket.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)


def status_page(view: View) -> View:
    """Let staff in, send others to the admin's login and back, and give the page its policy."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        response = view(request, *args, **kwargs)
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    guarded_view: View = never_cache(staff_member_required(guarded))
    return guarded_view
