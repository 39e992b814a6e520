"""Base of the admins that write through services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from unfold.admin import ModelAdmin


class ServiceAdmin(ModelAdmin):
    """Shows what a service refuses although the form was fine: somebody was faster, or another database is away."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._told(super().changeform_view, request, *args, **kwargs)

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._told(super().delete_view, request, *args, **kwargs)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return self._told(super().changelist_view, request, *args, **kwargs)

    def _told(self, view: Callable[..., HttpResponse], request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return HttpResponseRedirect(request.get_full_path())


def with_stored_secrets(fieldsets: Any, pairs: Any, obj: Any) -> Any:
    """Offer to remove a secret (`pairs` of its column and the field that removes it) only where one is stored."""
    removable = set(pairs)
    return [
        (title, {**about, "fields": tuple(
            item[0] if item in removable and not (obj and getattr(obj, item[0])) else item for item in about["fields"]
        )})
        for title, about in fieldsets
    ]
