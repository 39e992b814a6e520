"""Providers and local domains."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.utils.html import format_html
from unfold.decorators import display

from trunkmgr import lint
from trunkmgr.admin.service import ServiceAdmin
from trunkmgr.models import Domain, Provider
from trunkmgr.services import domains, profiles, providers


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg]
    """A provider; a new one may leave its domain to its profile."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "domain" in self.fields:
            self.fields["domain"].required = False

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        profile = None if self.instance.pk else cleaned.get("profile")
        told = profile.values if profile is not None else {}
        if not cleaned.get("domain") and "domain" not in told and not self.has_error("domain"):
            why = ": its profile says none." if profile else "."
            self.add_error("domain", f"Enter the provider's SIP domain{why}")
        return cleaned


@admin.register(Provider)
class ProviderAdmin(ServiceAdmin):
    form = ProviderForm
    list_display = ("name", "domain", "proxy", "size_rule", "profile", "account_count")
    readonly_fields = ("compared",)
    list_select_related = ("profile",)
    list_filter = ("size_rule",)
    search_fields = ("name", "domain", "proxy")

    def get_fields(self, request: HttpRequest, obj: Provider | None = None) -> list[Any]:
        """Ask for the profile first: it says what may be left out."""
        first = ["name", "profile", "compared"]
        return first + [name for name in super().get_fields(request, obj) if name not in first]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Provider]:
        return super().get_queryset(request).annotate(account_count=Count("accounts"))

    @display(description="Accounts", ordering="account_count")
    def account_count(self, provider: Any) -> int:
        return int(provider.account_count)

    @display(description="Compared with its profile")
    def compared(self, provider: Provider) -> str:
        if provider.pk is None:
            return "What is left as it is here is taken from the profile when you save."
        if provider.profile is None:
            return "It has no profile."
        return format_html(
            '<a href="{}" class="underline">{}</a>', reverse("admin:trunkmgr_provider_profile", args=[provider.pk]),
            _compared(provider, len(profiles.differences(provider))),
        )

    def get_urls(self) -> Any:
        compare = path(
            "<int:pk>/profile/", self.admin_site.admin_view(self.compare), name="trunkmgr_provider_profile",
        )
        return [compare, *super().get_urls()]

    def compare(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show what the provider's profile has otherwise (GET), and take over what was ticked (POST)."""
        provider = get_object_or_404(Provider, pk=pk)
        if not self.has_change_permission(request, provider) or not request.user.has_perm("trunkmgr.change_uacreg"):
            raise PermissionDenied
        if request.method == "POST" and provider.profile is not None:
            try:
                taken = profiles.take(provider, None, request.user.get_username(), request.POST.getlist("take"))
            except ValidationError as error:
                messages.error(request, " ".join(error.messages))
            else:
                self.log_change(request, provider, f"{len(taken)} values taken over from {provider.profile}.")
                messages.success(request, f"{len(taken)} {'value is' if len(taken) == 1 else 'values are'} taken over.")
            return redirect("admin:trunkmgr_provider_profile", pk)
        found = profiles.differences(provider)
        return render(request, "admin/trunkmgr/compare_profile.html", {
            **self.admin_site.each_context(request), "title": f"{provider.name} and its profile", "provider": provider,
            "differences": found, "compared": _compared(provider, len(found)) if provider.profile else "",
        })

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        if not change:
            profiles.fill_in(obj)
        providers.save(obj, request.user.get_username())
        for remark in lint.provider(obj, [socket.partition(":")[0] for socket in settings.TRUNKMGR.sip_listen]):
            messages.warning(request, str(remark))

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


def _compared(provider: Provider, count: int) -> str:
    profile = provider.profile
    assert profile is not None
    if provider.profile_version is None:
        version = "it was never taken over"
    elif provider.profile_version < profile.version:
        version = f"version {profile.version} is out, version {provider.profile_version} was taken over"
    else:
        version = f"version {profile.version}"
    return f"{profile.name}, {version}: {count or 'no'} {'value differs' if count == 1 else 'values differ'}"
