"""Devices that register here and where they are: what Kamailio keeps in its tables `subscriber` and `location`."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from trunkmgr.models import validators
from trunkmgr.models.credential import SecretField, check_secrets


class Device(models.Model):
    """A user of a local domain that may register, and what proves it."""

    class Digest(models.TextChoices):
        SHA256 = "sha256", "SHA-256, else MD5"
        MD5 = "md5", "MD5 only"

    username = models.CharField(
        "user", max_length=64, validators=[validators.sip_user],
        help_text="User of its address, and of its credentials; calls for accounts with this local user ring here.",
    )
    domain = models.CharField(
        max_length=63, validators=[validators.sip_domain],
        help_text="Local domain; it is the realm of the challenge too. Leave its next hop empty to ring its devices.",
    )
    password = SecretField(default="", blank=True)
    ha1 = SecretField("HA1", default="", blank=True)
    enabled = models.BooleanField(default=True, help_text="Off: it may not register, and what it registered ends.")
    digest = models.CharField(
        max_length=8, choices=Digest.choices, default=Digest.SHA256,
        help_text="Some phones give up at a challenge that offers more than MD5. With an HA1 it is MD5 always.",
    )
    max_contacts = models.PositiveSmallIntegerField(
        "contacts at most", default=3, validators=[MinValueValidator(1), MaxValueValidator(10)],
        help_text="Phones that may be registered at the same time; one more takes the place of the oldest.",
    )
    note = models.CharField(max_length=200, default="", blank=True, validators=[validators.plain_text])

    class Meta:
        constraints = [models.UniqueConstraint(fields=["username", "domain"], name="trunkmgr_device_aor")]
        ordering = ["domain", "username"]

    def __str__(self) -> str:
        return self.aor

    @property
    def aor(self) -> str:
        """Its address-of-record, without the scheme."""
        return f"{self.username}@{self.domain}"

    def clean(self) -> None:
        """Check what no column can say alone."""
        self.domain = self.domain.lower()
        if "%" in self.username:
            raise ValidationError({"username": "Write the user of a device without %HH."})
        if ":" in self.domain:
            raise ValidationError({"domain": "An address-of-record has no port: leave it out."})
        if bool(self.password) == bool(self.ha1):
            many = "both a password and an HA1; keep" if self.password else "neither password nor HA1; enter"
            raise ValidationError({"password": f"The device has {many} one of them."})
        check_secrets(self, "password", "ha1")


class Location(models.Model):
    """A contact that a device has registered.  Workers write them behind and read them at their start only."""

    ruid = models.CharField(max_length=64, primary_key=True)
    username = models.CharField("user", max_length=64)
    domain = models.CharField(max_length=64)
    contact = models.CharField(max_length=512)
    received = models.CharField(max_length=128, help_text="Where its REGISTER came from.")
    path = models.CharField(max_length=512, default="", blank=True)
    expires = models.DateTimeField(db_index=True)
    q = models.FloatField(default=1.0)
    callid = models.CharField("Call-ID", max_length=255)
    cseq = models.PositiveIntegerField("CSeq")
    last_modified = models.DateTimeField()
    user_agent = models.CharField(max_length=255, default="", blank=True)
    instance = models.CharField(max_length=255, default="", blank=True)
    reg_id = models.PositiveIntegerField(default=0)
    node = models.CharField("SIP worker", max_length=64)

    class Meta:
        indexes = [models.Index(fields=["domain", "username"])]
        ordering = ["domain", "username", "-last_modified"]
        verbose_name = "binding"

    def __str__(self) -> str:
        return f"{self.username}@{self.domain} at {self.contact}"
