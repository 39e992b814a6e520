"""SIP requests: a form that sends one and shows the reply, and the list of those that were sent."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from trunkmgr import selectors
from trunkmgr.admin.forms import secret_field
from trunkmgr.admin.records import ReadOnlyAdmin
from trunkmgr.admin.service import ServiceAdmin
from trunkmgr.exceptions import NoWorker
from trunkmgr.models import Credential, SipRequest, UacReg
from trunkmgr.services import orders, requests

_TEXTS = ("method", "ruri", "furi", "turi", "ouri", "hdrs", "body", "sock", "auser", "ftag", "ttag", "callid")
_NUMBERS = ("cseqno", "fr_timeout", "fr_inv_timeout")


def _text(label: str, help_text: str = "", **options: Any) -> forms.CharField:
    return forms.CharField(
        label=label, help_text=help_text, widget=options.pop("widget", UnfoldAdminTextInputWidget),
        **{"required": False, **options},
    )


def _number(label: str, help_text: str = "", **options: Any) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, help_text=help_text, widget=UnfoldAdminIntegerFieldWidget,
        **{"required": False, "min_value": 0, **options},
    )


class SipRequestForm(forms.ModelForm):  # type: ignore[type-arg]
    """The keys of `$uac_req`; the password goes into the order sealed, and comes back nowhere."""

    method = _text("Method", initial="OPTIONS", required=True)
    ruri = _text("Request-URI", "sip:user@host[:port][;parameters]", required=True)
    furi = _text("From", "sip:…, or a name and &lt;sip:…&gt;. Left blank: the account's, else the Request-URI.")
    turi = _text("To", "Left blank: the Request-URI.")
    ouri = _text("Next hop", "sip: URI of the proxy that it goes to. Left blank: the Request-URI says it.")
    hdrs = _text("Headers", "One a line.", widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}))
    body = _text(
        "Body", "Needs a Content-Type line among the headers.", strip=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
    )
    account = forms.ModelChoiceField(
        UacReg.objects.all(), to_field_name="l_uuid", required=False,
        widget=AutocompleteSelect(Credential._meta.get_field("account"), admin.site),
        help_text="Sends as this account: from its user, to its proxy, with its password.",
    )
    credential = forms.ModelChoiceField(
        Credential.objects.exclude(realm=""), required=False, widget=UnfoldAdminSelectWidget, empty_label="(none)",
        help_text="Answers challenges of its realm.",
    )
    auser = _text("User")
    apasswd = secret_field("Password", "Used for this request only; not kept.")
    flags = forms.BooleanField(label="The password is an HA1", required=False, widget=UnfoldBooleanWidget)
    sock = _text("Local socket", "proto:ip:port. Left blank: that of the route.")
    timeout = _number("Wait", "Seconds for the final answer.", initial=int(requests.TIMEOUT), required=True)
    ftag = _text("From tag")
    ttag = _text("To tag")
    callid = _text("Call-ID")
    cseqno = _number("CSeq number")
    fr_timeout = _number("Time of each target", "Milliseconds. Left blank: 32,000.")
    fr_inv_timeout = _number("Time to ring", "Milliseconds, for an INVITE. Left blank: 120,000.")

    class Meta:
        model = SipRequest
        fields = ()

    def options(self) -> dict[str, Any]:
        """Return the arguments of the service."""
        cleaned = self.cleaned_data
        keys: dict[str, Any] = {name: cleaned.get(name) for name in (*_TEXTS, *_NUMBERS)}
        keys["hdrs"] = "".join(f"{line}\r\n" for line in (keys["hdrs"] or "").splitlines() if line.strip())
        keys["flags"] = int(cleaned.get("flags", False))
        account, credential = cleaned.get("account"), cleaned.get("credential")
        return {
            "keys": keys, "account": account.l_uuid if account else "", "credential": credential and credential.pk,
            "apasswd": cleaned.get("apasswd", ""), "timeout": cleaned["timeout"],
        }

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors:
            requests.check(**self.options())
            if not selectors.live_nodes().exists():
                raise ValidationError(orders.NOBODY)
        return cleaned


@admin.register(SipRequest)
class SipRequestAdmin(ReadOnlyAdmin, ServiceAdmin):
    form = SipRequestForm
    list_display = ("sent", "asked", "who", "reply", "node")
    list_display_links = ("asked",)
    list_filter = ("node",)
    search_fields = ("who",)
    date_hierarchy = "created_time"
    fieldsets = (
        (None, {"fields": (("method", "ruri"), ("furi", "turi"), "hdrs", "body", "timeout")}),
        ("Challenges are answered with", {
            "fields": (("account", "credential"), ("auser", "apasswd"), "flags"),
            "description": "Choose an account, or a stored credential, or enter a user and a password.",
        }),
        ("More", {
            "classes": ("collapse",),
            "fields": ("ouri", "sock", ("ftag", "ttag"), ("callid", "cseqno"), ("fr_timeout", "fr_inv_timeout")),
        }),
    )
    shown = (
        ("Reply", {"fields": ("reply", "target", "round_trip", "answer")}),
        ("Request", {"fields": ("asked", "keys", "account", "who", "sent", "node")}),
    )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("trunkmgr.add_siprequest")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.shown if obj else self.fieldsets

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [name for _, about in self.shown for name in about["fields"]] if obj else ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[SipRequest]:
        found: QuerySet[SipRequest] = super().get_queryset(request)
        return found.filter(verb=SipRequest.Verb.UAC_REQ_SEND).select_related("node").defer("secret")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        return super().add_view(request, form_url, {"title": "Send a request", **(extra_context or {})})

    def save_model(self, request: HttpRequest, obj: SipRequest, form: SipRequestForm, change: bool) -> None:
        options = form.options()
        try:
            order = requests.send(options.pop("keys"), request.user.get_username(), **options)
        except NoWorker as error:
            raise ValidationError(str(error)) from None
        for field in order._meta.concrete_fields:
            setattr(obj, field.attname, getattr(order, field.attname))

    def response_add(self, request: HttpRequest, obj: SipRequest, post_url_continue: Any = None) -> HttpResponse:
        return redirect("admin:trunkmgr_siprequest_change", obj.pk)

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        """Wait for the reply; not while it was added, for then the order was not committed yet."""
        row = self.get_object(request, object_id)
        if row is not None and row.result is None and self.has_view_permission(request, row):
            left = (row.deadline - timezone.now()).total_seconds()
            if left > 0:
                requests.wait(row, left)
        return super().change_view(request, object_id, form_url, {"title": "SIP request", **(extra_context or {})})

    @display(description="Sent", ordering="created_time")
    def sent(self, row: SipRequest) -> datetime:
        return row.created_time

    @display(description="Request")
    def asked(self, row: SipRequest) -> str:
        return str(row)

    @display(description="Reply")
    def reply(self, row: SipRequest) -> str:
        if row.result is not None:
            return str(row.result.get("message", ""))
        return "Waiting for the reply" if row.deadline > timezone.now() else "No SIP worker took it in time."

    @display(description="From", empty_value="–")
    def target(self, row: SipRequest) -> str:
        return (row.result or {}).get("target", "")

    @display(description="After", empty_value="–")
    def round_trip(self, row: SipRequest) -> str | None:
        seconds = (row.result or {}).get("round_trip")
        return None if seconds is None else f"{seconds * 1000:.1f} ms"

    @display(description="Answer", empty_value="–")
    def answer(self, row: SipRequest) -> str | None:
        result = row.result or {}
        return _block([*result.get("headers", ()), *(["", result["body"]] if result.get("body") else [])])

    @display(description="Keys")
    def keys(self, row: SipRequest) -> str | None:
        keys = row.payload.get("keys", {})
        return _block(f"{key}: {str(value).strip()}" for key, value in keys.items() if key not in ("method", "ruri"))

    @display(description="Answered challenges with", empty_value="–")
    def account(self, row: SipRequest) -> str | None:
        payload = row.payload
        if payload.get("l_uuid"):
            return f"account {payload['l_uuid']}"
        if payload.get("credential"):
            return f"credential {payload['credential']}"
        return payload.get("keys", {}).get("auser")


def _block(lines: Any) -> str | None:
    text = "\n".join(lines)
    return format_html('<pre class="font-mono text-xs whitespace-pre-wrap">{}</pre>', text) if text else None
