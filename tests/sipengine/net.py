"""A provider, a phone, and the proxy between them on a virtual wire; and the messages the two sides write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.message import Message, parse
from sipengine.proxy.context import ResponseContext
from sipengine.testing import Station, Wire
from sipengine.transport.peers import PeerBook

PROVIDER = ("192.0.2.1", 5060)
PHONE = ("192.0.2.9", 5060)
PHONE2 = ("192.0.2.10", 5060)
PROXY = ("192.0.2.5", 5060)
STRANGER = ("203.0.113.66", 5060)
KEYS = (b"k" * 32,)

CALLER = b'"Alice Adams" <sip:+4930123456@provider.example>'
CALLEE = b"<sip:acc1@192.0.2.5>"
ANONYMOUS = b"<sip:anonymous@anonymous.invalid>"
SECRETS = (b"lice", b"4930123456", b"alice-gw", b"provider.example")
"""Nothing of these may reach the callee."""


def entropy_from(seed: bytes) -> Callable[[int], bytes]:
    """Repeatable bytes for a test."""
    count = 0

    def entropy(size: int) -> bytes:
        nonlocal count
        out = b""
        while len(out) < size:
            count += 1
            out += hashlib.sha256(seed + count.to_bytes(4, "big")).digest()
        return out[:size]

    return entropy


class Routing:
    """Scenario of the main job: look the user up, hide the caller, relay; each test may replace a hook."""

    def __init__(self) -> None:
        self.anonymous = True
        self.next_hop = b"sip:192.0.2.9:5060"
        self.decide: Callable[[ResponseContext], Any] | None = None
        self.contexts: list[ResponseContext] = []

    def __call__(self, context: ResponseContext) -> None:
        context.routing = self
        self.contexts.append(context)
        try:
            (self.decide or self.inbound)(context)
        except Exception as error:
            context.routed(error)
        else:
            context.routed()

    def inbound(self, context: ResponseContext) -> None:
        if context.has_totag():
            context.t_relay()
            return
        if context.method == b"OPTIONS" and context.is_own_uri():
            context.sl_send_reply(200, "OK", [("Allow", "INVITE, ACK, CANCEL, BYE, OPTIONS")])
            return
        if context.rU != "acc1":
            context.sl_send_reply(404, "Not Found")
            return
        context.ruri = b"sip:phone@pbx.example"
        context.du = self.next_hop
        if self.anonymous:
            context.uac_replace_from(b"", b"sip:anonymous@anonymous.invalid")
            for name in (
                b"P-Asserted-Identity",
                b"Remote-Party-ID",
                b"Diversion",
                b"History-Info",
                b"Reply-To",
                b"P-Preferred-Identity",
            ):
                context.remove_hf(name)
            context.hide_contact()
        context.record_route()
        context.mark_call("line-1", "in", context.from_uri, "acc1", self.anonymous)
        context.t_relay()


class Net:
    def __init__(
        self, configuration: Configuration | None = None, transport: str = "udp", peers: PeerBook | None = None,
        websockets: Sequence[tuple[str, int]] = (), **wire: Any,
    ) -> None:
        self.wire = Wire(**wire)
        self.routing = Routing()
        self.configuration = configuration or Configuration(seal_keys=KEYS)
        self.transport = transport
        self.suffix = b"" if transport == "udp" else b";transport=" + transport.encode()
        self.starts = 0
        self.websockets = websockets
        """Transport and port of further listeners."""
        self.peers = peers
        self.endpoint = self.start()
        self.provider = self.wire.station(*PROVIDER, transport)
        self.phone = self.wire.station(*PHONE, transport)
        self.branches = 0

    def start(self) -> Endpoint:
        self.starts += 1
        endpoint = Endpoint(
            self.configuration,
            application=self.routing,
            admission=lambda flow: flow.remote[0] != STRANGER[0],
            entropy=entropy_from(b"proxy%d" % self.starts),
            peers=self.peers,
        )
        endpoint.add_listener("udp", *PROXY)
        endpoint.add_listener("tcp", *PROXY)
        for transport, port in self.websockets:
            endpoint.add_listener(transport, PROXY[0], port)
        self.wire.attach(endpoint)
        return endpoint

    def restart(self) -> None:
        """The proxy's process ends and another begins: only the seal keys are the same."""
        self.wire.detach(self.endpoint)
        self.endpoint = self.start()

    def run(self, seconds: float = 0.1) -> None:
        self.wire.run(seconds)

    def events(self) -> list[Any]:
        return [event for _, event in self.wire.events]

    def send(self, station: Station, data: bytes) -> None:
        station.send(data, PROXY)
        self.run()

    def branch(self) -> bytes:
        self.branches += 1
        return b"z9hG4bKtest%d" % self.branches

    # messages of the provider
    def invite(
        self,
        call_id: bytes = b"call1",
        extra: bytes = b"",
        user: bytes = b"acc1",
        branch: bytes = b"",
        method: bytes = b"INVITE",
    ) -> bytes:
        return self.request(
            method, b"sip:%b@192.0.2.5" % user, CALLER + b";tag=ct", b"<sip:%b@192.0.2.5>" % user, call_id, 1,
            extra=b"Contact: <sip:alice-gw@192.0.2.1:5060%b>\r\n%b" % (self.suffix, extra), branch=branch,
        )  # fmt: skip

    def request(
        self,
        method: bytes,
        ruri: bytes,
        from_: bytes,
        to: bytes,
        call_id: bytes,
        cseq: int,
        *,
        route: bytes = b"",
        extra: bytes = b"",
        host: bytes = b"192.0.2.1:5060",
        branch: bytes = b"",
        body: bytes = b"",
    ) -> bytes:
        routes = b"Route: " + route + b"\r\n" if route else b""
        return (
            b"%b %b SIP/2.0\r\nVia: SIP/2.0/%b %b;branch=%b\r\nMax-Forwards: 70\r\n%b"
            b"From: %b\r\nTo: %b\r\nCall-ID: %b\r\n"
            b"CSeq: %d %b\r\n%bContent-Length: %d\r\n\r\n%b"
            % (
                method, ruri, self.transport.upper().encode(), host, branch or self.branch(), routes, from_,
                to, call_id, cseq,
                method, extra, len(body), body,
            )
        )  # fmt: skip

    def establish(self, call_id: bytes = b"call1", extra: bytes = b"", tag: bytes = b"pt") -> Established:
        """INVITE, 200, ACK."""
        self.send(self.provider, self.invite(call_id, extra))
        invite = parse(self.phone.take()[-1])
        self.send(self.phone, reply(invite, b"200 OK", tag, b"Contact: <sip:phone@192.0.2.9:5060%b>" % self.suffix))
        ok = parse(self.provider.take()[-1])
        call = Established(self, invite, ok, tag)
        self.send(self.provider, call.from_caller(b"ACK", 1))
        self.phone.take()
        return call


class Established:
    """What both sides know of a call that stands."""

    def __init__(self, net: Net, invite: Message, ok: Message, tag: bytes) -> None:
        self.net = net
        self.invite = invite
        self.ok = ok
        self.tag = tag
        routes = invite.get_list(b"Record-Route")
        self.route_of_callee = b", ".join(routes)
        self.route_of_caller = b", ".join(reversed(ok.get_list(b"Record-Route")))
        self.callers_from = CALLER + b";tag=ct"
        self.callers_to = ok.get(b"To") or b""
        self.callees_from = (invite.get(b"To") or b"") + b";tag=" + tag
        self.callees_to = invite.get(b"From") or b""
        self.callees_target = invite.contacts[0].uri if invite.contacts else b"sip:192.0.2.1"
        self.call_id = invite.call_id

    def from_caller(self, method: bytes, cseq: int, extra: bytes = b"", **kwargs: Any) -> bytes:
        return self.net.request(
            method, b"sip:phone@192.0.2.9:5060" + self.net.suffix, self.callers_from, self.callers_to,
            self.call_id, cseq,
            route=self.route_of_caller, extra=extra, **kwargs,
        )  # fmt: skip

    def from_callee(self, method: bytes, cseq: int, extra: bytes = b"", **kwargs: Any) -> bytes:
        return self.net.request(
            method, self.callees_target, self.callees_from, self.callees_to, self.call_id, cseq,
            route=self.route_of_callee,
            extra=extra, host=b"192.0.2.9:5060", **kwargs,
        )  # fmt: skip


def reply(request: Message, status: bytes, tag: bytes = b"pt", *extra: bytes, body: bytes = b"") -> bytes:
    """A response as a UAS writes it."""
    to = request.line(b"to")
    if b";tag=" not in to:
        to += b";tag=" + tag
    lines = [line for key, line in zip(request.keys, request.lines, strict=True) if key in (b"via", b"record-route")]
    lines += [
        request.line(b"from"),
        to,
        request.line(b"call-id"),
        request.line(b"cseq"),
        *extra,
        b"Content-Length: %d" % len(body),
    ]
    return b"\r\n".join([b"SIP/2.0 " + status, *lines, b"", body])


def starts(messages: list[bytes]) -> list[bytes]:
    """Start lines, shortened to what tells messages apart."""
    return [m[:11] if m.startswith(b"SIP/2.0") else m.partition(b" ")[0] for m in messages]


def assert_clean(net: Net) -> None:
    """Nothing of the caller's identity was ever put on the callee's wire."""
    for _, _, to, data in net.wire.sent:
        if to[0] in (PHONE[0], PHONE2[0]):
            for secret in SECRETS:
                assert secret not in data, data.decode(errors="replace")


def assert_nothing_left(net: Net) -> None:
    net.run(200)
    assert not any(net.endpoint.live.values()), net.endpoint.live
