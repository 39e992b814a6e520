"""REGISTERs of an account beside its binding: a query of what the registrar holds, and a binding that lives for a
moment (RFC 3261 §10.2.1 to §10.2.3).

The trial has its own Call-ID and a Contact that differs from the account's in the user part or, where the account's
Contact user is prescribed, in the `line` parameter (RFC 3261 §19.1.4: two values of one parameter make two URIs).
Shares pacing, nonces and credentials with the account's registration; never touches its state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sipengine.events import Target, Trigger
from sipengine.transport.flow import Flow
from sipengine.uac.account import UacAccount
from sipengine.uac.digest import Credentials
from sipengine.uac.pacing import Priority
from sipengine.uac.qualify import options as options_request
from sipengine.uac.register import Binding
from sipengine.uac.registration import ignore_time
from sipengine.uac.registrations import Registrations
from sipengine.uac.request import Exchange, Headers, Outcome

EXPIRES = 60
"""Seconds that a trial asks for: when its removal is lost, it lives no longer than this."""

OnDone = Callable[[Outcome], None]


class Trial:
    """Three exchanges with one registrar; each is started by the caller and paced as all REGISTERs are."""

    def __init__(
        self, registrations: Registrations, account: UacAccount, targets: tuple[Target, ...], timeout: float,
    ) -> None:
        """`timeout`: seconds that each of `targets` has for an answer."""
        self._registrations = registrations
        self._targets, self._timeout = targets, timeout
        entropy = registrations.agent.entropy
        self.name = f"trial-{entropy(6).hex()}"
        """User part of the trial's Contact, or its `line`."""
        # Without its instance (RFC 5626 §6): by that the trial would take the place of the binding.
        account = replace(account, instance="")
        self._query = Binding(account, entropy)
        self.binding = Binding(replace(account, l_uuid=self.name, expires=EXPIRES), entropy)

    def query(self, on_done: OnDone) -> Exchange:
        """Ask which bindings there are: a REGISTER without Contact changes none."""
        query = self._exchange(self._query, EXPIRES, on_done)
        written = query.request.headers

        def without_contact(flow: Flow) -> Headers:
            # Without a Contact there is no bulk registration to require either (RFC 6140 §5.1).
            left_out = (b"Contact", b"Expires", b"Require", b"Proxy-Require")
            return [field for field in written(flow) if field[0] not in left_out]

        query.request.headers = without_contact
        return query

    def register(self, on_done: OnDone) -> Exchange:
        """Bind the trial's Contact; after a 423 `binding.asked` says what to ask for."""
        return self._exchange(self.binding, self.binding.asked, on_done)

    def remove(self, on_done: OnDone) -> Exchange:
        """Take the trial's Contact back, and nothing else."""
        return self._exchange(self.binding, 0, on_done)

    def _exchange(self, binding: Binding, expires: int, on_done: OnDone) -> Exchange:
        exchange = self._registrations.exchange(binding, expires, Trigger.OPERATOR, ignore_time, on_done)
        request = exchange.request
        request.targets, request.timeout, request.hurry, request.kept = self._targets, self._timeout, 0.0, None
        return exchange


def options(
    registrations: Registrations, account: UacAccount, target: Target, timeout: float, on_done: OnDone,
) -> Exchange:
    """Ask one server for a sign of life as the account; any answer is one, so a challenge gets no credentials."""
    request = options_request(
        account, registrations.agent.entropy, Credentials(b"", b""), b"sip:" + account.r_domain.encode(), timeout,
        Priority.OPERATOR, (target,),
    )
    return Exchange(registrations.requests, request, ignore_time, on_done)
