"""uacreg accounts: the seed module's table column by column, and our own columns beside it.

`UacReg` maps exactly table version 6 of Kamailio's `uacreg`; nothing may be added to it.  What trunkmgr
knows beyond the seed stands in `UacRegOptions`, one row an account, joined by `l_uuid` (not by `id`: a foreign
`uacreg` table may be rebuilt by its owner, the uuid is what both sides agree on).
"""

from __future__ import annotations

import uuid

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models

from trunkmgr.models import validators
from trunkmgr.models.credential import SecretField, check_secrets

#: Bit of `flags` that the seed module calls disabled; the only one an operator may set.
FLAG_DISABLED = 1


class UacReg(models.Model):
    """One account at a provider, with the columns of Kamailio's `uacreg` (table version 6)."""

    l_uuid = models.CharField(
        "local unique id", max_length=64, unique=True, default="",
        help_text="User part of our Contact, and what the provider calls us by. Cannot be changed later.",
        validators=[validators.sip_user],
    )
    l_username = models.CharField(
        "local user", max_length=64, default="", help_text="User that inbound calls go to.",
        validators=[validators.sip_user],
    )
    l_domain = models.CharField(
        "local domain", max_length=64, default="", help_text="Its next hop is set under Domains.",
        validators=[validators.sip_domain],
    )
    r_username = models.CharField(
        "remote user", max_length=64, default="", help_text="User name at the provider: From and To of REGISTER.",
        validators=[validators.sip_user],
    )
    r_domain = models.CharField(
        "remote domain", max_length=64, default="", help_text="The provider's SIP domain.",
        validators=[validators.sip_domain],
    )
    realm = models.CharField(
        max_length=64, default="", blank=True, help_text="Empty accepts the provider's realm.",
        validators=[validators.plain_text],
    )
    auth_username = models.CharField(
        "authentication user", max_length=64, default="", blank=True,
        validators=[validators.plain_text],
    )
    auth_password = SecretField("password", default="", blank=True)
    auth_ha1 = SecretField("HA1", default="", blank=True, help_text="32 hex digits, MD5; used instead of the password.")
    auth_proxy = models.CharField(
        "outbound proxy", max_length=255, default="", blank=True,
        help_text="sip: URI that REGISTER is sent to; empty sends it to the remote domain.",
        validators=[validators.sip_uri],
    )
    expires = models.IntegerField(
        default=3600, help_text="Seconds asked for; 0 never registers.",
        validators=[MinValueValidator(0)],
    )
    flags = models.IntegerField(default=0, help_text="Bit 1: disabled.", validators=[MinValueValidator(0)])
    reg_delay = models.IntegerField(
        "registration delay", default=0, help_text="Seconds from start to the first REGISTER.",
        validators=[MinValueValidator(0)],
    )
    contact_addr = models.CharField(
        "contact address", max_length=255, default="", blank=True,
        help_text="host[:port][;parameters] of our Contact; empty takes UAC_REG_CONTACT_ADDR.",
        validators=[validators.contact_address],
    )
    contact_user = models.CharField(
        "contact user", max_length=255, default="", blank=True,
        help_text="User part of our Contact instead of the local unique id.",
        validators=[validators.sip_user],
    )
    socket = models.CharField(
        "local socket", max_length=128, default="", blank=True, help_text="proto:ip:port that REGISTER leaves from.",
        validators=[validators.local_socket],
    )

    class Meta:
        db_table = "uacreg"
        ordering = ["l_uuid"]
        verbose_name = "uacreg account"
        verbose_name_plural = "uacreg accounts"

    def __str__(self) -> str:
        return f"{self.l_username}@{self.l_domain} → {self.r_username}@{self.r_domain}"

    @property
    def enabled(self) -> bool:
        return not self.flags & FLAG_DISABLED

    def get_options(self) -> UacRegOptions:
        """Return our columns; the defaults for a row that somebody else put into the table."""
        try:
            return self.options
        except UacRegOptions.DoesNotExist:
            return UacRegOptions(account=self)

    def clean(self) -> None:
        """Check what no column can say alone; a stored secret that no key opens is left as it is."""
        check_secrets(self, "auth_password", "auth_ha1")

    def check_authentication(self, authentication: str) -> None:
        """Raise ValidationError where its secrets are not those of `UacRegOptions.authentication`."""
        secret = bool(self.auth_password or self.auth_ha1)
        if authentication == UacRegOptions.Authentication.PASSWORD:
            if not secret:
                raise ValidationError({
                    "auth_password": "The account has neither password nor HA1; enter one of them, or set its "
                    "authentication to an empty password or to none.",
                })
        elif secret:
            raise ValidationError({
                "auth_password": "The account has a password or HA1: remove it, or set its authentication to password.",
            })


class UacRegOptions(models.Model):
    """What trunkmgr keeps of an account beyond the seed's columns."""

    class InboundIdentity(models.TextChoices):
        KEEP = "keep", "Show the caller"
        ANONYMOUS = "anonymous", "Hide the caller"

    class InboundFrom(models.TextChoices):
        PROVIDER = "provider", "Its provider only"
        ANY_PROVIDER = "any-provider", "Any provider"

    class DigestMinimum(models.TextChoices):
        LEARNT = "", "As strong as the provider's was before"
        MD5 = "MD5", "MD5"
        SHA_256 = "SHA-256", "SHA-256"

    class Authentication(models.TextChoices):
        PASSWORD = "password", "Password or HA1"
        EMPTY = "empty", "An empty password"
        NONE = "none", "None, the provider knows our address"

    account = models.OneToOneField(
        UacReg, to_field="l_uuid", on_delete=models.CASCADE, db_constraint=False, db_column="l_uuid",
        primary_key=True, related_name="options",
    )
    provider = models.ForeignKey(
        "trunkmgr.Provider", on_delete=models.SET_NULL, null=True, blank=True, related_name="accounts",
    )
    inbound_identity = models.CharField(
        max_length=16, choices=InboundIdentity.choices, default=InboundIdentity.KEEP,
        help_text="What the PBX sees of the caller of an inbound call.",
    )
    inbound_from = models.CharField(
        max_length=16, choices=InboundFrom.choices, default=InboundFrom.PROVIDER,
        help_text="Who may call this account: its provider's addresses and the servers it registers and calls at, or "
        "every configured provider.",
    )
    registrars = models.CharField(
        "standby registrars", max_length=1000, default="", blank=True, validators=[validators.sip_uris],
        help_text="sip: URIs that REGISTER goes to, one after the other, while the first registrar is silent; empty "
        "takes the provider's.",
    )
    at_once = models.BooleanField(
        "at all at once", default=False,
        help_text="Registered at its standby registrars too, all the time, instead of only while the first is silent.",
    )
    outbound_proxy = models.CharField(
        max_length=255, default="", blank=True, validators=[validators.sip_uri],
        help_text="sip: URI that calls to the provider go to; empty sends them to the server that took the REGISTER.",
    )
    digest_minimum = models.CharField(
        max_length=8, choices=DigestMinimum.choices, default=DigestMinimum.LEARNT, blank=True,
        help_text="Weakest digest that this account answers a challenge with.",
    )
    authentication = models.CharField(
        max_length=8, choices=Authentication.choices, default=Authentication.PASSWORD,
        help_text="What the account proves itself with. None: a challenge is a failure.",
    )
    numbers = models.CharField(
        "numbers it may call", max_length=1000, default="", blank=True, validators=[validators.number_prefixes],
        help_text="Beginnings of numbers, separated by commas or spaces: +49, 0800; with ! those it may not: !+49900. "
        "The longest decides. Empty: any number.",
    )
    max_calls = models.PositiveSmallIntegerField(
        "calls at most", default=0, help_text="Calls at the same time, in both directions; 0: any number.",
    )
    max_rate = models.PositiveSmallIntegerField(
        "calls out a second", default=0, help_text="Calls out that may begin in a second; 0: any number.",
    )
    qualify = models.PositiveSmallIntegerField(
        "seconds between OPTIONS", default=0, validators=[validators.qualify_seconds],
        help_text="Every so many seconds (10 to 3600) OPTIONS asks the server of this account whether it is there; "
        "when it falls silent, the account registers again at once. 0: never.",
    )
    outbound = models.BooleanField(
        "outbound (RFC 5626)", default=False,
        help_text="REGISTER names this installation and its connection, which is kept alive: for providers that call "
        "over the connection that registered.",
    )
    instance = models.UUIDField(
        default=uuid.uuid4, editable=False, help_text="What REGISTER names this account here by (RFC 5626).",
    )
    gin = models.BooleanField(
        "bulk registration (GIN)", default=False,
        help_text="One REGISTER for all numbers of the PBX (RFC 6140), where the provider offers it. The PBX is called "
        "by the number that the caller dialled.",
    )
    note = models.CharField(max_length=200, default="", blank=True, validators=[validators.plain_text])
    mirror = models.CharField(
        max_length=32, default="", blank=True, editable=False,
        help_text="Digest of the row of UAC_REG_DB_URL that this account was read from; empty: the account is ours.",
    )

    class Meta:
        verbose_name = "account options"
        verbose_name_plural = "account options"

    def __str__(self) -> str:
        return str(self.account_id)

    @property
    def named_instance(self) -> str:
        """``urn:uuid:…`` that REGISTER names, empty where it names none."""
        return self.instance.urn if self.outbound else ""
