"""Writes local domains and their next hops."""

from __future__ import annotations

from django.db import transaction

from trunkmgr.models import Change, Domain
from trunkmgr.services import changes


def save(domain: Domain, who: str = "") -> Domain:
    """Write a domain; raise ValidationError."""
    with transaction.atomic():
        before = Domain.objects.filter(pk=domain.pk).values_list("l_domain", flat=True).first()
        domain.full_clean()
        domain.save()
        changes.log(Change.Table.DOMAIN, {name for name in (before, domain.l_domain) if name}, who)
    return domain


def remove(l_domain: str, who: str = "") -> bool:
    """Delete a domain; False when there is none.  Calls for its accounts are then answered 404."""
    with transaction.atomic():
        if not Domain.objects.filter(l_domain=l_domain).delete()[0]:
            return False
        changes.log(Change.Table.DOMAIN, l_domain, who)
    return True
