"""Devices that may register, with write-only secrets; and what is registered, to look at and to end."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from trunkmgr.admin.forms import DeviceForm
from trunkmgr.admin.records import ReadOnlyAdmin
from trunkmgr.admin.service import ServiceAdmin, with_stored_secrets
from trunkmgr.models import Device, Location
from trunkmgr.services import devices, locations


@admin.register(Device)
class DeviceAdmin(ServiceAdmin):
    form = DeviceForm
    list_display = ("username", "domain", "enabled", "secret", "max_contacts", "note")
    list_filter = ("enabled", "domain")
    search_fields = ("username", "domain", "note")
    fieldsets = (
        (None, {"fields": ("username", "domain", "enabled")}),
        ("Secret", {"fields": (("password", "clear_password"), ("ha1", "clear_ha1"), "digest")}),
        ("Registered", {"fields": ("max_contacts",)}),
        ("Note", {"fields": ("note",)}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return with_stored_secrets(self.fieldsets, (("password", "clear_password"), ("ha1", "clear_ha1")), obj)

    @display(description="Secret")
    def secret(self, device: Device) -> str:
        return "HA1" if device.ha1 else "Password"

    def save_model(self, request: HttpRequest, obj: Device, form: Any, change: bool) -> None:
        devices.save(obj, request.user.get_username())

    def delete_model(self, request: HttpRequest, obj: Device) -> None:
        devices.remove(obj, request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Device]) -> None:
        with transaction.atomic():
            for device in queryset:
                devices.remove(device, request.user.get_username())


@admin.register(Location)
class LocationAdmin(ReadOnlyAdmin):
    actions = ["delete_selected"]
    list_display = ("username", "domain", "contact", "received", "q", "expires", "user_agent", "node")
    list_filter = ("domain", "node")
    search_fields = ("username", "contact", "received", "user_agent")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm("trunkmgr.delete_location"))

    def delete_model(self, request: HttpRequest, obj: Location) -> None:
        locations.remove([obj.ruid], request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Location]) -> None:
        locations.remove(queryset.values_list("ruid", flat=True), request.user.get_username())
