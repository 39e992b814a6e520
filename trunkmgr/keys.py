"""The keys of this installation: from the environment, else from `keys/` in the data folder.

Embedded makes what is missing once. Elsewhere a missing key is an error, because several processes that each
made their own could not read each other's data. No key is ever derived from another.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from trunkmgr.env import Env, ring


@dataclass(frozen=True, slots=True)
class Keys:
    """Newest first where there may be several."""

    secret_key: str = field(repr=False)
    field_keys: tuple[str, ...] = field(repr=False)
    seal_keys: tuple[bytes, ...] = field(repr=False)


def load(env: Env) -> Keys:
    """Return the keys of `env`, making what is missing when it is embedded."""
    return Keys(
        secret_key=env.secret_key or _stored(env, "TRUNKMGR_SECRET_KEY", "secret", lambda: secrets.token_urlsafe(50)),
        field_keys=env.field_keys or _stored_ring(env, "TRUNKMGR_FIELD_KEYS", "field"),
        seal_keys=tuple(
            base64.urlsafe_b64decode(key)
            for key in env.seal_keys or _stored_ring(env, "TRUNKMGR_SEAL_KEYS", "seal")
        ),
    )


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def ensure_folder(path: Path) -> None:
    """Make `path` (0700) and make sure that it can be written."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unwritable(path, "Permission denied")


def _unwritable(path: Path, why: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(
        f"The data folder {path} cannot be written: {why}. Make it writable for this user, "
        "or name another folder in TRUNKMGR_DATA_DIR."
    )


def _stored_ring(env: Env, variable: str, name: str) -> tuple[str, ...]:
    text = _stored(env, variable, name, new_key)
    try:
        return ring(text)
    except ValueError as error:
        raise ImproperlyConfigured(
            f"The key file {env.data_dir / 'keys' / name} cannot be used: {error}. Put the old key back if passwords "
            "are stored under it."
        ) from None


def _stored(env: Env, variable: str, name: str, make: Callable[[], str]) -> str:
    path = env.data_dir / "keys" / name
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise ImproperlyConfigured(
            f"{variable} is not set, and the key file {path} cannot be read: {error.strerror}. "
            "Make it readable for this user."
        ) from None
    if text:
        return text
    if not env.embedded:
        raise ImproperlyConfigured(
            f"{variable} is not set. Every process of this installation needs the same value; make one with: "
            'python3 -c "import base64,os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
        )
    ensure_folder(env.data_dir)
    ensure_folder(path.parent)
    # Two processes may start at once: the one that links first wins, and both read what it wrote.
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as draft:  # 0600
            draft.write(make() + "\n")
            draft.flush()
            os.fsync(draft.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft.name, path)
        return path.read_text().strip()
    except OSError as error:
        raise _unwritable(path.parent, error.strerror or str(error)) from None
