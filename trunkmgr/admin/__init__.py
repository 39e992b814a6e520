"""The Django admin (Unfold): accounts, credentials, providers and domains to edit; what happened to look at."""

from trunkmgr.admin import (
    api_tokens,
    beat,
    credential,
    device,
    profile,
    records,
    requests,
    routing,
    security,
    uacreg,
    users,
)

__all__ = [
    "api_tokens", "beat", "credential", "device", "profile", "records", "requests", "routing", "security", "uacreg",
    "users",
]
