"""Addresses of the status pages, below /status/.

An `l_uuid` may hold whatever the seed's table allows, slashes included, so it is a `path`; the fixed pages come first.
"""

from __future__ import annotations

from django.urls import path

from trunkmgr.views import board, calls, doctor, security, trunk

app_name = "status"

urlpatterns = [
    path("", board.board, name="board"),
    path("calls/", calls.calls, name="calls"),
    path("security/", security.security, name="security"),
    path("<path:l_uuid>/do/<slug:verb>/", trunk.order, name="order"),
    path("<path:l_uuid>/doctor/", doctor.doctor, name="doctor"),
    path("<path:l_uuid>/", trunk.trunk, name="trunk"),
]
