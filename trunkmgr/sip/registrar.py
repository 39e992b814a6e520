"""Kamailio's functions of a registrar, as methods of the routing class: `save`, `lookup`, `registered`.

They answer from the engine's memory.  Who may register is what the picture of this request says (`snapshot.devices`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Any

from sipengine.endpoint import Endpoint
from sipengine.exceptions import RemoteProtocolError
from sipengine.registrar.location import Binding
from sipengine.registrar.registrar import aor_of
from sipengine.transport.flow import SECURE
from trunkmgr.sip.middleware import Admission
from trunkmgr.sip.uac import FAILED, OK, ReturnCode


class RegistrarFunctions:
    """Mixin of a routing class; `scope` holds what the request may know."""

    scope: dict[str, Any]
    context: Any
    contacts_left: list[list[Binding]]
    """Contacts with a lower q than those that were asked, by q."""

    def save(self, table: str = "location") -> ReturnCode:
        """Challenge a REGISTER, or do what it asks for, and answer it; true when a device has proven itself."""
        context = self.context
        endpoint = self.scope["sip.worker"].endpoint
        reply = endpoint.registrar.save(context.request, context.flow, context.core.now, endpoint.room)
        context.sl_send_reply(reply.status, reply.reason, reply.lines)
        return OK if reply.status == 200 else FAILED

    def lookup(self, table: str = "location") -> ReturnCode:
        """Send the request to where its Request-URI's user is: to the next hop of its domain, or, where that has none,
        to what the user's devices have registered; -1 when there is nothing of it.

        Contacts of the same q ring together, those of a lower q when the others have failed.
        """
        context = self.context
        next_hop = self.scope["sip.snapshot"].next_hop(context.rd)
        if next_hop is None:
            return FAILED
        if next_hop:
            context.du = next_hop
            return OK
        groups = self._groups()
        if not groups:
            return FAILED
        self._ring(groups)
        return OK

    def registered(self, table: str = "location") -> bool:
        """Whether a device of the Request-URI's user can be reached."""
        return bool(self._groups())

    def _groups(self) -> list[list[Binding]]:
        context = self.context
        try:
            aor = aor_of(b"To: <%b>" % context.ruri)
        except RemoteProtocolError:
            return []
        location = self.scope["sip.worker"].endpoint.location
        secure = context.ruri[:5].lower() == b"sips:"
        groups: dict[int, list[Binding]] = {}
        for binding in location.of(aor, context.core.now):
            if binding.hop is not None and (binding.transport in SECURE or not secure):
                groups.setdefault(binding.q, []).append(binding)
        return list(groups.values())

    def _ring(self, groups: list[list[Binding]]) -> None:
        context = self.context
        bindings, *self.contacts_left = groups
        first, *others = bindings
        context.ruri, context.du = first.target, first.hop
        for binding in others:
            context.append_branch(binding.target, binding.hop)
        self._paths = {binding.target: binding.path for binding in bindings if binding.path}
        if self._paths:
            context.t_on_branch("add_path")
        if self.contacts_left:
            context.t_on_failure("next_contacts")

    def add_path(self, context: Any) -> None:
        """Give the branch of a device its Path as Route (RFC 3327 §5.3); a branch_route."""
        for value in self._paths.get(context.ruri, ()):
            context.append_hf(b"Route: " + value)
        own: Callable[[Any], None] | None = getattr(self, "branch_route", None)
        if own is not None:
            own(context)

    def next_contacts(self, context: Any) -> None:
        """Ring the devices of the next lower q, a failure_route; a device that declines for all ends it."""
        if context.status < 600:
            self._ring(self.contacts_left)
            context.t_relay()


def open_registrar(endpoint: Endpoint, admission: Admission, devices_from: Iterable[str]) -> None:
    """Tell the engine's registrar who there is, and admission where they are."""
    registrar, location = endpoint.registrar, endpoint.location
    admission.devices_from = tuple(map(ip_network, devices_from))
    admission.location = location
    location.on_address = admission.device_moved
    endpoint.may_register = admission.may_register
    endpoint.on_denied = admission.denied
    registrar.on_unauthorized = admission.unauthorized
    registrar.device_of = lambda aor: admission.snapshot.devices.get(aor)
    registrar.serves = lambda domain: domain in admission.snapshot.device_domains
    registrar.protected = admission.is_configured
