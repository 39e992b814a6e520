"""What goes wrong in trunkmgr above SIP; every text names cause and cure."""

from __future__ import annotations


class TrunkmgrError(Exception):
    """Base of our own errors."""


class UndecryptableSecret(TrunkmgrError):
    """A stored secret that no key opens."""


class ForeignDatabaseError(TrunkmgrError):
    """The database of UAC_REG_DB_URL cannot be read or written."""


class NodeTaken(TrunkmgrError):
    """Another live worker runs under this name."""


class NoWorker(TrunkmgrError):
    """No running worker owns what an order is about."""
