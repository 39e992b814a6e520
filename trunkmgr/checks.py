"""System checks: what `manage.py check` and every start say about the settings."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from trunkmgr.env import REPLACED, env


@register()
def check_environment(**kwargs: Any) -> list[CheckMessage]:
    return environment_messages(env.replaced, reg_db_url=bool(env.reg_db_url))


def environment_messages(replaced: tuple[str, ...], *, reg_db_url: bool) -> list[CheckMessage]:
    """Name what is set and has no effect, and what stands in its place."""
    messages: list[CheckMessage] = [
        Warning(f"{name} is set and has no effect: {REPLACED[name]}.", hint=f"Remove {name}.", id="trunkmgr.W001")
        for name in replaced
    ]
    if reg_db_url:
        messages.append(Error(
            "UAC_REG_DB_URL is set, and this version reads accounts only from its own database.",
            hint="Remove UAC_REG_DB_URL and bring the accounts in with `manage.py uacreg import`.",
            id="trunkmgr.E001",
        ))
    return messages


@register()
def check_routing(**kwargs: Any) -> list[CheckMessage]:
    return routing_messages()


def routing_messages() -> list[CheckMessage]:
    """Say when the routing class of one's own cannot be used; ours needs no look."""
    if settings.TRUNKMGR.routing == "trunkmgr.sip.routing.TrunkRouting":
        return []
    from trunkmgr.sip.routing import routing_class

    try:
        routing_class()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="trunkmgr.E020")]
    return []
