"""SIP workers, the orders for them, and the log of changes that they follow."""

from __future__ import annotations

from django.db import models

from trunkmgr.models.credential import SecretField


class Node(models.Model):
    """A SIP worker; its name is stable over restarts (`TRUNKMGR_NODE`)."""

    name = models.CharField(max_length=64, unique=True)
    instance = models.CharField(max_length=32, default="", blank=True, help_text="Drawn anew at each start.")
    host = models.CharField(max_length=255, default="", blank=True)
    pid = models.PositiveIntegerField(null=True)
    started_time = models.DateTimeField(null=True)
    heartbeat_time = models.DateTimeField(null=True)
    stopped_time = models.DateTimeField(null=True, help_text="Set by an orderly stop.")
    listen = models.JSONField(default=list, help_text='Bound sockets: ["udp:0.0.0.0:5060", …].')

    load = models.JSONField(
        default=dict, blank=True, help_text="Overload as of the last heartbeat: share refused, wait, times, refused."
    )

    notice = models.CharField(
        max_length=500, default="", blank=True, help_text="What an operator must know of it as of the last heartbeat.",
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Change(models.Model):
    """A line of the change log: this row of that table was written or deleted.

    Written in the transaction of the change itself; workers read it by rising id, with an overlap.
    """

    class Table(models.TextChoices):
        UACREG = "uacreg"
        PROVIDER = "provider"
        DOMAIN = "domain"
        CREDENTIAL = "credential"
        PARAMETER = "parameter"
        DEVICE = "device"
        LOCATION = "location"

    table = models.CharField(max_length=16, choices=Table.choices)
    key = models.CharField(
        max_length=128, help_text="l_uuid, l_domain, user@domain, ruid, or the id of a provider or credential.",
    )
    time = models.DateTimeField(auto_now_add=True)
    who = models.CharField(max_length=150, default="", blank=True)

    def __str__(self) -> str:
        return f"{self.table} {self.key}"


class Parameter(models.Model):
    """A parameter of the seed module that was changed at run time; it goes before the environment."""

    class Name(models.TextChoices):
        REG_ACTIVE = "reg_active"

    name = models.CharField(max_length=32, primary_key=True, choices=Name.choices)
    value = models.CharField(max_length=64)
    time = models.DateTimeField(auto_now=True)
    who = models.CharField(max_length=150, default="", blank=True)

    def __str__(self) -> str:
        return f"{self.name} {self.value}"


class Order(models.Model):
    """Something one worker shall do once and answer; ignored past its deadline."""

    class Verb(models.TextChoices):
        REGISTER = "register"
        UNREGISTER = "unregister"
        DUMP = "dump"
        UAC_REQ_SEND = "uac_req_send"
        RELOAD = "reload"
        DRY_RUN = "dry_run"
        UNBAN = "unban"
        DOCTOR = "doctor"
        PREVIEW = "preview"

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="orders")
    verb = models.CharField(max_length=16, choices=Verb.choices)
    payload = models.JSONField(default=dict, help_text="Row keys and plain options; never a secret.")
    secret = SecretField(default="", blank=True, help_text="What only the worker may read; wiped when it claims.")
    who = models.CharField(max_length=150, default="", blank=True)
    created_time = models.DateTimeField(auto_now_add=True)
    deadline = models.DateTimeField()
    claimed_time = models.DateTimeField(null=True)
    finished_time = models.DateTimeField(null=True)
    progress = models.JSONField(default=list, help_text="Steps of an order that takes a while, as far as it has come.")
    result = models.JSONField(null=True, help_text='{"ok": bool, "message": text, …}')

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["node", "claimed_time"])]

    def __str__(self) -> str:
        return f"{self.verb} for {self.node_id}"


class Ban(models.Model):
    """An address that one worker takes no connections of for a time; the row stays as what happened."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="bans")
    address = models.GenericIPAddressField()
    rule = models.CharField(max_length=32, help_text="What it was banned for.")
    since_time = models.DateTimeField()
    until_time = models.DateTimeField()
    lifted_time = models.DateTimeField(null=True, blank=True)
    who = models.CharField("lifted by", max_length=150, default="", blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["until_time"])]

    def __str__(self) -> str:
        return self.address


class SipRequest(Order):
    """An order of the verb `uac_req_send`: what the permissions to send a request and to see them are of."""

    class Meta:
        proxy = True
        verbose_name = "SIP request"

    def __str__(self) -> str:
        keys = self.payload.get("keys", {})
        return f"{keys.get('method', '')} {keys.get('ruri', '')}"
