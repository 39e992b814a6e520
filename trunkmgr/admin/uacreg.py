"""uacreg accounts; every write goes through `services.accounts`, so that it takes effect at once."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import path, reverse
from django.utils import timezone
from unfold.decorators import action, display

from trunkmgr import lint, payloads, selectors
from trunkmgr.admin.forms import UacRegForm
from trunkmgr.admin.service import ServiceAdmin, with_stored_secrets
from trunkmgr.causes import Shown
from trunkmgr.exceptions import NoWorker
from trunkmgr.models import Domain, Order, Registration, UacReg
from trunkmgr.models.uacreg import FLAG_DISABLED
from trunkmgr.services import accounts, foreign, orders, preflight

_COLOURS = {
    Shown.REGISTERED.label: "success", Shown.REFRESHING.label: "info", "Registering": "info", "Unregistering": "info",
    "Waiting": "info", Shown.FAILING.label: "warning", Shown.REFUSED.label: "danger",
}


#: The seed's columns, as the page of an account shows them that stands elsewhere; its secrets are not shown at all.
_COLUMNS = (
    "l_uuid", "r_username", "r_domain", "l_username", "l_domain", "auth_username", "realm", "auth_proxy", "expires",
    "reg_delay", "contact_addr", "contact_user", "socket",
)
_FOREIGN_FIELDSETS = (
    (None, {
        "description": "This account stands in the database of UAC_REG_DB_URL and is changed there. What is set here "
                       "stays here; Enabled holds until its row there changes.",
        "fields": (
            "enabled", "provider", "registrars", "at_once", "outbound_proxy", "inbound_identity", "inbound_from",
            "digest_minimum", "authentication", "numbers", "max_calls", "max_rate", "qualify", "outbound", "gin",
            "note",
        ),
    }),
    ("Its row there", {"fields": _COLUMNS}),
)


def _only_read(account: UacReg | None) -> bool:
    return account is not None and foreign.is_foreign(account) and not foreign.may_write()


class EnabledFilter(admin.SimpleListFilter):
    """By bit 1 of `flags`."""

    title = "enabled"
    parameter_name = "enabled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("1", "Enabled"), ("0", "Disabled")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UacReg]) -> QuerySet[UacReg]:
        if self.value() not in {"0", "1"}:
            return queryset
        return queryset.alias(disabled=F("flags").bitand(FLAG_DISABLED)).filter(
            disabled=FLAG_DISABLED if self.value() == "0" else 0,
        )


@admin.register(UacReg)
class UacRegAdmin(ServiceAdmin):
    form = UacRegForm
    list_display = ("local", "remote", "provider_name", "state", "why", "l_uuid")
    list_display_links = ("local",)
    search_fields = (
        "l_uuid", "l_username", "l_domain", "r_username", "r_domain", "auth_username", "contact_user", "options__note",
    )
    list_filter = (
        "registration__state", EnabledFilter, "options__provider", "l_domain", "options__inbound_identity",
    )
    list_per_page = 100
    ordering = ("l_username", "l_domain", "l_uuid")
    actions = ("enable", "disable", "register_now", "unregister")
    actions_detail = ("show_preview", "show_check")
    fieldsets = (
        (None, {"fields": ("enabled", "provider", ("r_username", "r_domain"), ("auth_password", "clear_password"))}),
        ("Calls", {"fields": (("l_username", "l_domain"), ("inbound_identity", "inbound_from"), "outbound_proxy")}),
        ("Limits", {"classes": ("collapse",), "fields": ("numbers", ("max_calls", "max_rate"))}),
        ("Authentication", {
            "classes": ("collapse",), "fields": (
                "authentication", "auth_username", "realm", ("auth_ha1", "clear_ha1"), "digest_minimum",
            ),
        }),
        ("Registration", {
            "classes": ("collapse",),
            "fields": (
                "l_uuid", "auth_proxy", ("registrars", "at_once"), ("expires", "reg_delay"),
                ("contact_addr", "contact_user"),
                ("socket", "qualify"), ("outbound", "gin"),
            ),
        }),
        ("Note", {"fields": ("note",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[UacReg]:
        return selectors.accounts()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return _COLUMNS if _only_read(obj) else ("l_uuid",) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and not _only_read(obj)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if _only_read(obj):
            return _FOREIGN_FIELDSETS
        return with_stored_secrets(
            self.fieldsets, (("auth_password", "clear_password"), ("auth_ha1", "clear_ha1")), obj,
        )

    def get_urls(self) -> Any:
        preview = path("<int:pk>/preview/", self.admin_site.admin_view(self.preview), name="trunkmgr_uacreg_preview")
        return [preview, *super().get_urls()]

    @action(description="Preview", url_path="show-preview", permissions=["view"])
    def show_preview(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return redirect("admin:trunkmgr_uacreg_preview", object_id)

    @action(description="Check", url_path="show-check", permissions=["view"])
    def show_check(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return redirect("status:doctor", get_object_or_404(UacReg, pk=object_id).l_uuid)

    def preview(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show the requests that would be sent for an account."""
        account = get_object_or_404(UacReg, pk=pk)
        if not self.has_view_permission(request, account):
            raise PermissionDenied
        try:
            result = preflight.preview(account.l_uuid, request.user.get_username())
        except NoWorker as error:
            result = {"message": str(error)}
        return render(request, "admin/trunkmgr/preview.html", {
            **self.admin_site.each_context(request), "title": f"Preview of {account}", "result": result,
        })

    def view_on_site(self, obj: UacReg) -> str:
        return reverse("status:trunk", args=[obj.l_uuid])

    @display(description="Local", ordering="l_username")
    def local(self, account: UacReg) -> str:
        return f"{account.l_username}@{account.l_domain}"

    @display(description="Remote", ordering="r_username")
    def remote(self, account: UacReg) -> str:
        return f"{account.r_username}@{account.r_domain}"

    @display(description="Provider", ordering="options__provider__name", empty_value="–")
    def provider_name(self, account: UacReg) -> str | None:
        provider = account.get_options().provider
        return provider.name if provider else None

    @display(description="State", ordering="registration__state", label=_COLOURS)
    def state(self, account: UacReg) -> str:
        row = _row(account)
        return row["label"] if row else "Waiting"

    @display(description="Why")
    def why(self, account: UacReg) -> str:
        row = _row(account)
        return row["why"] if row else ""

    def save_model(self, request: HttpRequest, obj: UacReg, form: UacRegForm, change: bool) -> None:
        options = form.options()
        accounts.save(obj, options, request.user.get_username())
        for remark in lint.account(obj, options):
            messages.warning(request, str(remark))
        if not Domain.objects.filter(l_domain=obj.l_domain).exists():
            messages.warning(request, (
                f"No next hop is set for {obj.l_domain}, so calls for this account are refused. Add it under Domains."
            ))

    def delete_model(self, request: HttpRequest, obj: UacReg) -> None:
        accounts.remove(obj.l_uuid, request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[UacReg]) -> None:
        with transaction.atomic():
            for l_uuid in list(queryset.values_list("l_uuid", flat=True)):
                accounts.remove(l_uuid, request.user.get_username())

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[UacReg]) -> None:
        self._set_enabled(request, queryset, True)

    @admin.action(description="Disable (un-registers)", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[UacReg]) -> None:
        self._set_enabled(request, queryset, False)

    def _set_enabled(self, request: HttpRequest, queryset: QuerySet[UacReg], enabled: bool) -> None:
        with transaction.atomic():
            changed = 0
            for account in queryset:
                if accounts.set_enabled(account.l_uuid, enabled, request.user.get_username()):
                    self.log_change(request, account, "Enabled." if enabled else "Disabled.")
                    changed += 1
        word = "enabled" if enabled else "disabled"
        messages.success(request, f"{changed} {'account is' if changed == 1 else 'accounts are'} now {word}.")

    @admin.action(description="Register now", permissions=["change"])
    def register_now(self, request: HttpRequest, queryset: QuerySet[UacReg]) -> None:
        self._order(request, queryset, Order.Verb.REGISTER, "Registering")

    @admin.action(description="Unregister", permissions=["change"])
    def unregister(self, request: HttpRequest, queryset: QuerySet[UacReg]) -> None:
        self._order(request, queryset, Order.Verb.UNREGISTER, "Unregistering")

    def _order(self, request: HttpRequest, queryset: QuerySet[UacReg], verb: Order.Verb, word: str) -> None:
        l_uuids = list(queryset.values_list("l_uuid", flat=True))
        try:
            orders.place(verb, {"l_uuids": l_uuids}, request.user.get_username())
        except NoWorker as error:
            messages.error(request, str(error))
        else:
            many = f"{len(l_uuids)} accounts" if len(l_uuids) != 1 else "1 account"
            messages.success(request, f"{word} {many}. The status page shows the answer.")


def _row(account: UacReg) -> dict[str, Any] | None:
    try:
        registration = account.registration
    except Registration.DoesNotExist:
        return None
    registration.account = account
    return payloads.seen_row(registration, timezone.now())
