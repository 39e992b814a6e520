"""Texts that came from the network, made fit for a column."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.db import models


def fit(model: type[models.Model], name: str, value: Any) -> Any:
    """Return `value` as the column `name` of `model` can hold it.

    PostgreSQL refuses what is too long, NUL and lone surrogates, and one such value would lose the whole batch.
    """
    if not isinstance(value, str):
        return value
    limit = _limit(model, name)
    if value.isascii() and "\0" not in value:
        return value if limit is None or len(value) <= limit else value[:limit]
    return value.replace("\0", "").encode("utf-8", "replace").decode()[:limit]


@lru_cache(maxsize=256)
def _limit(model: type[models.Model], name: str) -> int | None:
    return model._meta.get_field(name).max_length  # type: ignore[union-attr]
