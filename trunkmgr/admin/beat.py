"""Celery beat's tables, in the look of the rest."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django_celery_beat.admin import (
    ClockedScheduleAdmin,
    CrontabScheduleAdmin,
    PeriodicTaskAdmin,
    PeriodicTaskForm,
    TaskSelectWidget,
)
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

# The form lists the tasks of the current Celery application, so ours must be it.
from trunkmgr.celery import app  # noqa: F401

for model in (PeriodicTask, IntervalSchedule, CrontabSchedule, SolarSchedule, ClockedSchedule):
    admin.site.unregister(model)


class _TaskSelect(UnfoldAdminSelectWidget, TaskSelectWidget):
    pass


class _PeriodicTaskForm(PeriodicTaskForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["task"].widget = UnfoldAdminTextInputWidget()
        self.fields["regtask"].widget = _TaskSelect()


@admin.register(PeriodicTask)
class TrunkmgrPeriodicTaskAdmin(PeriodicTaskAdmin, ModelAdmin):
    form = _PeriodicTaskForm


@admin.register(IntervalSchedule, SolarSchedule)
class TrunkmgrScheduleAdmin(ModelAdmin):
    pass


@admin.register(CrontabSchedule)
class TrunkmgrCrontabScheduleAdmin(CrontabScheduleAdmin, ModelAdmin):
    pass


@admin.register(ClockedSchedule)
class TrunkmgrClockedScheduleAdmin(ClockedScheduleAdmin, ModelAdmin):
    pass
