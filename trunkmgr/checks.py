"""System checks: what `manage.py check` and every start say about the settings."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register

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
