"""The ASGI application: pages, websockets, orders for the SIP worker, and SIP itself, one router for all four."""
# ruff: noqa: E402 - models may be imported only after get_asgi_application()

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "trunkmgr.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack
from channels.routing import ChannelNameRouter, ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.urls import path

from trunkmgr.consumers import StatusConsumer
from trunkmgr.sip.consumers import SipControlConsumer
from trunkmgr.sip.routing import routing_class

application = ProtocolTypeRouter({
    "http": django_application,
    "websocket": AllowedHostsOriginValidator(
        AuthMiddlewareStack(URLRouter([path("ws/status/", StatusConsumer.as_asgi())])),
    ),
    "channel": ChannelNameRouter({f"sip.{settings.TRUNKMGR.node}": SipControlConsumer.as_asgi()}),
    "sip": routing_class().as_asgi(),
})
