"""Writes parameters that an operator changes at run time."""

from __future__ import annotations

from django.db import transaction

from trunkmgr import selectors
from trunkmgr.models import Change, Parameter
from trunkmgr.services import changes


def set_reg_active(active: bool, who: str = "") -> bool:
    """Stop or resume sending registrations on all workers; return what held before.  It outlives a restart."""
    with transaction.atomic():
        before = selectors.reg_active()
        name = Parameter.Name.REG_ACTIVE
        Parameter.objects.update_or_create(name=name, defaults={"value": str(int(active)), "who": who[:150]})
        changes.log(Change.Table.PARAMETER, name, who)
    return before
