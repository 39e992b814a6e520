"""Tokens of the HTTP API: made, found and taken back; the clear text leaves here once."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.core.exceptions import ValidationError
from django.utils import timezone

from trunkmgr.models import ApiToken
from trunkmgr.models.validators import plain_text

#: What a token looks like, so that people and scanners of repositories know one.
PREFIX = "trunkmgr_"
#: The time of use is written at most this often.
NOTED = timedelta(minutes=1)


def add(name: str, permissions: Iterable[str], who: str = "") -> tuple[ApiToken, str]:
    """Make a token; return its row and its clear text, which is not stored.  Raise ValidationError."""
    may = sorted(set(permissions))
    if unknown := [each for each in may if each not in ApiToken.Permission.values]:
        raise ValidationError({"permissions": f"There is no permission {unknown[0]}."})
    if not may:
        raise ValidationError({"permissions": "Say what the token may do."})
    clear = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken(name=name.strip(), permissions=may, digest=_digest(clear), created_by=who[:150])
    plain_text(token.name)
    token.full_clean()
    token.save()
    return token, clear


def remove(name: str) -> bool:
    """Take a token back at once; False when there is none of that name."""
    return bool(ApiToken.objects.filter(name=name).delete()[0])


def find(clear: str) -> ApiToken | None:
    """Return the row of a token that a program showed."""
    token = ApiToken.objects.filter(digest=_digest(clear)).first()
    now = timezone.now()
    if token is not None and (token.used_time is None or now - token.used_time > NOTED):
        token.used_time = now
        ApiToken.objects.filter(pk=token.pk).update(used_time=now)
    return token


def _digest(clear: str) -> str:
    return hashlib.sha256(clear.encode("utf-8", "surrogateescape")).hexdigest()
