"""Credentials for challenged calls; their secrets go in and never come out."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from trunkmgr.admin.forms import CredentialForm
from trunkmgr.admin.service import ServiceAdmin, with_stored_secrets
from trunkmgr.models import Credential
from trunkmgr.services import credentials


@admin.register(Credential)
class CredentialAdmin(ServiceAdmin):
    form = CredentialForm
    list_display = ("username", "shown_realm", "scope", "secret", "note")
    list_select_related = ("provider",)
    list_filter = ("provider",)
    search_fields = ("username", "realm", "account__l_uuid", "note")
    autocomplete_fields = ("provider", "account")
    fieldsets = (
        (None, {"fields": ("username", ("password", "clear_password"), ("ha1", "clear_ha1"), "realm")}),
        ("Whose calls", {
            "fields": ("account", "provider"),
            "description": "Choose one, or none for the calls of every account. An account's own password goes before.",
        }),
        ("Note", {"fields": ("note",)}),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return with_stored_secrets(self.fieldsets, (("password", "clear_password"), ("ha1", "clear_ha1")), obj)

    @display(description="Realm", ordering="realm")
    def shown_realm(self, credential: Credential) -> str:
        return credential.realm or "(any)"

    @display(description="Answers for")
    def scope(self, credential: Credential) -> str:
        return credential.scope

    @display(description="Secret")
    def secret(self, credential: Credential) -> str:
        return "HA1" if credential.ha1 else "Password"

    def save_model(self, request: HttpRequest, obj: Credential, form: Any, change: bool) -> None:
        credentials.save(obj, request.user.get_username())

    def delete_model(self, request: HttpRequest, obj: Credential) -> None:
        credentials.remove(obj.pk, request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Credential]) -> None:
        with transaction.atomic():
            for pk in list(queryset.values_list("pk", flat=True)):
                credentials.remove(pk, request.user.get_username())
