"""The product's routing on the virtual wire: real endpoint, middleware and routing class; the tables are a picture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sipengine.asgi import AsgiApplication
from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.proxy.hooks import step_at_once
from sipengine.uac.account import UacAccount
from tests.sipengine.net import PHONE, PROVIDER, PROXY, Net, entropy_from
from trunkmgr.sip.limits import Pace
from trunkmgr.sip.middleware import Admission, PeerMiddleware
from trunkmgr.sip.routing import TrunkRouting
from trunkmgr.sip.snapshot import Pbx, Peers, Trunk, host_of

DOMAIN = "pbx.example"


def account(l_uuid: str = "acc1", **columns: Any) -> UacAccount:
    """An account of the provider whose calls go to the PBX."""
    usual: dict[str, Any] = {
        "l_username": "100", "l_domain": DOMAIN, "r_username": "49301", "r_domain": "sip.provider.example",
        "auth_username": "49301", "auth_password": "secret", "auth_proxy": f"sip:{PROVIDER[0]}:5060",
    }
    return UacAccount(l_uuid=l_uuid, **{**usual, **columns})


def trunk(of: UacAccount, anonymous: bool = False, **more: Any) -> Trunk:
    return Trunk(of, anonymous, 1, **more)


class TrunkNet(Net):
    """A provider (PROVIDER), the PBX of `pbx.example` (PHONE), and between them a routing class of the product."""

    def __init__(
        self, routing: type[TrunkRouting] = TrunkRouting, *trunks: Trunk, configuration: Configuration | None = None
    ) -> None:
        self.admission = Admission()
        peers = Peers(frozenset({PHONE[0]}))
        self.admission.swap(self.admission.snapshot.patched(
            {each.account.l_uuid: each for each in trunks or [trunk(account())]},
            {DOMAIN: Pbx(f"sip:{PHONE[0]}:5060".encode(), peers)},
            {1: Peers(frozenset({PROVIDER[0], host_of("sip.provider.example")}))},
        ))
        self.middleware = PeerMiddleware(routing.as_asgi(), self.admission)
        super().__init__(configuration)

    def start(self) -> Endpoint:
        self.starts += 1
        endpoint = Endpoint(
            self.configuration, application=AsgiApplication(self.middleware, step_at_once),
            admission=self.admission.admits, entropy=entropy_from(b"proxy%d" % self.starts), peers=self.admission,
        )
        endpoint.add_listener("udp", *PROXY)
        endpoint.add_listener("tcp", *PROXY)
        self.wire.attach(endpoint)
        self.middleware.worker = SimpleNamespace(
            endpoint=endpoint, call=lambda verb, *args: verb(*args, self.wire.now), admission=self.admission,
            pace=Pace(),
        )
        return endpoint
