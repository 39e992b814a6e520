"""Texts that came from the network, made fit for a column."""

from __future__ import annotations

from collections.abc import Sequence
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


def fit_all(model: type[models.Model], name: str, values: Sequence[str]) -> Sequence[str]:
    """Return the texts of one column, each as `fit` would; mostly one look at all of them says that they are."""
    limit = _limit(model, name)
    together = "".join(values)
    if together.isascii() and "\0" not in together and (limit is None or max(map(len, values)) <= limit):
        return values
    return [fit(model, name, value) for value in values]


@lru_cache(maxsize=256)
def _limit(model: type[models.Model], name: str) -> int | None:
    return model._meta.get_field(name).max_length  # type: ignore[union-attr]
