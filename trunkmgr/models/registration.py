"""Live registration state, written by the owning worker only, and its append-only history."""

from __future__ import annotations

from django.db import models

from trunkmgr.models.credential import SecretField
from trunkmgr.models.node import Node
from trunkmgr.models.uacreg import UacReg


class State(models.TextChoices):
    """State of a registration as the worker sees it (pages add Unknown when the worker is silent)."""

    UNREGISTERED = "unregistered", "Not registered yet"
    REGISTERING = "registering", "Registering"
    REGISTERED = "registered", "Registered"
    REFRESHING = "refreshing", "Refreshing"
    FAILING = "failing", "Failing"
    REFUSED = "refused", "Refused"
    UNREGISTERING = "unregistering", "Unregistering"
    DISABLED = "disabled", "Disabled"


class Trigger(models.TextChoices):
    """Why a REGISTER was sent."""

    BEAT = "beat", "Planned by beat"
    GUARD = "guard", "Sent by the worker's guard"
    OPERATOR = "operator", "Ordered by an operator"
    CHANGE = "change", "The account changed"
    OPTIONS = "options", "Told by OPTIONS"
    """Of history rows alone: no REGISTER ended."""
    RECOVERY = "recovery", "After a start or a change of the way"


class Reachability(models.TextChoices):
    """What OPTIONS tell of an account's server."""

    UNKNOWN = "unknown", "Not known"
    REACHABLE = "reachable", "Reachable"
    UNREACHABLE = "unreachable", "Unreachable"


class Registration(models.Model):
    """What is known of one account's binding; one row an account, from the account's creation."""

    account = models.OneToOneField(
        UacReg, to_field="l_uuid", on_delete=models.CASCADE, db_constraint=False, db_column="l_uuid",
        primary_key=True, related_name="registration",
    )
    owner = models.ForeignKey(Node, on_delete=models.SET_NULL, null=True, blank=True, related_name="registrations")
    fence = models.BigIntegerField(
        default=0, help_text="Rises with each change of owner; a write with an older one is refused.",
    )
    state = models.CharField(max_length=16, choices=State.choices, default=State.UNREGISTERED)
    state_time = models.DateTimeField(null=True, help_text="Since when the state holds.")
    cause = models.CharField(
        max_length=32, default="", blank=True, help_text="Key of the cause table (docs), empty while all is well.",
    )
    code = models.PositiveSmallIntegerField(null=True, help_text="Last final answer; empty when none came.")
    reason = models.CharField(max_length=120, default="", blank=True)
    trigger = models.CharField(max_length=16, choices=Trigger.choices, default="", blank=True)
    granted = models.PositiveIntegerField(null=True, help_text="Seconds granted by the last 200.")
    bound_until_time = models.DateTimeField(null=True, help_text="When the binding lapses at the registrar.")
    next_attempt_time = models.DateTimeField(null=True, db_index=True, help_text="Next refresh or retry.")
    generation = models.BigIntegerField(
        default=0, help_text="Rises with each answered REGISTER; a plan names the one it was made for.",
    )
    failures = models.PositiveIntegerField(default=0, help_text="Failures in a row.")
    call_id = models.CharField(max_length=128, default="", blank=True)
    cseq = models.PositiveBigIntegerField(default=0)
    from_tag = models.CharField(max_length=64, default="", blank=True)
    contact = models.CharField(max_length=512, default="", blank=True)
    target = models.CharField(
        max_length=128, default="", blank=True, help_text="transport:host:port that answered last.",
    )
    round_trip = models.FloatField(null=True, help_text="Seconds from REGISTER to its final answer.")
    qualify_state = models.CharField(
        max_length=16, choices=Reachability.choices, default=Reachability.UNKNOWN,
        help_text="Whether the server answers OPTIONS.",
    )
    qualify_round_trip = models.FloatField(null=True, help_text="Seconds from OPTIONS to its last final answer.")
    qualify_time = models.DateTimeField(null=True, help_text="When OPTIONS was answered last.")
    realm_seen = models.CharField(max_length=128, default="", blank=True)
    digest = models.CharField(
        max_length=16, default="", blank=True, help_text="Algorithm of the last answer that the provider took.",
    )
    service_route = models.CharField(
        max_length=1024, default="", blank=True, help_text="Route of calls that this account makes (RFC 3608).",
    )
    path = models.CharField(
        max_length=1024, default="", blank=True, help_text="The provider's way to us, as it told it (RFC 3327).",
    )
    associated_uris = models.CharField(
        max_length=4096, default="", blank=True,
        help_text="Identities of this account, the usual one first (P-Associated-URI, RFC 7315).",
    )
    local_address = models.CharField(max_length=64, default="", blank=True, help_text="host:port of our REGISTER.")
    seen_address = models.CharField(
        max_length=64, default="", blank=True, help_text="The same as the registrar saw it: another one behind NAT.",
    )
    stale = models.TextField(
        default="", blank=True, help_text="Earlier addresses of ours that the provider still has, a line each.",
    )
    covered = models.FloatField(default=0.0, help_text="Seconds in which a binding stood, up to the counted time.")
    coverable = models.FloatField(default=0.0, help_text="Seconds in which one could have stood, up to then.")
    counted_time = models.DateTimeField(null=True, help_text="Empty while no binding is wanted.")

    def __str__(self) -> str:
        return f"{self.account_id}: {self.get_state_display()}"


class FurtherRegistration(models.Model):
    """The binding of an account at one more of its registrars, where it is bound at all of them at once."""

    account = models.ForeignKey(
        UacReg, to_field="l_uuid", on_delete=models.CASCADE, db_constraint=False, db_column="l_uuid",
        related_name="further_registrations",
    )
    registrar = models.CharField(max_length=255)
    state = models.CharField(max_length=16, choices=State.choices)
    cause = models.CharField(max_length=32, default="", blank=True)
    code = models.PositiveSmallIntegerField(null=True)
    reason = models.CharField(max_length=120, default="", blank=True)
    granted = models.PositiveIntegerField(null=True)
    bound_until_time = models.DateTimeField(null=True)
    next_attempt_time = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "registrar"], name="further_registration_once")]
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.account_id} at {self.registrar}: {self.get_state_display()}"


class RegistrationEvent(models.Model):
    """One thing that happened to a registration; rows are added and never changed.

    A refresh that found all as it was is none: a registered state lasts until the next row or its `lapsed_time`.
    Holds the account's `l_uuid` as text, so that history outlives the account.
    """

    l_uuid = models.CharField(max_length=64)
    time = models.DateTimeField()
    state = models.CharField(max_length=16, choices=State.choices)
    trigger = models.CharField(max_length=16, choices=Trigger.choices, default="", blank=True)
    cause = models.CharField(max_length=32, default="", blank=True)
    code = models.PositiveSmallIntegerField(null=True)
    reason = models.CharField(max_length=120, default="", blank=True)
    granted = models.PositiveIntegerField(null=True)
    round_trip = models.FloatField(null=True)
    target = models.CharField(max_length=128, default="", blank=True)
    node = models.CharField(max_length=64, default="", blank=True)
    who = models.CharField(max_length=150, default="", blank=True, help_text="The operator, where one acted.")
    lapsed_time = models.DateTimeField(
        null=True, help_text="When the binding before had ended, where nothing told so at the time.",
    )
    covered = models.FloatField(null=True, help_text="As the registration counted them at this moment.")
    coverable = models.FloatField(null=True)

    class Meta:
        indexes = [models.Index(fields=["l_uuid", "-time"])]
        ordering = ["-time", "-id"]

    def __str__(self) -> str:
        return f"{self.l_uuid} {self.state} {self.code or ''}"


class Departure(models.Model):
    """A binding that no account names any more, with all that it takes to take it back; gone with the binding.

    Its account was deleted, or names another binding by now.  Columns of `uacreg` as they were.
    """

    call_id = models.CharField(max_length=128, unique=True)
    owner = models.ForeignKey(Node, on_delete=models.SET_NULL, null=True, related_name="departures")
    l_uuid = models.CharField(max_length=64)
    r_username = models.CharField(max_length=64)
    r_domain = models.CharField(max_length=64)
    realm = models.CharField(max_length=64, default="")
    auth_username = models.CharField(max_length=64, default="")
    auth_password = SecretField(default="")
    auth_ha1 = SecretField(default="")
    auth_proxy = models.CharField(max_length=255, default="", help_text="The provider's, where the account had none.")
    contact_addr = models.CharField(max_length=255, default="")
    contact_user = models.CharField(max_length=255, default="")
    socket = models.CharField(max_length=128, default="", help_text="The provider's, where the account had none.")
    instance = models.CharField(max_length=64, default="", help_text="What it named this installation by (RFC 5626).")
    digest_minimum = models.CharField(
        max_length=16, default="", help_text="No weaker than what the provider took of the account.",
    )
    from_tag = models.CharField(max_length=64, default="")
    cseq = models.PositiveBigIntegerField(default=0)
    contact = models.CharField(max_length=512, default="")
    bound_until_time = models.DateTimeField(db_index=True, help_text="When the binding lapses at the registrar.")

    def __str__(self) -> str:
        return f"{self.r_username}@{self.r_domain}"
