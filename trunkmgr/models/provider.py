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

    class TlsName(models.TextChoices):
        """Whose certificate counts over TLS (RFC 5922 §7)."""

        DOMAIN = "domain", "the name that was asked for"
        SRV_TARGET = "srv-target", "that, or the server that DNS (SRV) names for it"

    name = models.CharField(max_length=64, unique=True)
    domain = models.CharField(
        max_length=255, validators=[validators.sip_domain], help_text="SIP domain, for example sip.rheintel.example.",
    )
    proxy = models.CharField(
        max_length=255, default="", blank=True, validators=[validators.sip_uri],
        help_text="sip: URI used when an account names no outbound proxy.",
    )
    socket = models.CharField(
        "local socket", max_length=128, default="", blank=True, validators=[validators.local_socket],
        help_text="proto:ip:port that requests of its accounts leave from, when an account names none.",
    )
    registrars = models.CharField(
        "standby registrars", max_length=1000, default="", blank=True, validators=[validators.sip_uris],
        help_text="sip: URIs that REGISTER goes to, one after the other, while nobody at domain or proxy answers.",
    )
    addresses = models.TextField(
        default="", blank=True, validators=[validators.networks],
        help_text="Addresses or networks that may call us, one a line: 192.0.2.10 or 198.51.100.0/24.",
    )
    size_rule = models.CharField(
        "long requests", max_length=8, choices=SizeRule.choices, default=SizeRule.RFC,
        help_text="How requests of more than 1,300 bytes go to this provider. Many providers take UDP only.",
    )

    reg_rate = models.PositiveSmallIntegerField(
        "REGISTERs a second", default=0,
        help_text="Sent to each of its addresses at most, by all accounts together; 0: 500. Some providers block who "
        "asks too often.",
    )
    tls_name = models.CharField(
        "certificate is for", max_length=10, choices=TlsName.choices, default=TlsName.DOMAIN,
        help_text="Over TLS. The name that was asked for is the domain, or the host of the proxy where there is one.",
    )
    tls_wildcard = models.BooleanField(
        "wildcard certificate", default=False, help_text="*.rheintel.example counts for sip.rheintel.example.",
    )
    tls_fingerprint = models.CharField(
        "pinned certificate", max_length=95, default="", blank=True, validators=[validators.fingerprint],
        help_text="SHA-256 fingerprint of the only certificate that counts, whatever name and signature it has.",
    )
    tls_client_certificate = models.BooleanField(
        "show our certificate", default=False,
        help_text="Show TRUNKMGR_TLS_CERTIFICATE to this provider when it asks for one.",
    )

    profile = models.ForeignKey(
        "trunkmgr.Profile", on_delete=models.SET_NULL, null=True, blank=True, related_name="providers",
        help_text="What its values are compared with. Nothing changes until you take them over.",
    )
    profile_version = models.PositiveIntegerField(
        null=True, blank=True, editable=False, help_text="Version of the profile that was taken over last.",
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
