"""Writes uacreg accounts with their options and their place in the registration table."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from trunkmgr import selectors
from trunkmgr.models import Change, Domain, Registration, UacReg, UacRegOptions
from trunkmgr.models.uacreg import FLAG_DISABLED
from trunkmgr.services import changes, credentials, departures, foreign


def fill_in(account: UacReg, options: UacRegOptions | None = None) -> None:
    """Give what was left blank its usual value, so that a new account needs little typing."""
    provider = options.provider if options else None
    account.l_uuid = account.l_uuid or secrets.token_hex(8)
    account.r_domain = account.r_domain or (provider.domain if provider else "")
    if account.pk is None and provider is not None and provider.profile is not None:
        _as_profile_says(account, options, provider.profile.values)
    account.l_username = account.l_username or account.r_username
    account.auth_username = account.auth_username or account.r_username
    if not account.l_domain:
        # Only when there is no choice: a guessed PBX would get somebody else's calls.
        domains = list(Domain.objects.values_list("l_domain", flat=True)[:2])
        account.l_domain = domains[0] if len(domains) == 1 else ""


def _as_profile_says(account: UacReg, options: UacRegOptions | None, values: Mapping[str, str]) -> None:
    """Give a new account its provider's ways where nothing else was entered."""
    if account.expires == UacReg().expires:
        account.expires = int(values.get("expires", account.expires))
    account.realm = account.realm or values.get("realm", "")
    account.contact_user = account.contact_user or contact_user(account, values.get("contact_user", ""))
    if options is not None:
        options.outbound_proxy = options.outbound_proxy or values.get("outbound_proxy", "")
        options.digest_minimum = options.digest_minimum or values.get("digest_minimum", "")


def contact_user(account: UacReg, form: str) -> str:
    """Contact user of an account where its provider wants `form`: the number it has there, or our own id."""
    return account.r_username if form == "r_username" else ""


def save(account: UacReg, options: UacRegOptions | None = None, who: str = "") -> UacReg:
    """Write an account, and its options when given; raise ValidationError.  It takes effect at once.

    One of a foreign database is written there first, where that is allowed.
    """
    own = not foreign.is_foreign(account)
    if own:
        fill_in(account, options)
    else:
        foreign.save(account, UacReg.objects.get(pk=account.pk))
    with transaction.atomic():
        created = account.pk is None
        if not created:
            stored = UacReg.objects.select_for_update().filter(pk=account.pk).values_list("l_uuid", flat=True).first()
            if stored is None:
                raise ValidationError("The account was deleted meanwhile; add it anew.")
            if stored != account.l_uuid:
                raise ValidationError({"l_uuid": "The local unique id cannot be changed; add a new account instead."})
        if own:
            account.full_clean()
            account.check_authentication((options or account.get_options()).authentication)
        if options is None and created:
            options = UacRegOptions()
        with departures.kept(() if created else [account.l_uuid]):
            try:
                account.save()
            except IntegrityError:
                raise ValidationError({"l_uuid": "An account with this local unique id was added meanwhile."}) from None
            if options is not None:
                options.account = account
                options.full_clean(validate_unique=False)
                options.save()
        if created:
            add_registrations([account.l_uuid])
        changes.log(Change.Table.UACREG, account.l_uuid, who)
    return account


def add_registrations(l_uuids: list[str]) -> None:
    """Give accounts their row in the registration table; the first live worker owns them, if there is one."""
    if not l_uuids:
        return
    owner = selectors.live_nodes().first()
    Registration.objects.bulk_create(
        [Registration(account_id=l_uuid, owner=owner, fence=1 if owner else 0) for l_uuid in l_uuids],
        batch_size=500, ignore_conflicts=True,
    )


def remove(l_uuid: str, who: str = "") -> bool:
    """Delete an account; its worker un-REGISTERs it, or the next one that runs.  False when there is none.

    Its history stays.
    """
    found = UacReg.objects.filter(l_uuid=l_uuid).first()
    if found is not None and foreign.is_foreign(found):
        foreign.remove(l_uuid)
    with transaction.atomic():
        account = UacReg.objects.select_for_update().filter(l_uuid=l_uuid).first()
        if account is None:
            return False
        with departures.kept([l_uuid]):
            # By hand: the constraint is not in the database, because a foreign uacreg table may be elsewhere.
            Registration.objects.filter(account=account).delete()
            UacRegOptions.objects.filter(account=account).delete()
            credentials.remove_of_account(l_uuid, who)
            account.delete()
        changes.log(Change.Table.UACREG, l_uuid, who)
    return True


def set_enabled(l_uuid: str, enabled: bool, who: str = "") -> bool:
    """Enable or disable an account; False when there is none or nothing changed."""
    found = UacReg.objects.filter(l_uuid=l_uuid).first()
    if found is not None and found.enabled != enabled and foreign.is_foreign(found):
        switched = UacReg.objects.get(pk=found.pk)
        switched.flags ^= FLAG_DISABLED
        foreign.save(switched, found)
    with transaction.atomic():
        account = UacReg.objects.select_for_update().filter(l_uuid=l_uuid).first()
        if account is None or account.enabled == enabled:
            return False
        # Only this column: a concurrent edit of the others must not be undone.
        account.flags = account.flags & ~FLAG_DISABLED if enabled else account.flags | FLAG_DISABLED
        account.save(update_fields=["flags"])
        changes.log(Change.Table.UACREG, l_uuid, who)
    return True
