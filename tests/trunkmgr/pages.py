"""Rows for the tests of the status pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from trunkmgr.models import Node, Provider, Registration, UacReg, UacRegOptions

PASSWORD = "never-on-a-page-1234"


def node(name: str = "edge-1", silent: float = 0.0, **values: Any) -> Node:
    beat = timezone.now() - timedelta(seconds=silent)
    return Node.objects.create(name=name, host="gw", **{"heartbeat_time": beat, "started_time": beat, **values})


def trunk(l_uuid: str, owner: Node | None, state: str = "registered", **values: Any) -> Registration:
    """Store an account with its registration; a registered one gets a binding of an hour unless told otherwise."""
    now = timezone.now()
    given = {name: values.pop(name) for name in ("flags", "realm", "expires", "auth_proxy") if name in values}
    account = UacReg.objects.create(**{
        "l_uuid": l_uuid, "l_username": f"user-{l_uuid}"[:64], "l_domain": "pbx.example", "r_username": "4930",
        "r_domain": "sip.provider.example", "auth_username": "4930", "auth_password": PASSWORD, **given,
    })
    provider, _ = Provider.objects.get_or_create(name="Rheintel", defaults={"domain": "sip.provider.example"})
    UacRegOptions.objects.create(account=account, provider=provider, note=values.pop("note", ""))
    usual: dict[str, Any] = {"state_time": now}
    if state == "registered":
        usual |= {
            "code": 200, "reason": "OK", "granted": 3600, "bound_until_time": now + timedelta(hours=1),
            "next_attempt_time": now + timedelta(minutes=50), "generation": 1,
        }
    return Registration.objects.create(account=account, owner=owner, state=state, **{**usual, **values})
