"""Texts that came from the network, made fit for a column."""

from __future__ import annotations

from typing import Any

from django.db import models


def fit(model: type[models.Model], name: str, value: Any) -> Any:
    """Return `value` as the column `name` of `model` can hold it.

    PostgreSQL refuses what is too long, NUL and lone surrogates, and one such value would lose the whole batch.
    """
    if not isinstance(value, str):
        return value
    clean = value.replace("\0", "").encode("utf-8", "replace").decode()
    return clean[:model._meta.get_field(name).max_length]  # type: ignore[union-attr]
