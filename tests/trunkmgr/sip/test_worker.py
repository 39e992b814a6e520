"""The worker as a whole, in process: real engine and sockets on loopback, real tables, the in-memory channel layer."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import InMemoryChannelLayer
from django.conf import settings
from django.db import OperationalError
from django.utils import timezone

from sipengine.dialog import state as dialog_state
from sipengine.dialog.cseq import Numbering, Sequence
from sipengine.dialog.record import DialogRecord
from sipengine.dialog.views import Views
from sipengine.events import BindingChanged, CallAnswered, CallStarted, DialogOver, DialogShifted
from trunkmgr.asgi import application
from trunkmgr.env import StaticCredential
from trunkmgr.models import (
    Call,
    Credential,
    Departure,
    Device,
    Dialog,
    Domain,
    Node,
    Order,
    Provider,
    Registration,
    RegistrationEvent,
    UacReg,
    UacRegOptions,
)
from trunkmgr.services import accounts, credentials, devices, domains, orders, providers
from trunkmgr.sip import store
from trunkmgr.sip import worker as worker_module
from trunkmgr.sip.worker import SipWorker

pytestmark = pytest.mark.django_db(transaction=True)

PROVIDER, PBX, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class Peer(asyncio.DatagramProtocol):
    """A SIP peer of few words: keeps what arrives, and answers REGISTER with 200 if it is a registrar."""

    def __init__(self, registrar: bool = False) -> None:
        self.registrar = registrar
        self.messages: asyncio.Queue[str] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, address: Any) -> None:
        text = data.decode()
        if self.registrar and text.startswith("REGISTER"):
            lines = text.split("\r\n")
            kept = [line for line in lines if re.match(r"(Via|From|Call-ID|CSeq):", line)]
            to = next(line for line in lines if line.startswith("To:")) + ";tag=r"
            contacts = [line for line in lines if line.startswith("Contact:") and "expires=0" not in line]
            contact = [line + ";expires=60" for line in contacts]
            route = f"Service-Route: <sip:{PROVIDER};lr>"
            answer = "\r\n".join(["SIP/2.0 200 OK", *kept, to, *contact, route, "Content-Length: 0", "", ""])
            self.transport.sendto(answer.encode(), address)
        self.messages.put_nowait(text)

    async def next(self, start: str, within: float = 2.0) -> str:
        async with asyncio.timeout(within):
            while True:
                message = await self.messages.get()
                if message.startswith(start):
                    return message


async def peer(host: str, registrar: bool = False) -> Peer:
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_datagram_endpoint(lambda: Peer(registrar), local_addr=(host, 0))
    return protocol


def invite(user: str, port: int, host: str = PROVIDER, tag: str = "") -> bytes:
    return (
        f"INVITE sip:{user}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {host}:{port};branch=z9hG4bK{user}{host}{tag}\r\n"
        f"Max-Forwards: 70\r\nFrom: \"Ann\" <sip:+49301@caller.example>;tag=1\r\nTo: <sip:{user}@127.0.0.1>\r\n"
        f"Call-ID: {user}{host}{tag}\r\nCSeq: 1 INVITE\r\nContact: <sip:+49301@{host}:{port}>\r\n"
        f"P-Asserted-Identity: <sip:+49301@caller.example>\r\nContent-Length: 0\r\n\r\n"
    ).encode()


class FlakyLayer(InMemoryChannelLayer):
    """A layer that can be made to fail as a dead Redis does."""

    dead = False

    async def receive(self, channel: str) -> dict[str, Any]:
        for _ in range(10_000):
            if self.dead:
                raise ConnectionError("Connection refused")
            try:
                return await asyncio.wait_for(super().receive(channel), 0.02)
            except TimeoutError:
                continue
        raise AssertionError("nothing came")

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if self.dead:
            raise ConnectionError("Connection refused")


@dataclasses.dataclass
class Stand:
    worker: SipWorker
    layer: FlakyLayer
    provider: Peer
    pbx: Peer
    stranger: Peer

    @property
    def address(self) -> tuple[str, int]:
        listener = self.worker.endpoint.listeners[0]
        return listener.host, listener.port

    def account(self, l_uuid: str, l_domain: str = "pbx.example", **options: Any) -> None:
        accounts.save(
            UacReg(
                l_uuid=l_uuid, l_username="100", l_domain=l_domain, r_username=l_uuid, r_domain="sip.example",
                auth_password="secret", auth_proxy=f"sip:{PROVIDER}:{self.provider.port}",
            ),
            UacRegOptions(**options),
        )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Run `scenario(stand)` against a started worker with one provider and one PBX."""
    with tempfile.TemporaryDirectory() as folder:
        env = dataclasses.replace(settings.TRUNKMGR, data_dir=Path(folder), sip_listen=("udp:127.0.0.1:0",))
        monkeypatch.setattr(settings, "TRUNKMGR", env)

        async def main(scenario: Callable[[Stand], Awaitable[None]]) -> None:
            layer = FlakyLayer()
            provider, pbx, stranger = await peer(PROVIDER, registrar=True), await peer(PBX), await peer(STRANGER)

            def tables() -> None:
                providers.save(Provider(name="P", domain="sip.example", addresses=PROVIDER))
                domains.save(Domain(l_domain="pbx.example", next_hop=f"sip:{PBX}:{pbx.port}"))

            await sync_to_async(tables)()
            worker = SipWorker(application, [f"sip.{env.node}"], layer)
            stand = Stand(worker, layer, provider, pbx, stranger)
            await worker.start()
            serving = asyncio.create_task(worker.arun())
            try:
                await scenario(stand)
            finally:
                await worker.drain()
                await asyncio.wait_for(serving, 5)

        yield lambda scenario: asyncio.run(main(scenario))


async def eventually(condition: Callable[[], Any], within: float = 2.0) -> Any:
    async with asyncio.timeout(within):
        while not (found := await sync_to_async(condition)()):
            await asyncio.sleep(0.02)
    return found


@pytest.mark.timeout(15)
def test_a_wake_up_in_the_moment_of_the_stop_does_not_hold_it_up(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        await asyncio.sleep(0.05)
        stand.worker.wake()  # the fixture stops the worker in this same turn of the loop

    run(scenario)


def test_a_saved_account_registers_at_once_and_a_deleted_one_leaves(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        register = await stand.provider.next("REGISTER", within=0.5)
        assert f"<sip:alice@127.0.0.1:{stand.address[1]}>" in register
        row = await eventually(lambda: Registration.objects.filter(account_id="alice", state="registered").first())
        assert (row.code, row.granted, row.trigger, row.generation) == (200, 60, "change", 1)
        assert row.target == f"udp:{PROVIDER}:{stand.provider.port}"
        assert 55 < (row.bound_until_time - row.state_time).total_seconds() < 65
        await sync_to_async(accounts.remove)("alice")
        assert "expires=0" in await stand.provider.next("REGISTER", within=0.5)
        await eventually(lambda: not Departure.objects.exists())

    run(scenario)
    assert list(RegistrationEvent.objects.filter(l_uuid="alice").values_list("state", flat=True)[:1]) == ["registered"]


def test_what_was_deleted_or_renamed_while_no_worker_ran_is_taken_back_at_the_start(run: Callable[..., None]) -> None:
    def meanwhile() -> dict[str, str]:
        call_ids = {row.account_id: row.call_id for row in Registration.objects.all()}
        accounts.remove("alice")
        bob = UacReg.objects.get(l_uuid="bob")
        bob.r_username, bob.auth_password = "robert", "other"
        accounts.save(bob)
        accounts.set_enabled("carol", False)
        return call_ids

    async def scenario(stand: Stand) -> None:
        for name in ("alice", "bob", "carol"):
            await sync_to_async(stand.account)(name)
            await stand.provider.next("REGISTER")
        await eventually(lambda: Registration.objects.filter(state="registered").count() == 3)
        await stand.worker.drain()
        before = await sync_to_async(meanwhile)()
        again = SipWorker(application, stand.worker.channels, stand.layer)
        await again.start()
        try:
            found = [await stand.provider.next("REGISTER") for _ in range(4)]
            await eventually(lambda: not Departure.objects.exists())
        finally:
            await again.drain()
        told = [sorted(re.findall(r"(?m)^(?:To|Call-ID|Expires): (.*?)\r", text)) for text in found]
        taken_back = [sorted(["0", f"<sip:{name}@sip.example>", call_id]) for name, call_id in before.items()]
        assert sorted(lines for lines in told if "0" in lines) == sorted(taken_back)
        (new,) = (lines for lines in told if "0" not in lines)
        assert "<sip:robert@sip.example>" in new and before["bob"] not in new
        assert told.index(new) > told.index(sorted(["0", "<sip:bob@sip.example>", before["bob"]]))

    run(scenario)


def test_an_account_registers_from_the_socket_of_its_provider(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        provider = await Provider.objects.aget()
        provider.socket = "udp:127.0.0.1:9"
        await sync_to_async(providers.save)(provider)
        await sync_to_async(stand.account)("alice", provider=provider)
        await eventually(lambda: Registration.objects.filter(account_id="alice", cause="no_socket").first())
        host, port = stand.address
        provider.socket = f"udp:{host}:{port}"
        await sync_to_async(providers.save)(provider)
        assert f"Contact: <sip:alice@{host}:{port}>" in await stand.provider.next("REGISTER", within=0.5)

    run(scenario)


@pytest.mark.checklist("H20")
def test_the_server_of_an_account_is_asked_as_soon_as_it_says_so(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        await eventually(lambda: Registration.objects.filter(account_id="alice", state="registered").first())
        account = await UacReg.objects.aget(l_uuid="alice")
        await sync_to_async(accounts.save)(account, UacRegOptions(account=account, qualify=10))
        options = await stand.provider.next("OPTIONS", within=0.5)
        assert options.startswith("OPTIONS sip:sip.example SIP/2.0") and "<sip:alice@sip.example>" in options
        kept = [line for line in options.split("\r\n") if re.match(r"(Via|From|To|Call-ID|CSeq):", line)]
        answer = "\r\n".join(["SIP/2.0 405 Method Not Allowed", *kept, "Content-Length: 0", "", ""])
        stand.provider.transport.sendto(answer.encode(), stand.address)
        row = await eventually(lambda: Registration.objects.filter(qualify_state="reachable").first())
        assert 0 < row.qualify_round_trip < 1 and row.qualify_time is not None
        assert row.generation == 1, "nothing was registered anew"
        records = await sync_to_async(store.binding_records)(stand.worker.node, stand.worker.clock)
        assert records["alice"].reachability == "reachable", "known after a restart"
        await sync_to_async(accounts.save)(account, UacRegOptions(account=account))
        row = await eventually(lambda: Registration.objects.filter(qualify_state="unknown").first())
        assert (row.qualify_round_trip, row.qualify_time, row.generation) == (None, None, 1)

    run(scenario)


def test_a_saved_credential_is_in_the_picture_at_once(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what the engine asks for challenges within a call is the same."""
    static = (StaticCredential("static", "r", "x"),)
    monkeypatch.setattr(settings, "TRUNKMGR", dataclasses.replace(settings.TRUNKMGR, credentials=static))

    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        row = Credential(realm="sbc.example", username="second", password="x", account_id="alice")
        await sync_to_async(credentials.save)(row)

        def users() -> list[bytes]:
            return [found.username for found in stand.worker.endpoint.credentials_of("alice")]

        async with asyncio.timeout(0.5):
            while users() != [b"second", b"alice", b"static"]:
                await asyncio.sleep(0.01)
        assert not stand.worker.endpoint.credentials_of("nobody")
        (configured,) = stand.worker.endpoint.configuration.credentials
        assert configured.username == b"static"

    run(scenario)


def test_another_password_ends_what_a_device_has_registered(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        device = Device(username="100", domain="pbx.example", password="first-secret")
        await sync_to_async(devices.save)(device)
        await eventually(lambda: "100@pbx.example" in stand.worker.admission.snapshot.devices)
        location, now = stand.worker.endpoint.location, stand.worker.server.now()
        location.load([BindingChanged(
            "r1", "100@pbx.example", "sip:100@127.0.0.9", 1000, now + 60, "c", 1, "", "udp", ("127.0.0.9", 5060),
            "", 0, "", now,
        )], now)  # fmt: skip
        device.note = "on the second floor"
        await sync_to_async(devices.save)(device)
        await asyncio.sleep(0.3)
        assert len(location) == 1, "a note says nothing about who it is"
        device.password = "second-secret"
        await sync_to_async(devices.save)(device)
        await eventually(lambda: not len(location))

    run(scenario)


def test_an_order_is_run_once_and_answered(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        await eventually(lambda: Registration.objects.filter(state="registered").exists())
        (order,) = await sync_to_async(orders.place)("register", {"l_uuids": ["alice"]}, "ada")
        await stand.provider.next("REGISTER", within=0.5)
        result = await sync_to_async(orders.wait)(order)
        assert (result["ok"], result["message"]) == (True, "alice: 200 OK")
        for _ in range(3):
            stand.worker.wake()
            await asyncio.sleep(0.05)
        assert stand.provider.messages.empty(), "a second REGISTER would be a second run"
        await eventually(lambda: RegistrationEvent.objects.filter(trigger="operator", who="ada").exists())
        (dump,) = await sync_to_async(orders.place)("dump", {})
        stand.worker.endpoint.rests.failed("udp", ("192.0.2.7", 5060), stand.worker.server.now())
        told = await sync_to_async(orders.wait)(dump)
        assert (told["registrations"], told["resting"]) == (1, ["udp:192.0.2.7:5060"])

    run(scenario)
    assert Order.objects.exclude(finished_time=None).count() == 2


def test_reload_finds_what_bypassed_the_log(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        await sync_to_async(UacReg.objects.update)(expires=1234)
        (order,) = await sync_to_async(orders.place)("reload", {})
        assert "Expires: 1234" in await stand.provider.next("REGISTER", within=0.5)
        result = await sync_to_async(orders.wait)(order)
        assert result == {"ok": True, "message": "All accounts are read again, 1 differed."}

        class Foreign:
            notice = ""
            looks = 0

            async def look(self) -> None:
                self.looks += 1

            async def close(self) -> None: ...

        stand.worker.foreign = Foreign()
        (order,) = await sync_to_async(orders.place)("reload", {})
        assert (await sync_to_async(orders.wait)(order))["ok"] and stand.worker.foreign.looks == 1

    run(scenario)


def test_inbound_calls_are_admitted_looked_up_and_made_anonymous(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice", inbound_identity="anonymous")
        await sync_to_async(stand.account)("lost", l_domain="elsewhere.example")
        await stand.provider.next("REGISTER")
        await stand.provider.next("REGISTER")

        stand.provider.transport.sendto(invite("alice", stand.provider.port), stand.address)
        relayed = await stand.pbx.next("INVITE")
        assert relayed.startswith("INVITE sip:100@pbx.example SIP/2.0\r\n")
        assert "From: <sip:anonymous@anonymous.invalid>;tag=1\r\n" in relayed
        assert "+49301" not in relayed
        assert "Record-Route:" in relayed

        stand.provider.transport.sendto(invite("nobody", stand.provider.port), stand.address)
        assert (await stand.provider.next("SIP/2.0 4")).startswith("SIP/2.0 404")
        stand.provider.transport.sendto(invite("lost", stand.provider.port), stand.address)
        assert (await stand.provider.next("SIP/2.0 4")).startswith("SIP/2.0 480")
        assert "the local domain elsewhere.example has no next hop" in caplog.text
        stand.pbx.transport.sendto(invite("alice", stand.pbx.port, PBX), stand.address)
        assert "403 From names no account of this PBX" in await stand.pbx.next("SIP/2.0 4")
        stand.stranger.transport.sendto(invite("alice", stand.stranger.port, STRANGER), stand.address)
        await asyncio.sleep(0.2)
        assert stand.stranger.messages.empty()
        assert stand.worker.endpoint.counters.denied == 1
        call = await eventually(lambda: Call.objects.filter(l_uuid="alice").first(), within=3)
        assert (call.direction, call.callee, call.anonymous) == ("in", "100@pbx.example", True)

    with caplog.at_level(logging.WARNING, "trunkmgr.sip"):
        run(scenario)


def test_a_call_finds_its_account_by_line_where_the_contact_user_is_not_unique(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        def save() -> None:
            for l_uuid, local in (("a1", "100"), ("a2", "200")):
                accounts.save(UacReg(
                    l_uuid=l_uuid, l_username=local, l_domain="pbx.example", r_username="4930", r_domain="sip.example",
                    auth_password="secret", contact_user="4930", auth_proxy=f"sip:{PROVIDER}:{stand.provider.port}",
                ))

        await sync_to_async(save)()
        contacts = []
        for _ in range(2):
            contacts.append(re.search(r"Contact: <sip:4930@[^>]*?(;line=\w+)>", await stand.provider.next("REGISTER")))
        line = next(found[1] for found in contacts if found and found[1] == ";line=a2")
        text = invite("4930", stand.provider.port).replace(b"127.0.0.1 ", b"127.0.0.1%b " % line.encode(), 1)
        stand.provider.transport.sendto(text, stand.address)
        assert (await stand.pbx.next("INVITE")).startswith("INVITE sip:200@pbx.example SIP/2.0")

    run(scenario)


def test_a_dead_layer_and_a_dead_database_stop_no_call(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        stand.layer.dead = True
        stored = store.store

        def dead(*args: Any) -> None:
            raise OperationalError("server closed the connection unexpectedly")

        for name in ("store", "look", "own"):
            monkeypatch.setattr(store, name, dead)
        await asyncio.sleep(1.2)
        stand.provider.transport.sendto(invite("alice", stand.provider.port), stand.address)
        await stand.pbx.next("INVITE")

        monkeypatch.undo()
        assert store.store is stored
        stand.layer.dead = False
        await eventually(lambda: Call.objects.filter(l_uuid="alice").exists(), within=8)
        await asyncio.sleep(2.5)
        await stand.layer.send(f"sip.{settings.TRUNKMGR.node}", {"type": "registrations.plan", "plans": [
            ["alice", 1, "2020-01-01T00:00:00+00:00"],
        ]})
        assert await stand.provider.next("REGISTER", within=3), "the channel is heard again"

    with caplog.at_level(logging.WARNING, "trunkmgr.sip"):
        run(scenario)
    lines = [record.getMessage() for record in caplog.records if record.name == "trunkmgr.sip"]
    assert sum("The channel layer does not answer" in line for line in lines) <= 2, "one line a change, not one a try"
    assert sum("The database does not answer" in line for line in lines) == 1
    assert any("The database answers again" in line for line in lines)


def test_while_it_stops_new_calls_are_asked_to_come_back(run: Callable[..., None]) -> None:
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        stand.provider.transport.sendto(invite("alice", stand.provider.port), stand.address)
        await stand.pbx.next("INVITE")  # rings, so the drain waits for it
        draining = asyncio.create_task(stand.worker.drain())
        await asyncio.sleep(0.1)
        stand.provider.transport.sendto(invite("alice", stand.provider.port, tag="2"), stand.address)
        refused = await stand.provider.next("SIP/2.0 503")
        assert "Retry-After:" in refused
        await draining
        assert (await sync_to_async(Node.objects.get)()).stopped_time is not None

    run(scenario)


def test_another_instance_of_the_name_stops_this_one(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkmgr.sip.worker.HEARTBEAT", 0.05)

    async def scenario(stand: Stand) -> None:
        await sync_to_async(Node.objects.update)(instance="somebody else")
        await asyncio.wait_for(stand.worker.stopping.wait(), 2)

    run(scenario)


def test_a_restart_keeps_a_binding_that_stands(run: Callable[..., None]) -> None:
    port = []

    async def first(stand: Stand) -> None:
        await sync_to_async(stand.account)("alice")
        await stand.provider.next("REGISTER")
        await eventually(lambda: Registration.objects.filter(state="registered").exists())
        port.append(stand.address[1])

    async def second(stand: Stand) -> None:
        record = await sync_to_async(store.binding_records)(stand.worker.node, stand.worker.clock)
        assert record["alice"].cseq == 1
        assert record["alice"].routes.service_route == f"<sip:{PROVIDER};lr>"
        assert 40 < record["alice"].bound_until_at - stand.worker.clock.now() <= 60
        assert "alice" in stand.worker.endpoint.registrations

    run(first)
    providers.Provider.objects.all().delete()
    Domain.objects.all().delete()
    run(second)


def test_a_restart_takes_up_the_calls_that_were_challenged(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:
    views = Views(b"<sip:hidden@pbx.example>", b"<sip:alice@sip.example>")

    async def first(stand: Stand) -> None:
        worker, now = stand.worker, stand.worker.server.now()
        record = DialogRecord(worker.endpoint.proxy.dialogs, b"call-id tag", views, now + 3600)
        record.mark, record.l_uuid, record.numbering = "0123456789abcdef", "alice", Numbering()
        record.numbering.directions[1] = Sequence(5, 7)
        state = dialog_state.write(record, worker.endpoint.proxy.sealer)
        worker.endpoint.events += [
            CallStarted(record.mark, "call-id", "alice", "out", "100", "4930", False, now),
            CallAnswered(record.mark, "alice", now),
            DialogShifted(record.mark, "call-id", "alice", state, now + 3600, now),
        ]
        worker._on_events()
        row = await eventually(Dialog.objects.first)
        assert b"hidden" not in repr(vars(row)).encode()
        await eventually(lambda: Call.objects.filter(answered_time__isnull=False).exists())

    async def second(stand: Stand) -> None:
        worker = stand.worker
        record = worker.endpoint.proxy.dialogs.find(b"call-id", b"tag")
        assert record is not None and record.views == views
        assert 3500 < record.expires_at - worker.server.now() <= 3600
        assert worker.endpoint.calls == worker.endpoint.calls_of("alice") == 1
        assert not await sync_to_async(Call.objects.exclude(ended_time=None).exists)()
        worker.endpoint.events.append(DialogOver(record.mark, worker.server.now()))
        worker._on_events()
        await eventually(lambda: not Dialog.objects.exists())

    async def other_keys(stand: Stand) -> None:
        assert not len(stand.worker.endpoint.proxy.dialogs)

    def restart(scenario: Callable[[Stand], Awaitable[None]]) -> None:
        providers.Provider.objects.all().delete()
        Domain.objects.all().delete()
        run(scenario)

    run(first)
    kept = Dialog.objects.get()
    restart(second)
    kept.save(force_insert=True)
    monkeypatch.setattr(settings, "SEAL_KEYS", (b"k" * 32,))
    with caplog.at_level(logging.WARNING):
        restart(other_keys)
    assert "1 of 1 calls that go on were stored under other TRUNKMGR_SEAL_KEYS." in caplog.text


def test_dialogs_of_which_nothing_is_heard_are_forgotten(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also those of workers that do not come back."""
    monkeypatch.setattr(worker_module, "COMPARE", 0.0)

    async def scenario(stand: Stand) -> None:
        past = timezone.now() - timedelta(seconds=1)
        dead = {"call_id": "c", "state": "s", "changed_time": past, "expires_time": past}
        await sync_to_async(Dialog.objects.create)(key="k", node="gone", **dead)
        stand.worker.wake()
        await eventually(lambda: not Dialog.objects.exists())

    run(scenario)
