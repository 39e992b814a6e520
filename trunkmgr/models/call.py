"""Calls: one record each, written when a call starts and completed when it ends; and what some need after a restart."""

from __future__ import annotations

from django.db import models


class Call(models.Model):
    """A call detail record; `ended_time` empty means that the call is going on."""

    class Direction(models.TextChoices):
        INBOUND = "in", "In"
        OUTBOUND = "out", "Out"

    key = models.CharField(max_length=32, unique=True, help_text="Drawn by the engine for each response context.")
    call_id = models.CharField(max_length=255)
    l_uuid = models.CharField(max_length=64)
    direction = models.CharField(max_length=3, choices=Direction.choices)
    caller = models.CharField(max_length=128, default="", blank=True)
    callee = models.CharField(max_length=128, default="", blank=True)
    anonymous = models.BooleanField(default=False, help_text="The caller was hidden from the far side.")
    started_time = models.DateTimeField()
    answered_time = models.DateTimeField(null=True)
    ended_time = models.DateTimeField(null=True, db_index=True)
    code = models.PositiveSmallIntegerField(null=True, help_text="Final answer to the INVITE.")
    reason = models.CharField(max_length=120, default="", blank=True)
    node = models.CharField(max_length=64, default="", blank=True)

    class Meta:
        # A call is stored within a second of its start, so this is the order in which they began but for that second;
        # with an index by time each one writes nearly twice as many pages.
        indexes = [models.Index(fields=["l_uuid", "-id"])]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.caller} → {self.callee}"


class Dialog(models.Model):
    """What a call needs after a restart and its Record-Route token does not tell: how its CSeq is counted by now.

    Only calls that the provider challenged within have a row, from the challenge to their end.
    """

    key = models.CharField(max_length=32, primary_key=True, help_text="Drawn by the engine, as the call's own.")
    node = models.CharField(max_length=64, db_index=True)
    call_id = models.CharField(max_length=255)
    l_uuid = models.CharField(max_length=64, default="", blank=True)
    state = models.TextField(help_text="Sealed with TRUNKMGR_SEAL_KEYS, because it names hidden callers.")
    expires_time = models.DateTimeField(db_index=True)
    changed_time = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.call_id} until {self.expires_time:%Y-%m-%d %H:%M:%S}"
