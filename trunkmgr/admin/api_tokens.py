"""API tokens: made here and shown once, never edited, taken back by deleting."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from trunkmgr.admin.service import ServiceAdmin
from trunkmgr.models import ApiToken
from trunkmgr.services import api_tokens


class ApiTokenForm(forms.ModelForm):  # type: ignore[type-arg]
    permissions = forms.MultipleChoiceField(
        label="May", choices=ApiToken.Permission.choices, widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )

    class Meta:
        model = ApiToken
        fields = ("name", "permissions")


@admin.register(ApiToken)
class ApiTokenAdmin(ServiceAdmin):
    form = ApiTokenForm
    list_display = ("name", "may", "created_by", "created_time", "used_time")
    fields = ("name", "permissions")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.list_display if obj else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.list_display if obj else ()

    @display(description="May")
    def may(self, token: ApiToken) -> str:
        return ", ".join(str(ApiToken.Permission(each).label) for each in token.permissions)

    def save_model(self, request: HttpRequest, obj: ApiToken, form: ApiTokenForm, change: bool) -> None:
        made, clear = api_tokens.add(obj.name, form.cleaned_data["permissions"], request.user.get_username())
        for field in made._meta.concrete_fields:
            setattr(obj, field.attname, getattr(made, field.attname))
        request.made_token = clear  # type: ignore[attr-defined] # for the page that shows it, and nowhere else

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: Any = None) -> HttpResponse:
        """Show the token on this very answer: a message or the session would store it."""
        context = {
            **self.admin_site.each_context(request), "title": "API token", "token": obj,
            "clear": request.made_token,  # type: ignore[attr-defined]
        }
        return TemplateResponse(request, "admin/trunkmgr/apitoken/shown.html", context)
