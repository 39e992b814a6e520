"""Provider profiles: to look at, to copy, and the operator's own to edit."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest
from unfold.admin import TabularInline
from unfold.decorators import display

from trunkmgr import lint
from trunkmgr.admin.service import ServiceAdmin
from trunkmgr.models import Profile, ProfileField
from trunkmgr.services import profiles


class FieldFormSet(BaseInlineFormSet):  # type: ignore[type-arg]
    """All fields of a profile at once, because lint compares them."""

    def clean(self) -> None:
        super().clean()
        if errors := [str(each) for each in lint.profile(self.values()) if each.error]:
            raise ValidationError(errors)

    def kept(self) -> list[ProfileField]:
        return [
            ProfileField(**{
                name: form.cleaned_data[name] for name in ("name", "value", "source", "general_knowledge")
            })
            for form in self.forms if form.cleaned_data.get("name") and not form.cleaned_data.get("DELETE")
        ]

    def values(self) -> dict[str, str]:
        return {field.name: field.value for field in self.kept()} if not any(self.errors) else {}


class FieldInline(TabularInline):
    model = ProfileField
    formset = FieldFormSet
    fields = ("name", "value", "source", "general_knowledge")
    extra = 0
    hide_title = True


@admin.register(Profile)
class ProfileAdmin(ServiceAdmin):
    list_display = ("name", "slug", "version", "shipped", "told", "unchecked", "used")
    list_filter = ("shipped",)
    search_fields = ("name", "slug", "about")
    fields = ("name", "slug", "about", "version", "shipped", "origin")
    readonly_fields = ("version", "shipped", "origin")
    inlines = (FieldInline,)
    actions = ("copy",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Profile]:
        return super().get_queryset(request).annotate(
            told_count=Count("fields", distinct=True),
            unchecked_count=Count("fields", filter=Q(fields__general_knowledge=True), distinct=True),
            used_count=Count("providers", distinct=True),
        )

    @display(description="Fields", ordering="told_count")
    def told(self, profile: Any) -> int:
        return int(profile.told_count)

    @display(description="General knowledge", ordering="unchecked_count")
    def unchecked(self, profile: Any) -> int:
        return int(profile.unchecked_count)

    @display(description="Providers", ordering="used_count")
    def used(self, profile: Any) -> int:
        return int(profile.used_count)

    def has_change_permission(self, request: HttpRequest, obj: Profile | None = None) -> bool:
        return super().has_change_permission(request, obj) and not (obj is not None and obj.shipped)

    def has_delete_permission(self, request: HttpRequest, obj: Profile | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.shipped)

    def save_model(self, request: HttpRequest, obj: Profile, form: forms.ModelForm, change: bool) -> None:  # type: ignore[type-arg]
        """Wait for the fields (`save_formset`); they are written together."""

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []
        for remark in profiles.save(form.instance, formset.kept(), request.user.get_username()):
            messages.warning(request, str(remark))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Profile]) -> None:
        queryset.filter(shipped=False).delete()

    @admin.action(description="Copy, to edit the copy", permissions=["add"])
    def copy(self, request: HttpRequest, queryset: QuerySet[Profile]) -> None:
        for profile in queryset:
            number = 1
            while Profile.objects.filter(slug=f"{profile.slug[:56]}-own-{number}").exists():
                number += 1
            made = profiles.copy(profile, f"{profile.slug[:56]}-own-{number}", who=request.user.get_username())
            messages.success(request, f"{made.name} is a copy of {profile.name}; its short name is {made.slug}.")
