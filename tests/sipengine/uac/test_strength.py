"""Nobody on the way talks an account into a weaker digest than its realm took before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sipengine.events import RegistrationState as State
from sipengine.message import Message, parse
from sipengine.uac.binding import BindingRecord
from sipengine.uac.digest import Credentials, parse_challenge
from tests.sipengine.net import reply
from tests.sipengine.outbound import SECRET, Outbound
from tests.sipengine.uac.registrar import REALM, Network, Reply, account, granting

SHA = "SHA-256"


def asking(algorithm: Callable[[], str]) -> Callable[[Message], Reply]:
    """A registrar that takes any answer to the algorithm that it asks for at the moment."""

    def answer(message: Message) -> Reply:
        value = (message.get(b"Authorization") or b"").decode()
        if f"algorithm={algorithm()}" in value:
            return granting()(message)
        challenge = f'Digest realm="{REALM}", nonce="{len(value)}n", qop="auth", algorithm={algorithm()}'
        return 401, "Unauthorized", [f"WWW-Authenticate: {challenge}"]

    return answer


def digests(network: Network) -> list[bytes]:
    return [value for sent in network.sent for value in sent.message.get_all(b"Authorization")]


@pytest.mark.checklist("G11")
def test_a_realm_that_took_sha_gets_no_md5_any_more() -> None:
    offered = [SHA]
    network = Network(asking(lambda: offered[-1]))
    network.registrations.change(account(), network.now)
    network.run(1)
    assert (network.last().state, network.last().digest) == (State.REGISTERED, SHA)
    offered.append("MD5")
    network.registrations.register("acc000001", network.now)
    network.run(1)
    assert (network.last().cause, network.last().code) == ("weaker_digest", 401)
    assert all(b"algorithm=SHA-256" in value for value in digests(network))
    network.registrations.change(account(digest_minimum="MD5"), network.now)
    network.run(1)
    assert (network.last().state, network.last().digest) == (State.REGISTERED, "MD5"), "an operator may want it"


@pytest.mark.checklist("G11")
@pytest.mark.parametrize(("before", "cause"), [(SHA, "weaker_digest"), ("MD5", ""), ("", "")])
def test_what_was_taken_is_known_after_a_restart(before: str, cause: str) -> None:
    network = Network(asking(lambda: "MD5"))
    record = BindingRecord("c", "t", 5, realm_seen=REALM, digest=before)
    network.registrations.load(account(), record, network.now)
    network.run(60)
    assert network.last().cause == cause and bool(digests(network)) is not bool(cause)


@pytest.mark.checklist("G11")
def test_an_account_may_ask_for_sha_from_the_first_day() -> None:
    network = Network(asking(lambda: "MD5"))
    network.registrations.change(account(digest_minimum=SHA), network.now)
    network.run(1)
    assert network.last().cause == "weaker_digest" and not digests(network)


@pytest.mark.checklist("G11")
def test_calls_and_registrations_know_it_of_each_other() -> None:
    net = Outbound()
    net.endpoint.strength.learn(SECRET.username, b"provider.example")
    net.send(net.pbx, net.dial())
    net.challenge(net.last())
    assert parse(net.pbx.take()[-1]).status == 403, "neither a weak answer nor a challenge that nobody could answer"
    net = Outbound()
    net.send(net.pbx, net.dial())
    net.challenge(net.last(), more=b', qop="auth", algorithm=SHA-256')
    net.send(net.provider, reply(net.last(), b"200 OK", b"gt", b"Contact: <sip:gw@192.0.2.1:5060>"))
    weak = parse_challenge(b'Digest realm="provider.example", nonce="x"')
    assert not net.endpoint.strength.allows(weak, SECRET)
    assert net.endpoint.strength.allows(weak, Credentials(b"somebody else", b"x"))
