"""`manage.py rotate_secrets`: re-encrypt stored passwords under the newest key, beside the running service."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from trunkmgr.models.credential import rotate_secrets


class Command(BaseCommand):
    help = (
        "Re-encrypt every stored password and HA1 under the newest of TRUNKMGR_FIELD_KEYS; clear text is sealed too. "
        "First put the new key in front of the old one and restart, then run this, then remove the old key."
    )
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        rewritten, unopened = rotate_secrets()
        self.stdout.write(f"{rewritten} {'secret was' if rewritten == 1 else 'secrets were'} re-encrypted.")
        if unopened:
            raise CommandError(
                f"{unopened} {'secret is' if unopened == 1 else 'secrets are'} opened by no key and left as "
                f"{'it is' if unopened == 1 else 'they are'}. Add the key to the end of TRUNKMGR_FIELD_KEYS and run "
                "this again, or enter the passwords again."
            )
