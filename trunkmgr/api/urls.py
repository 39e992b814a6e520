"""Addresses of the HTTP API, below /api/."""

from __future__ import annotations

from django.urls import path

from trunkmgr.api import views

app_name = "api"

urlpatterns = [
    path("uac_req_send", views.uac_req_send, name="uac_req_send"),
    path("orders/<int:pk>", views.order, name="order"),
    path("<path:path>", views.nothing),
]
