"""The Django admin (Unfold): accounts, providers and domains to edit; what happened to look at."""

from trunkmgr.admin import beat, records, routing, uacreg, users

__all__ = ["beat", "records", "routing", "uacreg", "users"]
