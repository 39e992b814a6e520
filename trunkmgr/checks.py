"""System checks: what `manage.py check` and every start say about the settings."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from trunkmgr.env import REPLACED, env


@register()
def check_environment(**kwargs: Any) -> list[CheckMessage]:
    return environment_messages(env.replaced, foreign_writes=bool(env.reg_db_url) and env.reg_db_write)


def environment_messages(replaced: tuple[str, ...], *, foreign_writes: bool) -> list[CheckMessage]:
    """Name what is set and has no effect, with what stands in its place, and what is set and has its price."""
    messages: list[CheckMessage] = [
        Warning(f"{name} is set and has no effect: {REPLACED[name]}.", hint=f"Remove {name}.", id="trunkmgr.W001")
        for name in replaced
    ]
    if foreign_writes:
        messages.append(Warning(
            "UAC_REG_DB_WRITE=1: passwords that are entered for accounts of UAC_REG_DB_URL are written there in clear "
            "text, because Kamailio reads nothing else.",
            hint="Remove UAC_REG_DB_WRITE to only read that database.", id="trunkmgr.W002",
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
