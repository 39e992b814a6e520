"""Writes providers."""

from __future__ import annotations

from django.db import transaction

from trunkmgr.models import Change, Credential, Provider, UacReg
from trunkmgr.services import changes, departures


def save(provider: Provider, who: str = "") -> Provider:
    """Write a provider; raise ValidationError."""
    with transaction.atomic():
        provider.full_clean()
        with departures.kept(_accounts(provider.pk) if provider.pk else ()):
            provider.save()
        changes.log(Change.Table.PROVIDER, str(provider.pk), who)
    return provider


def remove(pk: int, who: str = "") -> bool:
    """Delete a provider; False when there is none.  Its accounts stay and lose its proxy, its credentials go."""
    with transaction.atomic():
        accounts = _accounts(pk)
        credentials = [str(key) for key in Credential.objects.filter(provider=pk).values_list("pk", flat=True)]
        with departures.kept(accounts):
            if not Provider.objects.filter(pk=pk).delete()[0]:
                return False
        changes.log(Change.Table.PROVIDER, str(pk), who)
        changes.log(Change.Table.UACREG, accounts, who)
        changes.log(Change.Table.CREDENTIAL, credentials, who)
    return True


def _accounts(pk: int) -> list[str]:
    return list(UacReg.objects.filter(options__provider=pk).values_list("l_uuid", flat=True))
