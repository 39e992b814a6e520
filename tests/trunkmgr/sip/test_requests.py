"""Orders of requests, run by a worker: what it sends and answers, and where the password is meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from sipengine.uac.account import UacAccount
from sipengine.uac.digest import Credentials
from sipengine.uac.send import UacReply
from sipengine.uac.uac_req import UacRequest
from tests.trunkmgr.sip.test_worker import PROVIDER, Stand, run  # noqa: F401 - a fixture
from trunkmgr.models import Credential, Order
from trunkmgr.models.credential import Secret
from trunkmgr.services import credentials, requests
from trunkmgr.sip.requests import OperatorRequests
from trunkmgr.sip.routing import TrunkRouting

pytestmark = pytest.mark.django_db(transaction=True)


async def order(**options: Any) -> Order:
    keys = options.pop("keys", {})
    return await sync_to_async(requests.send)(keys, "ada", **options)


async def result(sent: Order) -> dict[str, Any]:
    return await sync_to_async(requests.wait)(sent)


def reply(request: str, status: str, *lines: str, body: str = "") -> bytes:
    kept = [line for line in request.split("\r\n") if line.startswith(("Via:", "From:", "Call-ID:", "CSeq:"))]
    to = next(line for line in request.split("\r\n") if line.startswith("To:"))
    return "\r\n".join(
        [f"SIP/2.0 {status}", *kept, f"{to};tag=r", *lines, f"Content-Length: {len(body)}", "", body],
    ).encode()


def test_a_request_leaves_at_once_and_its_reply_is_the_result(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        at = f"sip:{PROVIDER}:{stand.provider.port}"
        began = time.monotonic()
        sent = await order(keys={"ruri": at, "furi": "sip:desk@pbx.example", "hdrs": "X-One: 1\r\n"})
        request = await stand.provider.next("OPTIONS", within=0.5)
        assert time.monotonic() - began < 0.4, "it is woken, the poll would take a second"
        assert request.startswith(f"OPTIONS {at} SIP/2.0\r\n") and "X-One: 1\r\n" in request
        assert "From: <sip:desk@pbx.example>;tag=" in request
        stand.provider.transport.sendto(reply(request, "200 OK", "Allow: INVITE", body="hello"), stand.address)
        told = await result(sent)
        assert told["ok"] and (told["code"], told["reason"], told["body"]) == (200, "OK", "hello")
        assert told["target"] == f"udp:{PROVIDER}:{stand.provider.port}" and 0 < told["round_trip"] < 0.5
        assert "Allow: INVITE" in told["headers"]
        assert told["message"].startswith(f"200 OK from udp:{PROVIDER}:{stand.provider.port}, after ")

    run(scenario)
    row = Order.objects.get()
    assert (row.who, row.verb, row.payload["keys"]["hdrs"]) == ("ada", "uac_req_send", "X-One: 1\r\n")


CHALLENGE = 'WWW-Authenticate: Digest realm="sip.example", nonce="n1", qop="auth"'


def test_a_password_is_sealed_in_the_row_and_leaves_it_with_the_claim(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        keys = {"method": "INFO", "ruri": f"sip:{PROVIDER}:{stand.provider.port}", "auser": "alice"}
        sent = await order(keys=keys, apasswd="s3cret")
        assert sent.secret.sealed().startswith("enc1:") and "s3cret" not in str(sent.__dict__)
        request = await stand.provider.next("INFO")
        row = await sync_to_async(Order.objects.get)()
        assert row.claimed_time is not None and not row.secret
        stand.provider.transport.sendto(reply(request, "401 Unauthorized", CHALLENGE), stand.address)
        request = await stand.provider.next("INFO")
        assert 'username="alice", realm="sip.example"' in request
        stand.provider.transport.sendto(reply(request, "401 Unauthorized", CHALLENGE), stand.address)
        told = await result(sent)
        assert not told["ok"] and told["message"].endswith("(Password refused)")
        assert "s3cret" not in str(told)

    run(scenario)
    assert "s3cret" not in str(list(Order.objects.values()))


def test_an_account_answers_for_itself_at_its_own_proxy(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        await sync_to_async(stand.account)("berlin")
        await stand.provider.next("REGISTER")
        await asyncio.sleep(0.3)
        sent = await order(keys={"ruri": "sip:elsewhere.example"}, account="berlin")
        request = await stand.provider.next("OPTIONS")
        assert "From: <sip:berlin@sip.example>;tag=" in request
        stand.provider.transport.sendto(reply(request, "401 Unauthorized", CHALLENGE), stand.address)
        request = await stand.provider.next("OPTIONS")
        assert 'username="berlin", realm="sip.example"' in request
        stand.provider.transport.sendto(reply(request, "200 OK"), stand.address)
        assert (await result(sent))["ok"]

    run(scenario)


def test_a_credential_answers_for_its_realm_only(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        row = await sync_to_async(credentials.save)(Credential(realm="other.example", username="u", password="p"))
        await asyncio.sleep(0.3)
        sent = await order(keys={"ruri": f"sip:{PROVIDER}:{stand.provider.port}"}, credential=row.pk)
        request = await stand.provider.next("OPTIONS")
        stand.provider.transport.sendto(reply(request, "401 Unauthorized", CHALLENGE), stand.address)
        told = await result(sent)
        assert (told["code"], told["cause"]) == (401, "realm_mismatch")

    run(scenario)


def test_the_deadline_ends_the_request(run: Callable[..., None]) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        sent = await order(keys={"ruri": f"sip:{PROVIDER}:{stand.provider.port}"}, timeout=1)
        await stand.provider.next("OPTIONS")
        told = await result(sent)
        assert (told["ok"], told["evcode"], told["message"]) == (False, 408, "No final answer came in time.")
        assert stand.worker.endpoint.uac_requests.under_way == 0
        assert stand.worker.endpoint.live["client_transactions"] == 0

    run(scenario)


@pytest.mark.parametrize(
    ("account", "sealed", "message"),
    [
        ({"auth_proxy": "not a uri"}, "", "The row of x makes no request: $uac_req(ouri) is no URI"),
        ({"r_username": "a b"}, "", ""),
        ({}, "enc1:nobody-opens-this", "This SIP worker has other TRUNKMGR_FIELD_KEYS than who sent the order."),
    ],
)
def test_what_a_worker_cannot_send_it_says(account: dict[str, str], sealed: str, message: str) -> None:
    row = UacAccount(**{  # type: ignore[arg-type]
        "l_uuid": "x", "l_username": "x", "l_domain": "d", "r_username": "r", "r_domain": "sip.example", **account,
    })
    picture = SimpleNamespace(
        trunks={"x": SimpleNamespace(account=row)}, credentials_for=lambda trunk: (Credentials(b"u", b"p"),),
    )
    begun: list[UacRequest] = []

    def begin(uac_req: UacRequest, *args: Any) -> None:
        begun.append(uac_req)

    sent = Order(payload={"keys": {"method": "INFO", "ruri": "tel:1"}, "l_uuid": "x"})
    sent.secret = Secret(stored=sealed)
    clock: Any = None
    worker = OperatorRequests(SimpleNamespace(begin=begin), lambda *args: None, clock, lambda: picture)
    told = asyncio.run(worker.run(sent))
    assert told["ok"] is False
    if message:
        assert told["message"].startswith(message) and not begun
    else:
        assert told["message"].startswith("Too many requests") and begun[0].furi == "sip:a%20b@sip.example"


def test_a_local_route_may_send(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    async def scenario(stand: Stand) -> None:
        uac_req = UacRequest()
        uac_req.method, uac_req.ruri = "INFO", f"sip:{PROVIDER}:{stand.provider.port}"

        def local_route(message: Any, flow: Any) -> None:
            if message.method == b"REGISTER":
                consumer = TrunkRouting()
                consumer.scope = {"sip.worker": stand.worker}
                assert consumer.uac_req_send(uac_req)

        stand.worker.endpoint.local_route = local_route
        await sync_to_async(stand.account)("berlin")
        await stand.provider.next("INFO")

    run(scenario)


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_the_routing_class_hears_of_replies(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, awaits: bool, fails: bool,  # noqa: F811
) -> None:
    heard: list[UacReply] = []

    def event_uac_reply(self: TrunkRouting, reply: UacReply) -> Any:
        assert self.scope["sip.worker"] and self.scope["sip.snapshot"]

        async def later() -> None:
            await asyncio.sleep(0.01)
            note()

        def note() -> None:
            heard.append(reply)
            if fails:
                raise RuntimeError("a fault of its author")

        return later() if awaits else note()

    monkeypatch.setattr(TrunkRouting, "event_uac_reply", event_uac_reply)

    async def scenario(stand: Stand) -> None:
        uac_req = UacRequest()
        uac_req.method, uac_req.ruri = "OPTIONS", f"sip:{PROVIDER}:{stand.provider.port}"
        uac_req.evroute, uac_req.evparam = 1, "ping"
        assert stand.worker.endpoint.uac_requests.send(uac_req)
        request = await stand.provider.next("OPTIONS")
        stand.provider.transport.sendto(reply(request, "404 Not Found"), stand.address)
        async with asyncio.timeout(2):
            while not heard:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        assert [(one.evcode, one.evtype, one.evparam) for one in heard] == [(404, 1, "ping")]
        assert stand.worker.endpoint.counters.hook_failures == fails

    run(scenario)
