"""Where inbound calls go: each local domain and its next hop, the PBX."""

from __future__ import annotations

from django.db import models

from trunkmgr.models import validators


class Domain(models.Model):
    """A local domain (`l_domain` of accounts) and the PBX that serves it."""

    l_domain = models.CharField("local domain", max_length=64, unique=True, validators=[validators.sip_domain])
    next_hop = models.CharField(
        max_length=255, default="", blank=True, validators=[validators.sip_uri],
        help_text="sip: URI of the PBX, for example sip:192.0.2.20:5060. Empty: the devices that registered here.",
    )
    addresses = models.TextField(
        default="", blank=True, validators=[validators.networks],
        help_text="Further addresses or networks of this PBX, one a line. The next hop itself is always accepted.",
    )

    class Meta:
        ordering = ["l_domain"]

    def __str__(self) -> str:
        return self.l_domain
