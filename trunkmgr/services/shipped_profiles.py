"""Brings the profiles of `trunkmgr/profiles/*.toml` into the table, after each `migrate`.

A file holds ``name``, ``version``, ``about`` and a table ``[fields.NAME]`` for each value with ``value``, ``source``
and, where nobody has checked it, ``general_knowledge = true``.  A file that was changed needs a higher version.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from django.db import transaction

from trunkmgr.models import Profile, ProfileField

FOLDER = Path(__file__).parents[1] / "profiles"


def read() -> dict[str, dict[str, Any]]:
    """Return what the files hold, by slug."""
    return {path.stem: tomllib.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.toml"))}


def load(using: str = "default", **kwargs: Any) -> None:
    """Add new profiles and replace older versions of shipped ones; copies and providers stay as they are."""
    known = {row.slug: row for row in Profile.objects.using(using).all()}
    newer = {
        slug: told for slug, told in read().items()
        if slug not in known or (known[slug].shipped and known[slug].version < told["version"])
    }
    if not newer:
        return
    with transaction.atomic(using=using):
        rows = Profile.objects.using(using).bulk_create(
            [
                Profile(slug=slug, name=told["name"], about=told["about"], version=told["version"], shipped=True)
                for slug, told in newer.items()
            ],
            update_conflicts=True, unique_fields=["slug"], update_fields=["name", "about", "version"],
        )
        ProfileField.objects.using(using).filter(profile__slug__in=newer).delete()
        ids = dict(Profile.objects.using(using).filter(slug__in=newer).values_list("slug", "pk"))
        ProfileField.objects.using(using).bulk_create(
            ProfileField(profile_id=ids[row.slug], name=name, **about)
            for row in rows for name, about in newer[row.slug]["fields"].items()
        )
