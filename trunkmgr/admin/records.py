"""What the workers write: to look at, not to edit."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.decorators import display

from trunkmgr.models import Call, Node, RegistrationEvent


class ReadOnlyAdmin(ModelAdmin):
    """A list and a page without a form."""

    actions: Any = None
    # A count of millions of rows a page would be the slowest thing on it.
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Node)
class NodeAdmin(ReadOnlyAdmin):
    list_display = ("name", "host", "pid", "sockets", "started_time", "heartbeat_time", "stopped_time")
    fields = ("name", "host", "pid", "sockets", "started_time", "heartbeat_time", "stopped_time")

    @display(description="Sockets")
    def sockets(self, node: Node) -> str:
        return ", ".join(node.listen)


@admin.register(RegistrationEvent)
class RegistrationEventAdmin(ReadOnlyAdmin):
    list_display = ("time", "l_uuid", "state", "code", "reason", "trigger", "cause", "target", "node", "who")
    list_filter = ("state", "trigger", "node")
    search_fields = ("l_uuid", "reason", "cause")
    date_hierarchy = "time"


@admin.register(Call)
class CallAdmin(ReadOnlyAdmin):
    list_display = (
        "started_time", "direction", "caller", "callee", "l_uuid", "anonymous", "code", "reason", "answered_time",
        "ended_time",
    )
    list_filter = ("direction", "anonymous", "node")
    search_fields = ("caller", "callee", "call_id", "l_uuid")
    date_hierarchy = "started_time"
