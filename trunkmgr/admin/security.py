"""Bans, to look at and to lift; and "Check a call", which says what would happen to a request and by which rule."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path
from django.utils import timezone
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from trunkmgr.admin.records import ReadOnlyAdmin
from trunkmgr.env import TRANSPORTS
from trunkmgr.exceptions import NoWorker
from trunkmgr.models import Ban
from trunkmgr.services import bans, routes

METHODS = ("INVITE", "OPTIONS", "MESSAGE", "SUBSCRIBE", "REFER", "REGISTER", "BYE")


def _text(label: str, help_text: str, required: bool = True) -> forms.CharField:
    return forms.CharField(label=label, help_text=help_text, required=required, widget=UnfoldAdminTextInputWidget)


def _choice(label: str, choices: tuple[str, ...]) -> forms.ChoiceField:
    return forms.ChoiceField(
        label=label, choices=[(name, name) for name in choices], initial=choices[0], widget=UnfoldAdminSelectWidget,
    )


class CheckForm(forms.Form):
    """A request that might come."""

    source = _text("Source address", "Where it comes from: 192.0.2.10.")
    method = _choice("Method", METHODS)
    transport = _choice("Transport", TRANSPORTS)
    furi = _text("From", "sip: URI of the caller. A PBX names its account here.", required=False)
    ruri = _text("Request-URI", "sip: URI that is called. A provider names the account here.")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors:
            routes.check(**cleaned)
        return cleaned


@admin.register(Ban)
class BanAdmin(ReadOnlyAdmin):
    list_display = ("address", "rule", "since_time", "until_time", "state", "node")
    list_filter = ("rule", "node")
    search_fields = ("address",)
    actions = ("lift",)
    fields = ("address", "rule", "since_time", "until_time", "state", "node")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Ban]:
        found: QuerySet[Ban] = super().get_queryset(request)
        return found.select_related("node")

    def get_urls(self) -> Any:
        check = path("check-a-call/", self.admin_site.admin_view(self.check_a_call), name="trunkmgr_check_a_call")
        return [check, *super().get_urls()]

    def has_lift_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("trunkmgr.change_ban")

    @action(description="Lift", permissions=["lift"])
    def lift(self, request: HttpRequest, queryset: QuerySet[Ban]) -> None:
        count = bans.lift(sorted(set(queryset.values_list("address", flat=True))), request.user.get_username())
        if count:
            messages.success(request, f"{count:,} ban{'' if count == 1 else 's'} lifted.")
        else:
            messages.warning(request, "None of these bans holds any more.")

    @display(description="State")
    def state(self, ban: Ban) -> str:
        if ban.lifted_time:
            return f"lifted by {ban.who}"
        return "holds" if ban.until_time > timezone.now() else "ran out"

    def check_a_call(self, request: HttpRequest) -> HttpResponse:
        """Ask a worker; nothing is sent."""
        form = CheckForm(request.POST or None)
        result: dict[str, Any] = {}
        if request.method == "POST" and form.is_valid():
            try:
                result = routes.ask(request.user.get_username(), **form.cleaned_data)
            except (NoWorker, ValidationError) as error:
                form.add_error(None, str(error))
        context = {
            **self.admin_site.each_context(request), "title": "Check a call", "form": form, "result": result,
            "told": [(label, result[key]) for label, key in _TOLD if result.get(key)],
        }
        return TemplateResponse(request, "admin/trunkmgr/check_a_call.html", context)


_TOLD = (
    ("Rule", "rule"), ("Account", "account"), ("Goes to", "goes_to"), ("As", "request"), ("From, as shown", "shown_as"),
    ("Answer", "answer"),
)
