"""Pre-flight of an account: the order `doctor`, from its row over DNS, connection, TLS and OPTIONS to a trial REGISTER.

Runs on the worker's own sockets, resolver and certificates, at the pace that all REGISTERs to that provider keep.
The account's binding is left alone: the trial has a Contact and a Call-ID of its own (`sipengine.uac.trial`) and is
removed.  Each step has a deadline, and tells of itself while the next one runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from sipengine.asyncio.tls_report import NO_ANSWER, unconnected
from sipengine.events import RegistrationState, Target
from sipengine.exceptions import ProtocolError, ResolutionError, TransportError
from sipengine.message import SipUri
from sipengine.transport.flow import SECURE, WEBSOCKET
from sipengine.uac.account import UacAccount
from sipengine.uac.binding import judge, number_of
from sipengine.uac.register import problem_of
from sipengine.uac.request import Exchange, Outcome
from sipengine.uac.trial import Trial, bindings, options
from trunkmgr.causes import answer, explain
from trunkmgr.models import Order
from trunkmgr.services import orders as order_rows
from trunkmgr.sip.snapshot import Trunk, numeric

Result = dict[str, Any]

#: Seconds that a step may take: DNS, a connection with its handshake, OPTIONS, a REGISTER with its challenges.
DNS, CONNECT, OPTIONS, REGISTER = 8.0, 4.0, 4.0, 8.0
#: Servers that are looked at, in the order in which they would be tried.
TARGETS = 4
#: Longest registration that a trial agrees to when the provider finds it too short.
LONGEST = 3600
#: Days before the end of a certificate from which it is worth a remark.
SOON = 21

GOOD, REMARK, BAD, SKIPPED, RUNNING = "good", "remark", "bad", "skipped", "running"

_UP = frozenset({RegistrationState.REGISTERED, RegistrationState.REFRESHING})


@dataclass(slots=True)
class Step:
    """One thing that was looked at; `lines` are the evidence."""

    name: str
    title: str
    state: str = RUNNING
    detail: str = ""
    lines: list[str] = field(default_factory=list)
    seconds: float | None = None
    cause: str = ""
    code: int | None = None
    reason: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def ended(self, state: str, told: str, cause: str = "", /, **facts: str) -> bool:
        """Close the step; True where what follows makes sense.  `facts` go into the words of `cause`."""
        self.state, self.detail, self.cause = state, told, cause
        self.facts.update(facts)
        self.seconds = round(time.monotonic() - self.began, 3)
        return state != BAD

    def shown(self) -> Result:
        told = asdict(self)
        for name in ("facts", "began"):
            del told[name]
        return told


@dataclass(slots=True)
class Server:
    """A target and what became of it."""

    target: Target
    bad: Step | None = None
    answers: bool = False


class Doctor:
    """One look at one account; `worker` is its owner."""

    def __init__(self, worker: Any, order: Order) -> None:
        self._worker = worker
        self._order = order
        self._registrations = worker.endpoint.registrations
        self._steps: list[Step] = []
        self._last: Exchange | None = None

    async def run(self) -> Result:
        """Look at one thing after the other until one fails for good; say what it comes to."""
        l_uuid = str(self._order.payload.get("l_uuid", ""))
        trunk = self._worker.admission.snapshot.trunks.get(l_uuid)
        if trunk is None:
            return {"ok": False, "message": f"The account {l_uuid} is not at this worker.", "steps": []}
        if l_uuid in self._worker.being_checked:
            return {"ok": False, "message": f"{l_uuid} is being checked already; wait for that.", "steps": []}
        self._worker.being_checked.add(l_uuid)
        try:
            await self._look(trunk)
        finally:
            self._worker.being_checked.discard(l_uuid)
        return self._verdict(trunk)

    async def _look(self, trunk: Trunk) -> None:
        account = trunk.account
        if not self._row(account):
            return
        targets = await self._dns(trunk)
        if not targets:
            return
        servers = [Server(target) for target in targets[:TARGETS]]
        await asyncio.gather(*(self._server(account, server) for server in servers))
        server = self._to_register_at(account, servers)
        if server is not None:
            await self._registrar(account, server.target)

    # the row

    def _row(self, account: UacAccount) -> bool:
        step = self._begin("account", "The account")
        if problem := problem_of(account):
            return step.ended(BAD, "Its row makes no REGISTER.", problem)
        state = self._registrations.snapshot(account.l_uuid)
        now = "is not registered here" if state is None else f"is {state.state.value} now"
        if state is not None and state.state in _UP:
            now += f" at {state.target}"
        if not account.enabled:
            return step.ended(REMARK, f"{account.l_uuid} is disabled; it is checked all the same.")
        if not account.expires:
            return step.ended(REMARK, f"{account.l_uuid} has expires 0: it never registers by itself.")
        return step.ended(GOOD, f"{account.l_uuid} {now}.")

    # names

    async def _dns(self, trunk: Trunk) -> list[Target]:
        step = self._begin("dns", "Where REGISTER goes")
        uri = trunk.registrar_uri
        try:
            parsed = SipUri.parse(uri.encode())
        except ProtocolError:
            step.ended(BAD, f"{uri} is no SIP URI.", "bad_proxy")
            return []
        host = (parsed.param(b"maddr") or parsed.host).strip(b"[]").decode("ascii", "replace").lower()
        wanted = (parsed.param(b"transport") or b"").decode("ascii", "replace").lower()
        located: asyncio.Future[list[Target] | ResolutionError] = asyncio.get_running_loop().create_future()

        def on_targets(targets: list[Target] | ResolutionError, now: float) -> None:
            if not located.done():
                located.set_result(targets)

        self._worker.call(self._worker.endpoint.locate, uri, on_targets)
        try:
            async with asyncio.timeout(DNS):
                targets = await located
                step.lines += await self._records(host, parsed.port, wanted, parsed.scheme == b"sips")
        except TimeoutError:
            targets = targets if located.done() else ResolutionError(f"DNS has not answered in {DNS:g} s.")
        if isinstance(targets, ResolutionError) or not targets:
            step.ended(BAD, str(targets) or f"{host} leads nowhere.", "dns_empty", host=host)
            return []
        found = [target for number, target in enumerate(targets) if target not in targets[:number]]
        step.ended(GOOD, "Tried in this order: " + ", ".join(map(_spelt, found)) + ".")
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

    # servers

    async def _server(self, account: UacAccount, server: Server) -> None:
        target = server.target
        facts = _facts(target)
        worker = self._worker
        if wait := worker.endpoint.rests.silent_for([target], worker.server.now()):
            server.bad = self._begin("pause", f"A pause of {_spelt(target)}")
            told = f"It asked for a pause (Retry-After), {wait:.0f} s more: nothing is sent to it until then."
            server.bad.ended(BAD, told, "busy_503", wait=f"{wait:.0f} s", **facts)
            return
        try:
            listener = self._registrations.requests.listener_for(target, account.socket)
        except TransportError as error:
            server.bad = self._begin("connection", f"Connection to {_spelt(target)}")
            server.bad.ended(BAD, str(error), "unreachable", **facts)
            return
        if listener is None or target.transport in WEBSOCKET or (target.transport in SECURE and not self._speaks_tls):
            server.bad = self._begin("connection", f"Connection to {_spelt(target)}")
            server.bad.ended(BAD, "None of our sockets reaches it.", "no_socket", **facts)
            return
        if target.transport != "udp":
            step = self._begin(
                "tls" if target.transport in SECURE else "connection",
                f"{'TLS with' if target.transport in SECURE else 'Connection to'} {_spelt(target)}",
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
        policy, facts = report.policy, _facts(target)
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
        step.ended(BAD, f"No connection: {why}.", "timeout" if why == NO_ANSWER else "unreachable", **_facts(target))

    async def _options(self, account: UacAccount, target: Target) -> bool:
        step = self._begin("options", f"OPTIONS to {_spelt(target)}")
        outcome = await self._exchange(
            lambda done: options(self._registrations, account, target, OPTIONS, done), OPTIONS + 1.0
        )
        if outcome.message is not None:
            took = f" after {(outcome.at - outcome.sent_at) * 1000:.0f} ms" if outcome.sent_at is not None else ""
            step.ended(GOOD, f"It answers: {answer(outcome.code, outcome.reason)}{took}.")
            return True
        if outcome.cause == "unreachable":
            step.ended(REMARK, f"It cannot be reached: {outcome.reason}", "unreachable", **_facts(target))
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

    # the registrar

    async def _registrar(self, account: UacAccount, target: Target) -> None:
        step = self._begin("query", f"Bindings at {_spelt(target)}")
        trial = Trial(self._registrations, account, (target,), REGISTER / 2)
        outcome = await self._exchange(trial.query, REGISTER)
        listed = bindings(outcome.message) if _granted(outcome) and outcome.message is not None else []
        live = account.l_uuid
        if account.contact_user and not any(name == live for _, name, _ in listed):
            live = account.contact_user
        was_listed = any(name == live for _, name, _ in listed)
        if _granted(outcome):
            step.lines += [f"{uri}{f', {left} s left' if left is not None else ''}" for uri, _, left in listed]
            step.lines += [f"Realm {outcome.realm_seen}, signed with {outcome.digest}."] if outcome.digest else []
            held = self._registrations.target(account.l_uuid) is not None
            if held and not was_listed:
                step.ended(REMARK, "The provider accepts the account, but lists no binding of it. Press Register now.")
            else:
                step.ended(GOOD, f"The provider accepts the account; it holds {len(listed)} of its bindings.")
        elif not self._went_wrong(step, account, target, outcome, lenient=True):
            return
        if self._order.payload.get("trial", True):
            await self._try(account, target, trial, live if was_listed else "")
        else:
            self._begin("trial", "A trial binding").ended(SKIPPED, "Not asked for.")

    async def _try(self, account: UacAccount, target: Target, trial: Trial, live: str) -> None:
        step = self._begin("trial", "A trial binding")
        outcome = await self._exchange(trial.register, REGISTER)
        if outcome.code == 423 and outcome.message is not None:
            least = number_of(outcome.message, b"Min-Expires") or 0
            if trial.binding.asked < least <= LONGEST:
                step.lines.append(f"The provider wants at least {least} s.")
                trial.binding.asked = least
                outcome = await self._exchange(trial.register, REGISTER)
        sent = outcome.sent_at is not None
        if _granted(outcome) and outcome.message is not None:
            listed = bindings(outcome.message)
            if not listed:
                told = "The provider answered 200 and lists no binding."
                step.ended(BAD, told, "no_binding", number=account.r_username)
            elif not any(name == trial.name for _, name, _ in listed):
                step.ended(REMARK, "The provider rewrites Contacts: it lists another one than ours.")
            else:
                step.ended(GOOD, f"Bound for {trial.binding.asked} s at most, beside the account's own.")
        else:
            self._went_wrong(step, account, target, outcome, bound=False)
            if step.cause == "banned_403" and not account.contact_user:
                # The account was accepted a moment ago; what was new is the Contact.
                step.cause, step.facts["number"] = "contact_number", account.r_username
        if sent and (outcome.message is None or _granted(outcome)):
            await self._remove(account, trial, live)

    async def _remove(self, account: UacAccount, trial: Trial, live: str) -> None:
        step = self._begin("removal", "Its removal")
        outcome = await self._exchange(trial.remove, REGISTER)
        if not _granted(outcome) or outcome.message is None:
            told = answer(outcome.code, outcome.reason) or "no answer"
            step.ended(REMARK, f"Not confirmed ({told}); it ends by itself within {trial.binding.asked} s.")
            return
        names = [name for _, name, _ in bindings(outcome.message)]
        if trial.name in names:
            step.ended(REMARK, f"The provider still lists it; it ends by itself within {trial.binding.asked} s.")
        elif live and live not in names:
            self._worker.call(self._registrations.register, account.l_uuid)
            step.ended(
                REMARK, "The provider keeps one binding only, and the trial took its place: registered again now. "
                "Check this account without a trial from now on.",
            )
        else:
            step.ended(GOOD, "The trial binding is gone" + (", the account's own stands." if live else "."))

    def _went_wrong(
        self, step: Step, account: UacAccount, target: Target, outcome: Outcome, *, lenient: bool = False,
        bound: bool = True,
    ) -> bool:
        """Close a step whose REGISTER got no 200; with `lenient` a server may dislike the form of a query."""
        step.code, step.reason = outcome.code, outcome.reason if outcome.message is not None else ""
        cause = outcome.cause or "timeout"
        if not outcome.cause and outcome.code is not None:
            _, cause = judge(outcome.code, outcome.retry_after > 0, False)
        told = answer(outcome.code, step.reason) if outcome.message is not None else outcome.reason or "No answer."
        if lenient and outcome.message is not None and not outcome.cause and outcome.code in (400, 405, 420, 500, 501):
            return step.ended(REMARK, f"The provider takes no query: {told}.")
        return step.ended(
            BAD, told, cause, got=outcome.realm_seen, want=account.realm, number=account.r_username,
            detail=outcome.detail, cert=outcome.detail, wait=f"{outcome.retry_after} s" if outcome.retry_after else "",
            our_ip=account.contact_addr or self._worker.env.reg_contact_addr, **_facts(target),
        )

    async def _exchange(self, make: Callable[[Callable[[Outcome], None]], Exchange], timeout: float) -> Outcome:
        """Start an exchange and wait for its end; one that takes longer (it may wait its turn) is abandoned."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not ended.done():
                ended.set_result(outcome)

        exchange = make(done)
        self._worker.call(exchange.start)
        await asyncio.wait([ended], timeout=timeout)
        if not ended.done():
            self._worker.call(exchange.abandon)
        return await ended

    # what is told

    def _begin(self, name: str, title: str) -> Step:
        step = Step(name, title)
        self._steps.append(step)
        self._worker.spawn(self._tell(), "doctor")
        return step

    async def _tell(self) -> None:
        await self._worker.database.run(order_rows.tell, self._order.pk, [step.shown() for step in self._steps])

    def _verdict(self, trunk: Trunk) -> Result:
        account = trunk.account
        failed = next((step for step in self._steps if step.state == BAD), None)
        remarks = [step.detail for step in self._steps if step.state == REMARK]
        steps = [step.shown() for step in self._steps]
        base: Result = {"l_uuid": account.l_uuid, "steps": steps, "remarks": remarks}
        if failed is None:
            made = any(step.name == "removal" and step.state == GOOD for step in self._steps)
            verdict = "All is well: the provider accepts this account" + (
                ", and a trial binding was made and removed." if made else "."
            )
            return {"ok": True, "message": verdict, "verdict": verdict, "fix": "", "cause": "", **base}
        facts = {"host": trunk.registrar, "number": account.r_username, **{k: v for k, v in failed.facts.items() if v}}
        text = explain(failed.cause, failed.code, failed.reason, facts)
        return {
            "ok": False, "message": f"{text.sentence} {text.fix}", "verdict": text.sentence, "fix": text.fix,
            "cause": failed.cause, **base,
        }


def _granted(outcome: Outcome) -> bool:
    return outcome.code is not None and outcome.code // 100 == 2


def _spelt(target: Target) -> str:
    host, port = target.address
    return f"{target.transport}:[{host}]:{port}" if ":" in host else f"{target.transport}:{host}:{port}"


def _facts(target: Target) -> dict[str, str]:
    host, port = target.address
    return {
        "target": f"{host} port {port} ({target.transport.upper()})", "proto": target.transport.upper(),
        "port": str(port),
    }


def _written(name: str, kind: str, told: tuple[list[str], float] | BaseException) -> Iterable[str]:
    if isinstance(told, ResolutionError):
        return [f"{kind} {name}: DNS does not answer."]
    if isinstance(told, BaseException):
        raise told
    records, ttl = told
    return [f"{kind} {name}: {record} (counts {ttl:.0f} s more)" for record in records] or [f"{kind} {name}: none"]
