"""Providers and local domains."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.decorators import display

from trunkmgr.admin.service import ServiceAdmin
from trunkmgr.models import Domain, Provider
from trunkmgr.services import domains, providers


@admin.register(Provider)
class ProviderAdmin(ServiceAdmin):
    list_display = ("name", "domain", "proxy", "size_rule", "account_count")
    list_filter = ("size_rule",)
    search_fields = ("name", "domain", "proxy")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        return super().get_queryset(request).annotate(account_count=Count("accounts"))

    @display(description="Accounts", ordering="account_count")
    def account_count(self, provider: Any) -> int:
        return int(provider.account_count)

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        providers.save(obj, request.user.get_username())

    def delete_model(self, request: HttpRequest, obj: Provider) -> None:
        providers.remove(obj.pk, request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Provider]) -> None:
        with transaction.atomic():
            for provider in queryset:
                providers.remove(provider.pk, request.user.get_username())


@admin.register(Domain)
class DomainAdmin(ServiceAdmin):
    list_display = ("l_domain", "next_hop")
    search_fields = ("l_domain", "next_hop")

    def save_model(self, request: HttpRequest, obj: Domain, form: Any, change: bool) -> None:
        domains.save(obj, request.user.get_username())

    def delete_model(self, request: HttpRequest, obj: Domain) -> None:
        domains.remove(obj.l_domain, request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Domain]) -> None:
        with transaction.atomic():
            for domain in queryset:
                domains.remove(domain.l_domain, request.user.get_username())
