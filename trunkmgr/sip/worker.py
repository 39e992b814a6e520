"""The SIP worker: a Channels worker that listens on SIP sockets and on its own channel in the same loop.

Owns the engine, keeps its picture of the tables fresh, runs orders, and hands on what the engine tells.  A dead Redis
or database makes pages stale and orders wait; calls and registrations go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from channels.routing import ProtocolTypeRouter
from channels.worker import Worker
from django.conf import settings
from django.db import Error as DatabaseError

from sipengine.asgi import AsgiApplication
from sipengine.asyncio.resolver import MIN_TTL, Resolver
from sipengine.asyncio.server import SipServer, local_address
from sipengine.asyncio.tasks import HookSteps
from sipengine.asyncio.tls import TlsFiles
from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.events import RegistrationChanged, Target
from sipengine.exceptions import ResolutionError
from sipengine.message import Message
from sipengine.transport.flow import Flow
from sipengine.uac.digest import Credentials
from trunkmgr import live, processes
from trunkmgr.env import OUTGOING
from trunkmgr.models import Node, Order
from trunkmgr.services import bans, dialogs, locations, nodes
from trunkmgr.services import orders as order_rows
from trunkmgr.sip import changes, routing, rules, store
from trunkmgr.sip.behind import WriteBehind
from trunkmgr.sip.bridge import Batch, Bridge
from trunkmgr.sip.clock import Clock
from trunkmgr.sip.database import DatabaseThread
from trunkmgr.sip.defence import Ban, Defence
from trunkmgr.sip.doctor import Doctor
from trunkmgr.sip.dry_run import DryRun
from trunkmgr.sip.foreign import ForeignAccounts
from trunkmgr.sip.limits import Pace
from trunkmgr.sip.middleware import Admission, PeerMiddleware
from trunkmgr.sip.node_socket import NodeSocket
from trunkmgr.sip.orders import Orders
from trunkmgr.sip.outage import Outage
from trunkmgr.sip.preview import Preview
from trunkmgr.sip.registrar import open_registrar
from trunkmgr.sip.requests import OperatorRequests, ReplyRoute
from trunkmgr.sip.snapshot import configured_credentials

log = logging.getLogger("trunkmgr.sip")

HEARTBEAT = 2.0
POLL = 1.0
OWNERSHIP = 10.0
COMPARE = 300.0
#: Between two looks at which names are due; none lives shorter than that.
RESOLVE = MIN_TTL
#: Accounts loaded in one turn of the loop.
LOAD = 200
#: Seconds of a stop: hooks that wait for something, calls that are being set up, what is left to be written. Together
#: with `nodes.stopped` (WRITE_LEFT again) they stay under the ten in which a service has to end.
HOOKS = 1.0
DRAIN = 3.0
WRITE_LEFT = 1.5


class SipWorker(Worker):
    """`start`, then `handle` (as any Channels worker) until `stopping` is set, then `drain`."""

    def __init__(
        self, application: Any, channels: list[str], channel_layer: Any, max_applications: int = 1000,
    ) -> None:
        super().__init__(application, channels, channel_layer, max_applications)
        env = settings.TRUNKMGR
        self.env = env
        self.stopping = asyncio.Event()
        self.defence = Defence(env.sip_rate, env.ban_seconds)
        self.pace = Pace()
        self.admission = Admission(env.sip_sources, self.defence)
        # The router has one answer for the scope `sip`: asking it for each call costs a coroutine.
        sip = application.application_mapping["sip"] if isinstance(application, ProtocolTypeRouter) else application
        self.middleware = PeerMiddleware(sip, self.admission, self)
        self.steps = HookSteps(retry_after=None)
        self.endpoint = Endpoint(
            Configuration(
                restore_mode=env.restore_mode, restore_codec=env.restore_codec, restore_passwd=env.restore_passwd,
                restore_from_avp=env.restore_from_avp, restore_to_avp=env.restore_to_avp,
                auth_realm_avp=env.auth_realm_avp, auth_username_avp=env.auth_username_avp,
                auth_password_avp=env.auth_password_avp, credentials=configured_credentials(env.credentials),
                rr_from_store_param=env.rr_from_store_param, rr_to_store_param=env.rr_to_store_param,
                seal_keys=settings.SEAL_KEYS, reg_contact_addr=env.reg_contact_addr,
                reg_retry_interval=env.reg_retry_interval, reg_random_delay=env.reg_random_delay,
                reg_learn_address=env.reg_learn_address,
                default_socket=env.default_socket,
                # What providers call us by, also where it is the outside of a NAT.
                aliases=tuple(filter(None, (env.reg_contact_addr.partition(";")[0],))),
            ),
            application=AsgiApplication(self.middleware, self.steps.step),
            admission=self.admission.admits, entropy=os.urandom, local_address=local_address,
            peers=self.admission,
        )
        self.endpoint.credentials_of = self._credentials_of
        open_registrar(self.endpoint, self.admission, env.devices_from)
        transports = {socket.partition(":")[0] for socket in env.sip_listen}
        self.server = SipServer(
            self.endpoint, list(env.sip_listen), self._on_events,
            resolver=Resolver(env.hosts, env.nameservers, transports=[x for x in OUTGOING if x in transports]),
            tls=TlsFiles(env.tls_certificate, env.tls_key, env.tls_ca, env.tls_minimum), ws_origins=env.ws_origins,
        )
        self._secure = "tls" in transports
        self.routing = routing.routing_class()
        if hasattr(self.routing, "local_route"):
            self.endpoint.local_route = self._local_route
        self.clock = Clock(self.server.now)
        self.database = DatabaseThread()
        self.bridge = Bridge(self.clock, self._store, live.apublish, self._on_registration)
        self.foreign = ForeignAccounts(env.node, env.reg_timer_interval) if env.reg_db_url else None
        self.writes = WriteBehind(self.database, self.bridge.database)
        self.requests = OperatorRequests(
            self.endpoint.uac_requests, self.call, self.clock, lambda: self.admission.snapshot,
        )
        self.orders = Orders(
            self.endpoint.registrations, self.call, self.clock, self.bridge, self.dump, self.reload, self.defence.lift,
            {
                Order.Verb.UAC_REQ_SEND: self.requests.run,
                Order.Verb.DRY_RUN: lambda order: DryRun(self).run(order.payload),
                Order.Verb.DOCTOR: lambda order: Doctor(self, order).run(),
                Order.Verb.PREVIEW: lambda order: Preview(self).run(order.payload),
            },
        )
        self.endpoint.uac_requests.event_uac_reply = ReplyRoute(self)
        self.being_checked: set[str] = set()
        """Accounts that a doctor looks at now."""
        self.change_log = changes.ChangeLog()
        self.node_socket = NodeSocket(env.node_socket, self.wake) if env.embedded else None
        self.node: Node | None = None
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._layer = Outage(log, "The channel layer", "Calls and registrations go on; wake-ups and plans wait.")

    # start and stop

    def run(self) -> None:
        """Run as a process of its own until SIGTERM (the stock one knows Ctrl-C only, and cuts calls off)."""
        processes.run(self._process)

    async def _process(self, stop: asyncio.Event) -> None:
        await self.start()
        serving = asyncio.create_task(self.arun(), name="sip")
        processes.settle()
        print(f"trunkmgr ready: SIP {self.sockets} · accounts {self.accounts}", flush=True)  # noqa: T201
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await self.drain()
        await serving

    async def start(self) -> None:
        """Take the name, open the sockets, take up every registration; raises what keeps it from running."""
        listen = list(self.env.sip_listen)
        self.node = await self.database.run(nodes.start, self.env.node, listen)
        try:
            await self.database.run(self.change_log.start)
            snapshot = await self.database.run(changes.read_snapshot)
            self.admission.swap(snapshot)
            self.defence.put(
                Ban(address, rule, self.clock.at(since), self.clock.at(until))
                for address, rule, since, until in await self.database.run(bans.of_node, self.node)
            )
            self._take_up_calls(await self.database.run(store.calls_going_on, self.env.node, self.clock))
            bindings = await self.database.run(store.bindings, self.clock)
            devices = snapshot.devices
            self.endpoint.location.load([each for each in bindings if each.aor in devices], self.server.now())
            await self.server.start()
            if self.node_socket is not None:
                self.node_socket.open()
        except BaseException:
            await self.database.run(nodes.stopped, self.node)
            raise
        self.bridge.start()
        self._resolve()
        self.call(self.endpoint.registrations.switch, snapshot.reg_active)
        await self._take_up(await self.database.run(store.own, self.node))
        for loop in (self._beat, self._follow, self._own, self._keep_resolving, self.writes.run):
            self.spawn(loop(), loop.__name__)
        if self.foreign is not None:
            self.spawn(self.foreign.run(), "foreign")

    async def handle(self) -> None:
        """Listen on our channel until `stopping`; a channel layer that fails is asked again and again."""
        listening = asyncio.create_task(self._listen(), name="listen")
        await self.stopping.wait()
        listening.cancel()
        await asyncio.wait([listening])

    async def drain(self) -> None:
        """Refuse new calls, let those being set up get their answer, write what is left, leave."""
        if self.middleware.draining:
            return
        assert self.node is not None
        self.stopping.set()
        self.middleware.draining = True
        await self.steps.drain(HOOKS)
        if self.node_socket is not None:
            self.node_socket.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.server.stop(DRAIN)
        await self.bridge.close(WRITE_LEFT)
        with contextlib.suppress(TimeoutError, DatabaseError):
            async with asyncio.timeout(WRITE_LEFT):
                await self.database.run(nodes.stopped, self.node)
                await self.database.close()
                if self.foreign is not None:
                    await self.foreign.close()

    def spawn(self, coroutine: Any, name: str) -> None:
        """Run something beside the rest until it ends or the worker does; a fault goes to the log."""
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("The worker's task %s ended with a fault.", task.get_name(), exc_info=task.exception())

    # the channel

    async def _listen(self) -> None:
        channel = self.channels[0]
        while True:
            listener = asyncio.create_task(self.listener(channel))
            try:
                await asyncio.wait([listener], timeout=1.0)
                if not listener.done():
                    self._layer.worked()
                await listener
            except asyncio.CancelledError:
                listener.cancel()
                raise
            except Exception as error:
                self._layer.failed(error)
            await asyncio.sleep(self._layer.pause)

    def get_or_create_application_instance(self, scope_id: str, scope: dict[str, Any]) -> asyncio.Queue[Any]:
        """Let the control consumer find its worker."""
        queue: asyncio.Queue[Any] = super().get_or_create_application_instance(scope_id, {**scope, "sip.worker": self})
        return queue

    async def application_exception(self, exception: BaseException, application_details: Any) -> None:
        """A consumer that fell over is made anew with the next message."""
        log.error("The consumer of %s ended: %s.", self.channels[0], str(exception) or type(exception).__name__)

    def wake(self) -> None:
        """Look at changes and orders now."""
        self._woken.set()

    def plan(self, plans: list[list[Any]]) -> None:
        """Take beat's plan: `[l_uuid, generation, ISO time]` each."""
        for l_uuid, generation, moment in plans:
            at = self.clock.at(datetime.fromisoformat(moment).astimezone(UTC))
            self.call(self.endpoint.registrations.plan, l_uuid, generation, at)

    # the engine

    def call(self, verb: Callable[..., Any], *args: Any) -> Any:
        """Run a verb of the engine now; what it leaves goes out with it."""
        return self.server.call(verb, *args, self.server.now())

    def _local_route(self, message: Message, flow: Flow) -> None:
        """Show the routing class a request of our own; there is no response context to it."""
        consumer = self.routing()
        consumer.scope = {"type": "sip.local", "sip.snapshot": self.admission.snapshot, "sip.worker": self}
        consumer.local_route(message, flow)

    @property
    def sockets(self) -> str:
        """The SIP sockets as people write them."""
        return " ".join(repr(listener) for listener in self.endpoint.listeners)

    @property
    def accounts(self) -> int:
        return len(self.admission.snapshot.trunks)

    def _on_events(self) -> None:
        self.bridge.take(self.endpoint.events)

    def _on_registration(self, event: RegistrationChanged) -> None:
        if event.target:
            self.admission.registered_at(event.l_uuid, event.target.partition(":")[2].rpartition(":")[0].strip("[]"))
        self.orders.heard(event)

    def _credentials_of(self, l_uuid: str) -> Sequence[Credentials]:
        picture = self.admission.snapshot
        trunk = picture.trunks.get(l_uuid)
        return picture.credentials_for(trunk) if trunk is not None else ()

    async def _store(self, batch: Batch) -> None:
        await self.database.run(store.store, self.env.node, batch)

    # from the tables

    async def _follow(self) -> None:
        """Apply changes and run orders when woken, else once a second; compare everything now and then."""
        assert self.node is not None
        compare_at = self.clock.now() + COMPARE
        while True:
            # Not wait_for: on Python 3.11 it forgets a cancellation that comes together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self._woken.wait()
            self._woken.clear()
            async with self._database():
                patch, fences = await self.database.run(store.look, self.change_log, self.node)
                self.apply(patch, fences)
                for order in await self.database.run(order_rows.claim, self.env.node):
                    self.spawn(self._obey(order), f"order {order.pk}")
                if self.clock.now() >= compare_at:
                    compare_at = self.clock.now() + COMPARE
                    await self.database.run(dialogs.forget_expired)
                    await self.database.run(locations.forget_expired)
                    await self.reload()

    async def reload(self) -> int:
        """Compare all rows with the picture and take the difference over; return how many accounts it concerns."""
        assert self.node is not None
        if self.foreign is not None:
            await self.foreign.look()
        patch = await self.database.run(changes.compare, self.admission.snapshot)
        if patch:
            log.warning("The tables were changed behind the change log; the difference is taken over.")
            self.apply(patch, await self.database.run(store.own, self.node))
        return len(patch.trunks)

    def apply(self, patch: changes.Patch, fences: Mapping[str, int]) -> None:
        """Swap the picture, and let the engine follow the accounts that are ours."""
        old, devices = self.admission.snapshot.trunks, self.admission.snapshot.devices
        patch.keep_known(old)
        if not patch:
            return
        self.bridge.fences.update(fences)
        self.admission.swap(self.admission.snapshot.patched(
            patch.trunks, patch.domains, patch.providers, patch.credentials, patch.reg_active, patch.devices,
        ))
        self.pace.keep(self.admission.snapshot.trunks.keys())
        for aor, device in patch.devices.items():
            # What a password bound that counts no more may be somebody else's.
            if device is None or (aor in devices and device.credentials != devices[aor].credentials):
                self.server.call(self.endpoint.location.unbind_all, aor)
        for ruid in patch.unbound:
            self.server.call(self.endpoint.location.unbind_ruid, ruid)
        registrations = self.endpoint.registrations
        self.call(registrations.switch, self.admission.snapshot.reg_active)
        for l_uuid, trunk in patch.trunks.items():
            before = old.get(l_uuid)
            try:
                if trunk is None:
                    self.call(registrations.remove, l_uuid)
                elif l_uuid in self.bridge.fences and (before is None or before.account != trunk.account):
                    self.call(registrations.change, trunk.account)
            except Exception:
                # The others of this patch shall not wait for a fault that one row brings to light.
                log.exception("The engine could not follow the change of %s.", l_uuid)
        self.bridge.accounts_changed(patch.trunks)
        self._resolve()

    async def _obey(self, order: Order) -> None:
        try:
            result = await self.orders.run(order)
        except Exception:
            log.exception("The order %s (%s) fell over.", order.pk, order.verb)
            result = {"ok": False, "message": "The SIP worker could not carry this out; its log tells why."}
        async with self._database():
            await self.database.run(order_rows.finish, order.pk, result)

    async def _own(self) -> None:
        """Take up registrations that nobody looks after any more."""
        assert self.node is not None
        while True:
            await asyncio.sleep(OWNERSHIP)
            async with self._database():
                await self._take_up(await self.database.run(store.own, self.node))

    async def _take_up(self, fences: dict[str, int]) -> None:
        assert self.node is not None
        registrations = self.endpoint.registrations
        # Before the accounts that are there instead, which wait for it.
        departing = await self.database.run(store.departing, self.node, self.clock, registrations.departures)
        for account, record in departing:
            self.call(registrations.depart, account, record)
        new = [l_uuid for l_uuid in fences if l_uuid not in registrations]
        self.bridge.fences.update(fences)
        if not new:
            return
        records = await self.database.run(store.binding_records, self.node, self.clock)
        for number, l_uuid in enumerate(new):
            trunk = self.admission.snapshot.trunks.get(l_uuid)
            if trunk is not None and l_uuid not in registrations:
                self.call(registrations.load, trunk.account, records.get(l_uuid))
            if number % LOAD == LOAD - 1:
                await asyncio.sleep(0)

    def _take_up_calls(self, states: list[tuple[str, str, float]]) -> None:
        """Give the engine the calls whose token alone would not do, before anything of them can arrive."""
        known = self.endpoint.load_dialogs(states, self.server.now())
        if lost := len(states) - known:
            log.warning(
                "%d of %d calls that go on were stored under other TRUNKMGR_SEAL_KEYS. "
                "They go by their tokens, so the provider may refuse what is sent within them.", lost, len(states),
            )

    async def _beat(self) -> None:
        """Say that we live."""
        assert self.node is not None
        while True:
            await asyncio.sleep(HEARTBEAT)
            self.clock.compare()
            async with self._database():
                notice = self.foreign.notice if self.foreign else ""
                if new := self._new_bans():
                    await self.database.run(bans.record, self.node, new)
                    del self.defence.new[: len(new)]
                if not await self.database.run(nodes.heartbeat, self.node, None, self.load(), notice):
                    log.critical("Another SIP worker has taken the name %s; this one stops.", self.env.node)
                    self.stopping.set()

    def _new_bans(self) -> list[tuple[str, str, datetime, datetime]]:
        """Bans that are not stored yet, as the table wants them."""
        time = self.clock.time
        return [(ban.address, ban.rule, time(ban.since), time(ban.until)) for ban in self.defence.new]

    @contextlib.asynccontextmanager
    async def _database(self) -> Any:
        """Survive a database that does not answer: one log line, and a pause."""
        try:
            yield
        except DatabaseError as error:
            self.bridge.database.failed(error)
            await asyncio.sleep(self.bridge.database.pause)
        except Exception:
            log.exception("Reading or writing the tables failed; it is tried again.")
            await asyncio.sleep(POLL)
        else:
            self.bridge.database.worked()

    # names of peers

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(RESOLVE)
            self._resolve()

    def _resolve(self) -> None:
        """Ask for the addresses of the names that admission must know, where what is known has lived its time."""
        for host in self.admission.names():
            if self.admission.has_answer(host) and not self.server.resolver.is_due(host):
                continue
            # With a port the name itself is looked up, without one its SRV records (RFC 3263 §4.2); peers use either.
            for question in (f"sip:{host}", f"sip:{host}:5060", *([f"sips:{host}"] if self._secure else ())):
                self.call(self.endpoint.locate, question, self._learner(host, question))

    def _learner(self, host: str, question: str) -> Callable[[list[Target] | ResolutionError, float], None]:
        def learn(targets: list[Target] | ResolutionError, now: float) -> None:
            # A name that cannot be resolved now keeps the addresses it had.
            if not isinstance(targets, ResolutionError):
                self.admission.resolved(host, question, frozenset(target.address[0] for target in targets))

        return learn

    def _refused(self) -> dict[str, int]:
        return rules.counted(self.endpoint.counters, rules.refusals.counts, self.server.ended)

    def load(self) -> dict[str, Any]:
        """How the worker stands with overload: what is refused of new calls, and the least wait of what it reads."""
        overload = self.endpoint.overload
        return {
            "share": round(overload.share, 3), "wait": round(overload.wait, 4), "times": overload.times,
            "refused": self.endpoint.counters.overload + self.steps.refused,
            "rules": self._refused(),
        }

    def dump(self) -> dict[str, Any]:
        """What the worker is doing, for the order `dump` and for /healthz."""
        return {
            "node": self.env.node,
            "listen": self.sockets.split(),
            "registrations": len(self.endpoint.registrations),
            "accounts": self.accounts,
            "departures": len(self.endpoint.registrations.departures),
            "bindings": len(self.endpoint.location),
            "calls": self.endpoint.calls,
            "load": self.load(),
            "bans": [ban.address for ban in self.defence.standing(self.clock.now())],
            "hooks_pending": self.steps.pending,
            "dropped": self.bridge.dropped,
            "resting": [f"{transport}:{host}:{port}" for transport, (host, port) in self.endpoint.rests.resting],
            "rules": self._refused(),
            "counters": self.endpoint.counters.as_dict(),
        }
