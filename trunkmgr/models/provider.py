"""Providers: who sells us trunks, and from which addresses they may call."""

from __future__ import annotations

from django.db import models

from trunkmgr.models import validators


class Provider(models.Model):
    """A company that accounts register at."""

    class SizeRule(models.TextChoices):
        """How requests travel that are too long for one datagram (RFC 3261 §18.1.1)."""

        RFC = "rfc", "over TCP, over UDP where TCP fails"
        UDP_ONLY = "udp-only", "over UDP, whatever their length"

    name = models.CharField(max_length=64, unique=True)
    domain = models.CharField(
        max_length=255, validators=[validators.sip_domain], help_text="SIP domain, for example sip.rheintel.example.",
    )
    proxy = models.CharField(
        max_length=255, default="", blank=True, validators=[validators.sip_uri],
        help_text="sip: URI used when an account names no outbound proxy.",
    )
    addresses = models.TextField(
        default="", blank=True, validators=[validators.networks],
        help_text="Addresses or networks that may call us, one a line: 192.0.2.10 or 198.51.100.0/24.",
    )
    size_rule = models.CharField(
        "long requests", max_length=8, choices=SizeRule.choices, default=SizeRule.RFC,
        help_text="How requests of more than 1,300 bytes go to this provider. Many providers take UDP only.",
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
