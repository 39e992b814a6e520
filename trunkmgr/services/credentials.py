"""Writes the credentials that challenges of calls are answered with."""

from __future__ import annotations

from django.db import transaction

from trunkmgr.models import Change, Credential
from trunkmgr.services import changes


def save(credential: Credential, who: str = "") -> Credential:
    """Write a credential; raise ValidationError.  It answers from the next challenge on."""
    with transaction.atomic():
        credential.full_clean()
        credential.save()
        changes.log(Change.Table.CREDENTIAL, str(credential.pk), who)
    return credential


def remove(pk: int, who: str = "") -> bool:
    """Delete a credential; False when there is none."""
    with transaction.atomic():
        if not Credential.objects.filter(pk=pk).delete()[0]:
            return False
        changes.log(Change.Table.CREDENTIAL, str(pk), who)
    return True


def remove_of_account(l_uuid: str, who: str = "") -> None:
    """Delete what an account that goes away leaves, in the transaction of the caller."""
    rows = Credential.objects.filter(account__l_uuid=l_uuid)
    keys = [str(pk) for pk in rows.values_list("pk", flat=True)]
    rows.delete()
    changes.log(Change.Table.CREDENTIAL, keys, who)
