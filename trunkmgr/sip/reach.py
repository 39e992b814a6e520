"""How far a check gets on the way to a registrar: names, connections, certificates, OPTIONS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sipengine.asyncio.tls_report import NO_ANSWER, unconnected
from sipengine.events import Target
from sipengine.exceptions import ProtocolError, ResolutionError, TransportError
from sipengine.message import SipUri
from sipengine.transport.flow import SECURE, WEBSOCKET
from sipengine.uac.account import UacAccount
from sipengine.uac.trial import options
from trunkmgr.causes import answer
from trunkmgr.sip.checkup import BAD, GOOD, REMARK, Checkup, Step, facts_of
from trunkmgr.sip.snapshot import Trunk, numeric

#: Seconds that a look at DNS, a connection with its handshake, and OPTIONS may take.
DNS, CONNECT, OPTIONS = 8.0, 4.0, 4.0
#: Servers that are looked at, in the order in which they would be tried.
TARGETS = 4
#: Days before the end of a certificate from which it is worth a remark.
SOON = 21


@dataclass(slots=True)
class Server:
    """A target and what became of it."""

    target: Target
    bad: Step | None = None
    answers: bool = False


class Reach:
    """The way of one account to its provider."""

    def __init__(self, checkup: Checkup, trunk: Trunk) -> None:
        self._checkup = checkup
        self._worker: Any = checkup.worker
        self._trunk = trunk
        self._registrations = self._worker.endpoint.registrations

    async def registrar(self) -> Target | None:
        """Return the server that a trial goes to; None where none can be reached, and a step says why."""
        targets = await self._dns(self._trunk)
        servers = [Server(target) for target in targets[:TARGETS]]
        await asyncio.gather(*(self._server(self._trunk.account, server) for server in servers))
        chosen = self._to_register_at(self._trunk.account, servers)
        return chosen.target if chosen is not None else None

    async def _dns(self, trunk: Trunk) -> list[Target]:
        step = self._checkup.begin("dns", "Where REGISTER goes")
        uri = trunk.registrar_uri
        try:
            parsed = SipUri.parse(uri.encode())
        except ProtocolError:
            step.ended(BAD, f"{uri} is no SIP URI.", "bad_proxy")
            return []
        host = (parsed.param(b"maddr") or parsed.host).strip(b"[]").decode("ascii", "replace").lower()
        wanted = (parsed.param(b"transport") or b"").decode("ascii", "replace").lower()
        try:
            targets: list[Target] = await self._worker.server.locate(uri, DNS)
        except ResolutionError as error:
            targets, why = [], str(error)
        try:
            async with asyncio.timeout(DNS):
                step.lines += await self._records(host, parsed.port, wanted, parsed.scheme == b"sips")
        except TimeoutError:
            step.lines.append(f"DNS has not told all records in {DNS:g} s.")
        if not targets:
            step.ended(BAD, why, "dns_empty", host=host)
            return []
        found = [target for number, target in enumerate(targets) if target not in targets[:number]]
        step.ended(GOOD, "Tried in this order: " + ", ".join(map(str, found)) + ".")
        return found

    async def _records(self, host: str, port: int | None, transport: str, secure: bool) -> list[str]:
        """What our resolver knows of the names that it asked for, with the time that each still counts."""
        resolver = self._worker.server.resolver
        if numeric(host) is not None:
            return [f"{host} is an address; nothing is asked of DNS."]
        if known := resolver.known(host):
            return [f"{host} is {', '.join(known)} (TRUNKMGR_HOSTS or the hosts file, before DNS)."]
        asked = [(host, "A"), (host, "AAAA")]
        if port is None:
            services = {"udp": "_sip._udp", "tcp": "_sip._tcp", "tls": "_sips._tcp"}
            kinds = ["tls"] if secure else [transport] if transport in services else list(services)
            asked = [(host, "NAPTR"), *((f"{services[kind]}.{host}", "SRV") for kind in kinds), *asked]
        lines: list[str] = []
        servers: list[str] = []
        answers = await asyncio.gather(*(resolver.records(*each) for each in asked), return_exceptions=True)
        for (name, kind), told in zip(asked, answers, strict=True):
            lines += _written(name, kind, told)
            if kind == "SRV" and not isinstance(told, BaseException):
                servers += [record.split()[-1].rstrip(".").lower() for record in told[0]]
        for server in dict.fromkeys(filter(None, servers)):
            (told,) = await asyncio.gather(resolver.records(server, "A"), return_exceptions=True)
            lines += _written(server, "A", told)
        return lines

    async def _server(self, account: UacAccount, server: Server) -> None:
        target = server.target
        facts = facts_of(target)
        worker = self._worker
        if wait := worker.endpoint.rests.silent_for([target], worker.server.now()):
            server.bad = self._checkup.begin("pause", f"A pause of {target}")
            told = f"It asked for a pause (Retry-After), {wait:.0f} s more: nothing is sent to it until then."
            server.bad.ended(BAD, told, "busy_503", wait=f"{wait:.0f} s", **facts)
            return
        try:
            listener = self._registrations.requests.listener_for(target, account.socket)
        except TransportError as error:
            server.bad = self._checkup.begin("connection", f"Connection to {target}")
            server.bad.ended(BAD, str(error), "unreachable", **facts)
            return
        if listener is None or target.transport in WEBSOCKET or (target.transport in SECURE and not self._speaks_tls):
            server.bad = self._checkup.begin("connection", f"Connection to {target}")
            server.bad.ended(BAD, "None of our sockets reaches it.", "no_socket", **facts)
            return
        if target.transport != "udp":
            step = self._checkup.begin(
                "tls" if target.transport in SECURE else "connection",
                f"{'TLS with' if target.transport in SECURE else 'Connection to'} {target}",
            )
            look = self._tls if target.transport in SECURE else self._connection
            await look(step, target, listener.host)
            if step.state == BAD:
                server.bad = step
                return
        server.answers = await self._options(account, target)

    @property
    def _speaks_tls(self) -> bool:
        speaks: bool = self._worker.server.speaks_tls
        return speaks

    async def _connection(self, step: Step, target: Target, local: str) -> None:
        host, port = target.address
        try:
            async with asyncio.timeout(CONNECT):
                _, writer = await asyncio.open_connection(host, port, local_addr=(local, 0))
        except OSError as error:  # TimeoutError is one
            self._unconnected(step, unconnected(error), target)
        else:
            writer.transport.abort()
            step.ended(GOOD, "It takes TCP connections.")

    async def _tls(self, step: Step, target: Target, local: str) -> None:
        report = await self._worker.server.look_at_tls(target, local, CONNECT)
        policy, facts = report.policy, facts_of(target)
        if policy.fingerprint:
            step.lines.append(f"Expected: the pinned certificate {policy.fingerprint}.")
        else:
            names = " or ".join(policy.names) + (", a wildcard counts" if policy.wildcard else "")
            step.lines.append(f"Expected: a certificate for {names}, signed by an authority that we trust.")
        for number, shown in enumerate(report.chain):
            names = f" for {', '.join(shown.names)}" if shown.names else ""
            step.lines.append(
                f"{'Its certificate' if not number else 'Shown with it'}: {shown.subject}{names}; "
                f"signed by {shown.issuer}; until {shown.until:%Y-%m-%d %H:%M} UTC."
            )
        if report.version:
            step.lines.append(f"Agreed on: {report.version}, {report.cipher}.")
        if not report.connected:
            self._unconnected(step, report.detail, target)
        elif report.error is not None:
            told = report.error.detail
            step.ended(BAD, str(report.error), report.error.cause, **{
                **facts, "host": policy.names[0], "detail": told, "cert": told,
            })
        elif (left := report.days_left) is not None and left < SOON:
            step.ended(REMARK, f"The certificate counts, and ends in {left} days. Tell the provider.")
        else:
            step.ended(GOOD, "The certificate counts" + ("." if left is None else f", for {left} days more."))

    @staticmethod
    def _unconnected(step: Step, why: str, target: Target) -> None:
        step.ended(BAD, f"No connection: {why}.", "timeout" if why == NO_ANSWER else "unreachable", **facts_of(target))

    async def _options(self, account: UacAccount, target: Target) -> bool:
        step = self._checkup.begin("options", f"OPTIONS to {target}")
        outcome = await self._checkup.exchange(
            lambda done: options(self._registrations, account, target, OPTIONS, done), OPTIONS + 1.0
        )
        if outcome.message is not None:
            took = f" after {(outcome.at - outcome.sent_at) * 1000:.0f} ms" if outcome.sent_at is not None else ""
            step.ended(GOOD, f"It answers: {answer(outcome.code, outcome.reason)}{took}.")
            return True
        if outcome.cause == "unreachable":
            step.ended(REMARK, f"It cannot be reached: {outcome.reason}", "unreachable", **facts_of(target))
        else:
            step.ended(REMARK, f"No answer in {OPTIONS:g} s. Some providers never answer OPTIONS.")
        return False

    def _to_register_at(self, account: UacAccount, servers: list[Server]) -> Server | None:
        """Where the trial goes: to the server of the standing binding, else to the first that showed a sign of life."""
        usable = [server for server in servers if server.bad is None]
        if not usable:
            return None
        for server in servers:
            if server.bad is not None:
                # The next one serves: worth knowing, and no reason for a verdict.
                server.bad.state = REMARK
        held = self._registrations.target(account.l_uuid)
        for server in usable:
            if held is not None and (server.target.transport, server.target.address) == (held.transport, held.address):
                return server
        return next((server for server in usable if server.answers), usable[0])


def _written(name: str, kind: str, told: tuple[list[str], float] | BaseException) -> Iterable[str]:
    if isinstance(told, ResolutionError):
        return [f"{kind} {name}: DNS does not answer."]
    if isinstance(told, BaseException):
        raise told
    records, ttl = told
    return [f"{kind} {name}: {record} (counts {ttl:.0f} s more)" for record in records] or [f"{kind} {name}: none"]
