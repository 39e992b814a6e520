"""Tokens with which programs use the HTTP API; only a hash of each is stored."""

from __future__ import annotations

from django.db import models


class ApiToken(models.Model):
    """A named token and what it may do; whoever holds it acts as `token NAME`."""

    class Permission(models.TextChoices):
        UAC_REQ_SEND = "uac_req_send", "Send SIP requests"
        VIEW_ORDERS = "view_orders", "See the orders of others"

    name = models.CharField(max_length=64, unique=True, help_text="Who or what uses it; stands in the log of orders.")
    # SHA-256 without salt is enough for 256 random bits, and finds the row by an index.
    digest = models.CharField(max_length=64, unique=True, editable=False)
    permissions = models.JSONField(default=list)
    created_time = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=150, default="", blank=True, editable=False)
    used_time = models.DateTimeField("last used", null=True, blank=True, editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = "API token"

    def __str__(self) -> str:
        return self.name

    def may(self, permission: str) -> bool:
        return permission in self.permissions
