"""A PBX that calls out through the proxy, and a provider that asks who it is; each side counts what it sees."""

from __future__ import annotations

import re
from typing import Any

from sipengine.configuration import Configuration
from sipengine.message import Message, parse
from sipengine.proxy.context import ResponseContext
from sipengine.transport.peers import PeerBook
from sipengine.uac.digest import Credentials, parse_challenge, response
from tests.sipengine.net import KEYS, PHONE, PROVIDER, PROXY, Net, reply

SECRET = Credentials(b"49301", b"s3cret", realm=b"provider.example")
PBX_FROM = b'"Bob" <sip:bob@pbx.example>'
AOR = b'"Bob" <sip:49301@provider.example>'
DIALLED = b"sip:+49401@provider.example"


class Peers(PeerBook):
    """Who may ask for a digest."""

    def __init__(self) -> None:
        self.providers = {PROVIDER[0], "192.0.2.2"}

    def may_challenge(self, host: str) -> bool:
        return host in self.providers


class Outbound(Net):
    """`pbx` is the phone's address."""

    def __init__(self, configuration: Configuration | None = None, **wire: Any) -> None:
        self.known = {"berlin": (SECRET,)}
        self.mode = 0
        self.verdicts: list[bool] = []
        self.statuses: list[int] = []
        super().__init__(configuration or Configuration(seal_keys=KEYS), peers=Peers(), **wire)
        self.pbx = self.phone
        self.endpoint_address = PROXY
        self.routing.decide = self.call_out
        self.routing.failure_route = self.answer  # type: ignore[attr-defined]

    def start(self) -> Any:
        endpoint = super().start()
        endpoint.credentials_of = lambda l_uuid: self.known.get(l_uuid, ())
        return endpoint

    def call_out(self, context: ResponseContext) -> None:
        if context.has_totag():
            context.t_relay()
            return
        context.credentials = self.known["berlin"]
        context.ruri = DIALLED
        context.du = b"sip:192.0.2.1:5060"
        context.uac_replace_from(b"sip:49301@provider.example")
        context.record_route()
        context.mark_call("berlin", "out", context.from_uri, "+49401", False)
        context.t_relay()

    def answer(self, context: ResponseContext) -> None:
        self.statuses.append(context.status)
        if context.status in (401, 407):
            self.verdicts.append(context.uac_auth(self.mode))
            if self.verdicts[-1]:
                context.t_relay()
            else:
                context.sl_send_reply(403, "Credentials refused")

    # the PBX
    def dial(self, number: int = 1, extra: bytes = b"", method: bytes = b"INVITE", **kwargs: Any) -> bytes:
        return self.request(
            method, b"sip:+49401@192.0.2.5", PBX_FROM + b";tag=bt", b"<sip:+49401@192.0.2.5>", b"out1", number,
            extra=b"Contact: <sip:bob@192.0.2.9:5060>\r\n" + extra, host=b"192.0.2.9:5060", **kwargs,
        )  # fmt: skip

    def up(self, number: int = 1, tag: bytes = b"gt", rounds: int = 1) -> Call:
        """INVITE, `rounds` times 407, 200, ACK."""
        self.send(self.pbx, self.dial(number))
        for i in range(rounds):
            self.challenge(self.last(), nonce=b"n%d" % i, realm=b"provider.example" if not i else b"other", proxy=not i)
        invite = self.last()
        self.send(self.provider, reply(invite, b"200 OK", tag, b"Contact: <sip:gw@192.0.2.1:5060>"))
        call = Call(self, invite, parse(self.pbx.take()[-1]), number, tag)
        self.provider.take()
        self.send(self.pbx, call.from_pbx(b"ACK", number))
        return call

    # the provider
    def last(self) -> Message:
        """What came last to the provider, repetitions left aside."""
        new = [data for data in self.provider.take() if self.provider.log.count(data) == 1]
        return parse(new[-1])

    def challenge(
        self, request: Message, nonce: bytes = b"n", realm: bytes = b"provider.example", proxy: bool = True,
        more: bytes = b', qop="auth", algorithm=MD5', tag: bytes = b"ch",
    ) -> None:
        """Refuse a request of ours with a challenge."""
        name, status = (
            (b"Proxy-Authenticate", b"407 Proxy Authentication Required") if proxy
            else (b"WWW-Authenticate", b"401 Unauthorized")
        )  # fmt: skip
        question = b'%b: Digest realm="%b", nonce="%b"%b' % (name, realm, nonce, more)
        self.send(self.provider, reply(request, status, tag, question))


class Call:
    """A call that stands, with what each side knows of it."""

    def __init__(self, net: Net, invite: Message, ok: Message, number: int, tag: bytes) -> None:
        self.net = net
        self.invite = invite
        self.ok = ok
        self.number = number
        self.tag = tag
        self.pbx_route = b", ".join(reversed(ok.get_list(b"Record-Route")))
        self.provider_route = b", ".join(invite.get_list(b"Record-Route"))

    def from_pbx(self, method: bytes, number: int, extra: bytes = b"", **kwargs: Any) -> bytes:
        return self.net.request(
            method, b"sip:gw@192.0.2.1:5060", kwargs.pop("from_", self.ok.get(b"From")), self.ok.get(b"To") or b"",
            self.ok.call_id, number, route=self.pbx_route, extra=extra, host=b"192.0.2.9:5060", **kwargs,
        )  # fmt: skip

    def from_provider(self, method: bytes, number: int, extra: bytes = b"", **kwargs: Any) -> bytes:
        return self.net.request(
            method, b"sip:bob@192.0.2.9:5060", (self.invite.get(b"To") or b"") + b";tag=" + self.tag,
            self.invite.get(b"From") or b"", self.invite.call_id, number, route=self.provider_route, extra=extra,
            **kwargs,
        )  # fmt: skip


def proves(
    request: Message, secret: Credentials = SECRET, proxy: bool = True, realm: bytes = b"provider.example"
) -> int:
    """Check the digest of a request as a server does; returns its nc."""
    for value in request.get_all(b"Proxy-Authorization" if proxy else b"Authorization"):
        fields = dict(re.findall(rb'(\w+)="?([^",]*)"?', value))
        if fields[b"realm"] != realm:
            continue
        qop = b', qop="%b"' % fields[b"qop"] if b"qop" in fields else b""
        algorithm = b", algorithm=" + fields[b"algorithm"] if b"algorithm" in fields else b""
        challenge = parse_challenge(b'Digest realm="%b", nonce="%b"%b%b' % (realm, fields[b"nonce"], qop, algorithm))
        expected = response(
            challenge, secret, request.method, request.ruri, nc=fields.get(b"nc", b""),
            cnonce=fields.get(b"cnonce", b""), body=request.body,
        )
        assert fields[b"uri"] == request.ruri and fields[b"username"] == secret.username
        assert fields[b"response"] == expected
        return int(fields.get(b"nc", b"0"), 16)
    raise AssertionError(f"no credentials for {realm!r} in {request.start!r}")


def numbers(net: Net, address: tuple[str, int], method: bytes) -> list[int]:
    """CSeq numbers of a method's requests that an address was sent, each transaction once."""
    seen: dict[bytes, int] = {}
    for _, _, to, data in net.wire.sent:
        if to == address and data.startswith(method + b" "):
            message = parse(data)
            seen.setdefault(message.via.branch, message.cseq[0])
    return list(seen.values())


def assert_apart(net: Net) -> None:
    """Neither side ever saw an identity or a challenge that is not its own."""
    for _, _, to, data in net.wire.sent:
        if to == PROVIDER:
            assert b"bob@pbx.example" not in data, data.decode(errors="replace")
        elif to == PHONE:
            for secret in (b"49301", b"uthenticate", b"uthorization", b"s3cret"):
                assert secret not in data, data.decode(errors="replace")
