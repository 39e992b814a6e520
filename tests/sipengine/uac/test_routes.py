"""What a REGISTER's 2xx names beside the lifetime, and who may ask for it."""

from __future__ import annotations

import pytest

from sipengine.events import Target
from sipengine.message import Message
from sipengine.uac.binding import BindingRecord
from sipengine.uac.routes import MAX_ASSOCIATED, MAX_ROUTE, Routes
from tests.sipengine.uac.registrar import Network, Reply, account, granting

ROUTE = "Service-Route: <sip:edge.provider.example:5070;lr;transport=tcp>"


def answer(*lines: str) -> Routes:
    message = Message(b"SIP/2.0 200 OK", [], [])
    for line in lines:
        message.append(line.encode("latin-1"))
    return Routes.of(message)


def granting_with(*lines: str, code: int = 200) -> object:
    def reply(message: Message) -> Reply:
        _, _, headers = granting()(message)  # type: ignore[misc]
        return code, "OK", [*headers, *lines]

    return reply


@pytest.mark.rfc("3608", "5")
def test_hops_keep_their_order_over_lines_and_commas() -> None:
    routes = answer(
        'Service-Route: "a, b" <sip:one.example;lr>, <sip:two.example:5070;lr>;x=1',
        "service-route: <sips:[2001:db8::1];LR>",
    )
    assert routes.service_route == "<sip:one.example;lr>, <sip:two.example:5070;lr>;x=1, <sips:[2001:db8::1];LR>"


@pytest.mark.rfc("3608", "5")
@pytest.mark.parametrize("value", [
    "<sip:strict.example>", "sip:bare.example;lr", "<sip:a.example;lr", "<tel:+4930>", "<sip:a.example;lr?Subject=x>",
    "<sip:a.example;lr>;\"x", "<sip:a.example;l=\x01;lr>", "<sip:\xe9.example;lr>", "<sip:a b.example;lr>", "",
    "<sip:one.example;lr>, <sip:strict.example>", ", ".join(["<sip:a.example;lr>"] * 11), f"<sip:{'a' * MAX_ROUTE};lr>",
])  # fmt: skip
def test_a_route_set_is_taken_whole_or_not_at_all(value: str) -> None:
    assert answer(f"Service-Route: {value}").service_route == ""
    assert answer(f"Path: {value}").path == ""


@pytest.mark.rfc("7315", "4.1")
def test_associated_uris_are_bounded_and_the_first_stays_first() -> None:
    routes = answer('P-Associated-URI: "Main" <sip:+4930@p.example>, <tel:+4931>', "P-Associated-URI: <broken")
    assert routes.associated_uris == "<sip:+4930@p.example>, <tel:+4931>"
    many = answer(*[f"P-Associated-URI: <sip:+49305550{number:04}@provider.example>" for number in range(200)])
    assert 0 < len(many.associated_uris) <= MAX_ASSOCIATED
    assert many.associated_uris.startswith("<sip:+493055500000@provider.example>, ")


@pytest.mark.rfc("3608", "5")
def test_each_2xx_replaces_what_the_last_one_named() -> None:
    network = Network(granting_with(ROUTE, "Path: <sip:p.example;lr>", "P-Associated-URI: <sip:a@p>"))  # type: ignore[arg-type]
    registrations = network.registrations
    registrations.change(account(), network.now)
    assert registrations.service_route("acc000001") == b"" and registrations.target("acc000001") is None
    network.run(1)
    last = network.last()
    assert (last.path, last.associated_uris) == ("<sip:p.example;lr>", "<sip:a@p>")
    assert registrations.service_route("acc000001") == ROUTE.partition(" ")[2].encode()
    assert registrations.target("acc000001") == Target("udp", ("192.0.2.9", 5070))
    network.answer = lambda message: (403, "No", [ROUTE.replace("edge", "evil")])
    registrations.register("acc000001", network.now)
    network.run(1)
    assert b"edge" in registrations.service_route("acc000001"), "only a 2xx says anything, and the binding still stands"
    network.answer = granting()
    registrations.register("acc000001", network.now)
    network.run(1)
    assert registrations.service_route("acc000001") == b"" and network.last().service_route == ""


def test_what_holds_for_a_binding_goes_with_it() -> None:
    network = Network(granting_with(ROUTE))  # type: ignore[arg-type]
    registrations = network.registrations
    registrations.change(account(), network.now)
    network.run(1)
    registrations.unregister("acc000001", network.now)
    network.run(1)
    assert registrations.service_route("acc000001") == b"" and registrations.target("acc000001") is None
    assert network.last().service_route == ""
    registrations.register("acc000001", network.now)
    network.run(1)
    network.answer = None
    network.run(700)
    assert registrations.service_route("acc000001") == b"", "it lapsed"
    assert registrations.service_route("nobody") == b"" and registrations.target("nobody") is None


@pytest.mark.parametrize(("failures", "target"), [(0, Target("tcp", ("2001:db8::1", 5061))), (1, None)])
def test_a_binding_kept_over_a_restart_keeps_its_routes(failures: int, target: Target | None) -> None:
    network = Network()
    network.registrations.load(account(), BindingRecord(
        call_id="c", from_tag="t", cseq=3, contact="sip:acc000001@192.0.2.1:5060", granted=600,
        bound_until_at=network.now + 300, next_attempt_at=network.now + 200, failures=failures,
        target="tcp:[2001:db8::1]:5061", routes=Routes("<sip:edge.example;lr>"),
    ), network.now)  # fmt: skip
    assert network.registrations.service_route("acc000001") == b"<sip:edge.example;lr>"
    assert network.registrations.target("acc000001") == target


@pytest.mark.rfc("3327", "5.1")
def test_a_register_says_that_it_knows_path() -> None:
    network = Network(granting())
    network.registrations.change(account(), network.now)
    network.run(1)
    assert network.sent[0].message.get(b"Supported") == b"path"
