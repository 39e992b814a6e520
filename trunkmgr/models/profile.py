"""Provider profiles: what is known of a provider, field by field, with where it is known from.

A profile holds values for a provider's row and for the rows of its accounts.  They are copied when somebody takes them,
never looked up: a profile that changes changes no trunk that runs.
"""

from __future__ import annotations

from django.db import models

from trunkmgr.models import validators


class Profile(models.Model):
    """One provider's ways; those that come with trunkmgr are replaced by newer versions, copies are the operator's."""

    slug = models.SlugField(max_length=64, unique=True, help_text="How commands call it.")
    name = models.CharField(max_length=64, validators=[validators.plain_text])
    about = models.TextField(default="", blank=True, help_text="What an operator must know or do by hand.")
    version = models.PositiveIntegerField(default=1, editable=False, help_text="Rises with each change.")
    shipped = models.BooleanField(default=False, editable=False, help_text="Comes with trunkmgr; copy it to edit it.")
    origin = models.CharField(
        max_length=80, default="", blank=True, editable=False, help_text="Profile and version that it was copied from.",
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def values(self) -> dict[str, str]:
        """By name of the field."""
        return {field.name: field.value for field in self.fields.all()}


class ProfileField(models.Model):
    """One value of a profile."""

    class Name(models.TextChoices):
        DOMAIN = "domain", "provider: SIP domain"
        PROXY = "proxy", "provider: proxy"
        TRANSPORT = "transport", "provider: transport (udp, tcp, tls)"
        ADDRESSES = "addresses", "provider: addresses"
        SIZE_RULE = "size_rule", "provider: long requests (rfc, udp-only)"
        TLS_NAME = "tls_name", "provider: certificate is for (domain, srv-target)"
        TLS_WILDCARD = "tls_wildcard", "provider: wildcard certificate (yes, no)"
        EXPIRES = "expires", "account: seconds asked for (0 never registers)"
        MIN_EXPIRES = "min_expires", "account: least seconds that the provider takes"
        CONTACT_USER = "contact_user", "account: Contact user (l_uuid, r_username)"
        REALM = "realm", "account: realm"
        OUTBOUND_PROXY = "outbound_proxy", "account: outbound proxy for calls"
        INBOUND_FROM = "inbound_from", "account: inbound calls from (provider, any-provider)"
        DIGEST_MINIMUM = "digest_minimum", "account: weakest digest (MD5, SHA-256)"

    profile = models.ForeignKey(Profile, on_delete=models.CASCADE, related_name="fields")
    name = models.CharField("field", max_length=16, choices=Name.choices)
    value = models.CharField(max_length=255, validators=[validators.plain_text])
    source = models.CharField(max_length=255, default="", blank=True, help_text="Where this is known from.")
    general_knowledge = models.BooleanField(default=False, help_text="Nobody has checked it; try it first.")

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["profile", "name"], name="profile_field_once")]

    def __str__(self) -> str:
        return f"{self.name} {self.value}"
