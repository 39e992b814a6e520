"""Failures by class, each with its own pauses and cause; redirections, followed where they stay with the provider."""

from __future__ import annotations

import json
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sipengine.events import RegistrationState as State
from sipengine.uac.binding import MAX_BACK_OFF, Failure, back_off
from tests.sipengine.uac.registrar import Network, account, granting

TESTDATA = Path(os.environ.get("SIP_TESTDATA", Path(__file__).parents[3] / ".." / "shared" / "testdata"))
BACK_OFF = TESTDATA / "rfc-tables" / "reg-backoff.json"
TABLE: dict[str, Any] = json.loads(BACK_OFF.read_text()) if BACK_OFF.exists() else {}
needs_data = pytest.mark.skipif(not TABLE, reason=f"no test data at {BACK_OFF}")
HOME, OTHER = ("192.0.2.9", 5070), ("192.0.2.8", 5060)


@pytest.mark.parametrize(("kind", "first"), [
    (Failure.TRANSIENT, 5), (Failure.THROTTLED, 30), (Failure.NO_BINDING, 60), (Failure.REFUSED, 75),
])  # fmt: skip
@pytest.mark.checklist("H9")
def test_pauses_double_to_a_quarter_of_an_hour(kind: Failure, first: float) -> None:
    pauses = [back_off(number, kind, 0.0) for number in range(1, 12)]
    assert pauses[0] == first and pauses[-1] == MAX_BACK_OFF
    assert all(b == min(2 * a, MAX_BACK_OFF) for a, b in pairwise(pauses))
    assert back_off(1, kind, 0.999) == pytest.approx(0.8 * first, rel=0.01), "jitter makes it earlier only"
    assert back_off(9, kind, 0.0, longest=60.0) == 60.0


@needs_data
@pytest.mark.rfc("5626", "4.5")
@pytest.mark.parametrize("kind", Failure)
def test_pauses_have_the_form_of_the_table(kind: Failure) -> None:
    """Its formula holds with our own first pause, which is 5 s where the next try may well succeed, and our longest of
    15 min: a provider that is back after an outage is not left without us for half an hour.
    """
    assert TABLE["max"] >= MAX_BACK_OFF
    for failures in range(1, 12):
        longest = min(MAX_BACK_OFF, kind.value / 2 * 2**failures)
        for jitter in (0.0, 0.5, 0.999):
            assert 0.5 * longest <= back_off(failures, kind, jitter) <= longest


@needs_data
@pytest.mark.rfc("5626", "4.5")
@pytest.mark.parametrize("kind", [Failure.NO_BINDING, Failure.REFUSED])
def test_where_asking_again_soon_is_in_vain_no_try_is_earlier_than_in_the_table(kind: Failure) -> None:
    """The last line is left out: it is beyond our longest pause."""
    *lines, last = TABLE["ranges_all_failed"].items()
    assert last[0] == "after 6+" and len(lines) == 5
    for failures, (_, (earliest, _)) in enumerate(lines, start=1):
        assert back_off(failures, kind, 0.999) >= earliest


@needs_data
@pytest.mark.rfc("3261", "20.33")
@pytest.mark.parametrize("code", [int(code) for code in re.findall(r"\d{3}", TABLE.get("retry_after", ""))])
def test_retry_after_only_lengthens(code: int) -> None:
    def pause(*headers: str) -> float:
        network = Network(lambda message: (code, "Because", list(headers)))
        network.registrations.change(account(), network.now)
        network.run(1)
        return (network.last().next_attempt_at or 0) - network.last().at

    usual = pause()
    assert 4 <= usual <= 75
    assert pause("Retry-After: 1") >= usual * 0.8, "its jitter apart"
    assert pause("Retry-After: 500") == pytest.approx(500, abs=1)


def refused(network: Network, code: int, *headers: str) -> float:
    """Answer so from now on, register by hand, and return the pause that comes of it."""
    network.answer = lambda message: (code, "Because", list(headers))
    network.registrations.register("acc000001", network.now)
    network.run(1)
    return (network.last().next_attempt_at or 0) - network.last().at


@pytest.mark.parametrize(("code", "headers", "state", "cause", "least"), [
    (408, (), State.FAILING, "answer", 4), (500, (), State.FAILING, "answer", 4),
    (503, (), State.FAILING, "busy_503", 4),
    (503, ("Retry-After: 2",), State.FAILING, "busy_503", 24), (429, (), State.FAILING, "throttled", 24),
    (403, (), State.REFUSED, "banned_403", 60), (404, (), State.REFUSED, "unknown_user", 60),
    (302, ("Contact: <sip:evil.example>",), State.FAILING, "redirected", 4),
])  # fmt: skip
def test_each_class_has_its_own_pause(
    code: int, headers: tuple[str, ...], state: State, cause: str, least: float
) -> None:
    network = Network(lambda message: (code, "Because", list(headers)))
    network.registrations.change(account(), network.now)
    network.run(1)
    last = network.last()
    pause = (last.next_attempt_at or 0) - last.at
    assert (last.state, last.cause) == (state, cause) and least <= pause <= 1.25 * least


@pytest.mark.checklist("H8")
def test_a_403_after_a_success_is_no_wrong_password() -> None:
    network = Network(granting())
    network.registrations.change(account(), network.now)
    network.run(1)
    assert 24 <= refused(network, 403) <= 30
    assert (network.last().state, network.last().cause) == (State.FAILING, "throttled_403")
    network.registrations.change(account(auth_password="another"), network.now)
    network.run(1)
    assert (network.last().state, network.last().cause) == (State.REFUSED, "banned_403"), "this one was never right"


def test_a_200_without_binding_has_a_pause_of_its_own() -> None:
    network = Network(lambda message: (200, "OK", []))
    network.registrations.change(account(), network.now)
    network.run(1)
    last = network.last()
    assert (last.state, last.cause) == (State.FAILING, "no_binding")
    assert 48 <= (last.next_attempt_at or 0) - last.at <= 60


def elsewhere(contact: str, code: int = 302) -> Network:
    """The configured server sends everybody on; the other one grants."""
    network = Network()
    network.answers = {HOME: lambda message: (code, "Moved", [f"Contact: {contact}"]), OTHER: granting()}
    return network


@pytest.mark.rfc("3261", "10.2.8")
@pytest.mark.parametrize("code", [301, 302])
def test_a_redirection_within_the_provider_is_followed_and_kept(code: int) -> None:
    network = elsewhere("<sip:192.0.2.8;transport=udp>;expires=60", code)
    network.registrations.change(account(r_domain="192.0.2.8"), network.now)
    network.run(1)
    assert [sent.remote for sent in network.sent] == [HOME, OTHER]
    first, second = (sent.message for sent in network.sent)
    assert second.ruri == b"sip:192.0.2.8" and second.call_id == first.call_id and second.cseq[0] == 2
    assert network.last().state is State.REGISTERED
    network.run(600)
    assert [sent.remote for sent in network.sent[2:]] == [OTHER], "the refresh goes where the binding is"
    network.registrations.unregister("acc000001", network.now)
    network.run(1)
    assert network.sent[-1].remote == OTHER and network.sent[-1].expires == 0


def test_when_the_other_server_fails_the_configured_one_is_asked_again() -> None:
    network = elsewhere("<sip:192.0.2.8>")
    network.registrations.change(account(r_domain="192.0.2.8"), network.now)
    network.run(1)
    network.answers = {HOME: granting(), OTHER: lambda message: (500, "Broken", [])}
    network.run(620)
    assert network.sent[-1].remote == HOME and network.last().state is State.REGISTERED


def test_after_an_outage_accounts_that_were_sent_elsewhere_come_back_together_too() -> None:
    network = elsewhere("<sip:192.0.2.8>")
    for number in (1, 2):
        network.registrations.change(account(number, r_domain="192.0.2.8"), network.now)
    network.run(1)
    working, network.answers = network.answers, {}
    network.run(5000)
    assert {network.last(number).cause for number in (1, 2)} == {"timeout"}
    network.answers = working
    network.registrations.register("acc000001", network.now)
    network.run(2)
    assert [network.last(number).state for number in (1, 2)] == [State.REGISTERED] * 2


@pytest.mark.parametrize("contact", [
    "<sip:192.0.2.8>", "<sip:evilprovider.example>", "<sip:provider.example.evil>", "<tel:+49301>", "<sip:@>", "*",
])  # fmt: skip
@pytest.mark.checklist("H10")
def test_a_redirection_to_somebody_else_is_not_followed(contact: str) -> None:
    network = elsewhere(contact)
    network.registrations.change(account(), network.now)
    network.run(1)
    assert [sent.remote for sent in network.sent] == [HOME] and network.last().cause == "redirected"


def test_a_redirection_from_tls_to_clear_text_is_not_followed() -> None:
    network = elsewhere("<sip:192.0.2.8>")
    network.endpoint.add_listener("tls", "192.0.2.1", 5061)
    network.registrations.change(
        account(r_domain="192.0.2.8", auth_proxy="sip:192.0.2.9:5070;transport=tls"), network.now
    )
    network.run(1)
    assert [sent.remote for sent in network.sent] == [HOME] and network.last().cause == "redirected"


@pytest.mark.checklist("H10")
def test_redirections_in_a_circle_end() -> None:
    network = Network(lambda message: (302, "Moved", ["Contact: <sip:192.0.2.9:5070>"]))
    network.registrations.change(account(r_domain="192.0.2.9"), network.now)
    network.run(3)
    assert len(network.sent) == 6 and network.last().cause == "redirected"


def test_a_server_below_the_domain_is_looked_up() -> None:
    network = elsewhere("<sip:sub.provider.example>")
    network.registrations.change(account(r_domain="provider.example"), network.now)
    network.run(1)
    assert [wanted.host for wanted in network.wanted] == ["sub.provider.example"]
