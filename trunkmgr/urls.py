"""Addresses of the web pages."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from trunkmgr.health import healthz

admin.autodiscover()

urlpatterns = [
    path("", RedirectView.as_view(url="/status/")),
    path("admin/", admin.site.urls),
    path("api/", include("trunkmgr.api.urls")),
    path("healthz", healthz),
    path("status/", include("trunkmgr.views.urls")),
]
