"""The endpoint as its host sees it, and the ASGI door."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sipengine.asgi import AsgiApplication
from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint
from sipengine.exceptions import Reject
from sipengine.message import parse
from sipengine.proxy.hooks import step_at_once
from tests.sipengine.net import KEYS, PHONE, PROVIDER, PROXY, Net, entropy_from, starts


@settings(max_examples=300)
@given(st.integers(0, 400), st.binary(max_size=12), st.integers(0, 400))
def test_receiving_never_raises(begin: int, noise: bytes, end: int) -> None:
    net = Net()
    data = net.invite()
    flow = net.endpoint.flow_for(net.endpoint.listeners[0], PROVIDER)
    net.endpoint.receive(data[:begin] + noise + data[end:], flow, 1.0)
    net.endpoint.receive(b"SIP/2.0 " + noise + data[end:], flow, 1.0)
    net.endpoint.receive_stream(data[:begin] + noise, net.endpoint.flow_for(net.endpoint.listeners[1], PROVIDER), 1.0)
    net.run(100)
    net.establish(b"after")


def test_counters_and_live_numbers() -> None:
    net = Net()
    net.establish()
    counters = net.endpoint.counters.as_dict()
    assert counters["received"] == 3 and counters["sent"] == 4 and counters["calls"] == 1 and counters["bad"] == 0
    assert net.endpoint.live["dialogs"] == 1 and net.endpoint.unanswered == 0
    net.send(net.provider, b"\r\n\r\n")
    assert net.endpoint.counters.bad == 0


class Hooks:
    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict
        self.scopes: list[dict[str, Any]] = []

    async def application(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        context = scope["extensions"]["sip.context"]
        context.routing = self
        await self.verdict(context)


def asgi_endpoint(hooks: Hooks, step: Any = step_at_once) -> Endpoint:
    endpoint = Endpoint(
        Configuration(seal_keys=KEYS),
        application=AsgiApplication(hooks.application, step),
        admission=lambda flow: True,
        entropy=entropy_from(b"asgi"),
    )
    endpoint.add_listener("udp", *PROXY)
    return endpoint


def receive(endpoint: Endpoint, data: bytes) -> list[bytes]:
    endpoint.receive(data, endpoint.flow_for(endpoint.listeners[0], PROVIDER), 1.0)
    sent = [wire for wire, _ in endpoint.out]
    endpoint.out.clear()
    return sent


def test_an_asgi_application_is_called_once_for_each_response_context() -> None:
    async def verdict(context: Any) -> None:
        context.du = b"sip:%b:%d" % (PHONE[0].encode(), PHONE[1])
        context.t_relay()

    hooks = Hooks(verdict)
    endpoint = asgi_endpoint(hooks)
    message = Net().invite()
    assert starts(receive(endpoint, message)) == [b"SIP/2.0 100", b"INVITE"]
    assert starts(receive(endpoint, message)) == [b"SIP/2.0 100"]
    receive(endpoint, message.replace(b"INVITE", b"CANCEL"))
    [scope] = hooks.scopes
    assert scope["type"] == "sip" and scope["method"] == "INVITE" and scope["client"] == PROVIDER
    assert scope["server"] == PROXY and scope["transport"] == "udp"


def test_a_reject_is_the_answer_and_any_other_error_is_500() -> None:
    async def refuse(context: Any) -> None:
        raise Reject(480, "Later", [("Retry-After", "7")])

    async def fail(context: Any) -> None:
        raise KeyError("x")

    answer = parse(receive(asgi_endpoint(Hooks(refuse)), Net().invite())[-1])
    assert (answer.status, answer.reason, answer.get(b"Retry-After")) == (480, b"Later", b"7")
    assert parse(receive(asgi_endpoint(Hooks(fail)), Net().invite())[-1]).status == 500


def test_a_hook_that_waits_gets_back_in_by_resume() -> None:
    held: list[Any] = []

    def step(hook: Coroutine[Any, Any, Any], on_done: Any) -> None:
        held.append((hook, on_done))

    async def verdict(context: Any) -> None:
        context.sl_send_reply(404, "Not Found")

    endpoint = asgi_endpoint(Hooks(verdict), step)
    verbs: list[Any] = []
    endpoint.resume = verbs.append
    assert starts(receive(endpoint, Net().invite())) == [b"SIP/2.0 100"]
    step_at_once(*held[0])
    assert endpoint.out == [] and len(verbs) == 1
    verbs[0](2.0)
    assert starts([wire for wire, _ in endpoint.out]) == [b"SIP/2.0 404"]


def test_a_failure_route_may_be_a_coroutine() -> None:
    net = Net()
    seen: list[int] = []

    async def failure_route(context: Any) -> None:
        seen.append(context.status)
        context.sl_send_reply(480, "Nobody home")

    net.routing.failure_route = failure_route  # type: ignore[attr-defined]
    net.send(net.provider, net.invite())
    from tests.sipengine.net import reply

    net.send(net.phone, reply(parse(net.phone.take()[0]), b"486 Busy"))
    assert seen == [486] and starts(net.provider.take())[-1] == b"SIP/2.0 480"
