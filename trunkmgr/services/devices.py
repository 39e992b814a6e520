"""Writes the devices that may register here."""

from __future__ import annotations

from django.db import transaction

from trunkmgr.models import Change, Device, Location
from trunkmgr.services import changes


def save(device: Device, who: str = "") -> Device:
    """Write a device; raise ValidationError.  With another secret, or disabled, what it has registered ends at once."""
    with transaction.atomic():
        before = Device.objects.filter(pk=device.pk).first()
        device.full_clean()
        device.save()
        names = {each.aor for each in (before, device) if each is not None}
        changes.log(Change.Table.DEVICE, names, who)
        if before is not None and _proves_less(before, device):
            _forget(before)
    return device


def _proves_less(before: Device, device: Device) -> bool:
    """Whether what was registered before is not this device's any more."""
    secrets = (before.password, before.ha1) != (device.password, device.ha1)
    return secrets or before.aor != device.aor or not device.enabled


def remove(device: Device, who: str = "") -> None:
    """Delete a device, and what it has registered."""
    with transaction.atomic():
        Device.objects.filter(pk=device.pk).delete()
        changes.log(Change.Table.DEVICE, device.aor, who)
        _forget(device)


def _forget(device: Device) -> None:
    Location.objects.filter(username=device.username, domain=device.domain).delete()
