"""One registration for all numbers of a PBX (RFC 6140): what leaves, what counts as ours, and whom a call is for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sipengine.events import RegistrationState as State
from sipengine.message import Message
from sipengine.uac.account import UacAccount
from sipengine.uac.lookup import AccountTable
from sipengine.uac.trial import Trial
from tests.sipengine.uac.registrar import REALM, Network, Reply, account, granting
from tests.sipengine.uac.test_nat import PUBLIC, Nat
from tests.sipengine.uac.test_registration import record, registered

pytestmark = [pytest.mark.checklist("H19"), pytest.mark.rfc("6140", "5.1")]

CONTACT = "<sip:192.0.2.1:5060;bnc;line=acc000001>"


def required(message: Message) -> tuple[bytes | None, bytes | None]:
    return message.get(b"Require"), message.get(b"Proxy-Require")


def test_a_bulk_register_has_no_user_in_its_contact_and_requires_gin_of_all() -> None:
    network = Network(granting())
    registered(network, gin=True)
    [sent] = network.sent
    assert sent.contact == CONTACT
    assert required(sent.message) == (b"gin", b"gin") and sent.message.get(b"Supported") == b"path"
    assert sent.message.get(b"To") == b"<sip:trunk1@provider.example>"
    network.run(2000)
    assert len(network.sent) > 3 and {required(each.message) for each in network.sent} == {(b"gin", b"gin")}
    network.registrations.unregister("acc000001", network.now)
    network.run(1)
    last = network.sent[-1]
    assert (last.contact, required(last.message)) == (f"{CONTACT};expires=0", (b"gin", b"gin"))


def test_other_accounts_require_nothing() -> None:
    network = Network(granting())
    registered(network)
    assert required(network.sent[0].message) == (None, None)


@pytest.mark.parametrize(("changes", "contact"), [
    ({"contact_addr": "203.0.113.5;ob"}, "<sip:203.0.113.5;ob;bnc;line=acc000001>"),
    ({"contact_user": "4930"}, CONTACT),
    ({"l_uuid": "a;b"}, "<sip:192.0.2.1:5060;bnc;line=a%3Bb>"),
    ({"auth_proxy": "sip:192.0.2.9:5070;transport=tcp"}, "<sip:192.0.2.1:5060;transport=tcp;bnc;line=acc000001>"),
])  # fmt: skip
def test_forms_of_its_contact(changes: dict[str, object], contact: str) -> None:
    network = Network(granting())
    network.endpoint.add_listener("tcp", "192.0.2.1", 5060)
    registered(network, gin=True, **changes)
    assert network.sent[0].contact == contact


@pytest.mark.rfc("6140", "5.3")
@pytest.mark.parametrize("contact_addr", ["203.0.113.5;user=phone", "203.0.113.5;LINE=x"])
def test_what_may_not_stand_in_it_is_not_sent(contact_addr: str) -> None:
    network = Network(granting())
    network.registrations.change(account(gin=True, contact_addr=contact_addr), network.now)
    network.run(1)
    assert not network.sent and network.last().cause == "bad_row"


@pytest.mark.parametrize(("listed", "granted"), [
    (["<sip:203.0.113.9;bnc>;expires=3000", f"{CONTACT};expires=90"], 90),
    (["<sip:203.0.113.9;bnc;line=other>;expires=3000", "<sip:10.0.0.1;bnc;line=acc000001>;expires=80"], 80),
    (["<sip:phone@203.0.113.9>;expires=3000", "<sip:192.0.2.1:5060;bnc>;expires=70"], 70),
    (["<sip:phone@203.0.113.9>;expires=3000", "<sip:fax@203.0.113.9>;expires=70"], None),
])  # fmt: skip
def test_which_contact_of_the_answer_is_ours(listed: list[str], granted: int | None) -> None:
    network = Network(lambda message: (200, "OK", [f"Contact: {', '.join(listed)}"]))
    network.registrations.change(account(gin=True), network.now)
    network.run(1)
    last = network.last()
    assert (last.state is State.REGISTERED, last.granted) == (granted is not None, granted)


def test_a_provider_without_it_is_told_apart() -> None:
    def refusing(message: Message) -> Reply:
        return 420, "Bad Extension", ["Unsupported: gin"]

    network = Network(refusing)
    network.registrations.change(account(gin=True), network.now)
    network.run(1)
    assert (network.last().state, network.last().cause) == (State.REFUSED, "no_gin")
    network.answer = granting()
    network.registrations.change(account(), network.now)
    network.run(1)
    assert network.last().state is State.REGISTERED and required(network.sent[-1].message) == (None, None)
    plain = Network(refusing)
    plain.registrations.change(account(), plain.now)
    plain.run(1)
    assert (plain.last().state, plain.last().cause) == (State.REFUSED, "answer"), "it asked for nothing of the kind"


def test_switched_off_the_bulk_binding_is_taken_back_as_one() -> None:
    network = Network(granting())
    registered(network, gin=True)
    network.registrations.change(account(), network.now)
    network.run(1)
    back, new = network.sent[1:]
    assert (back.contact, required(back.message)) == (f"{CONTACT};expires=0", (b"gin", b"gin"))
    assert (new.contact, required(new.message)) == ("<sip:acc000001@192.0.2.1:5060>", (None, None))


def test_a_restart_goes_on_with_it() -> None:
    before = Network(granting())
    registered(before, gin=True)
    after = Network(granting(), now=before.now + 5, seed=77777)
    after.registrations.load(account(gin=True), record(before), after.now)
    after.run(5)
    assert not after.sent and after.last().state is State.REGISTERED
    moved = Network(granting(), now=before.now + 5, seed=77777)
    contact = "sip:192.0.2.1:5099;bnc;line=acc000001"
    moved.registrations.load(account(gin=True), record(before, contact=contact), moved.now)
    moved.run(1)
    assert len(moved.sent) == 1


def test_behind_nat_it_is_kept_over_a_restart_too() -> None:
    before = Nat(granting())
    registered(before, gin=True)
    last = before.last()
    assert last.contact == f"sip:{PUBLIC};bnc;line=acc000001"
    after = Nat(granting(), now=before.now + 5, seed=77777)
    kept = record(before, local_address=last.local_address, seen_address=last.seen_address)
    after.registrations.load(account(gin=True), kept, after.now)
    after.run(5)
    assert not after.sent and after.last().state is State.REGISTERED


def test_a_query_requires_nothing_and_a_trial_binding_is_another_line() -> None:
    network = Network(granting())
    trial = Trial(network.registrations, account(gin=True), (), 5.0)
    trial.query(lambda outcome: None).start(network.now)
    trial.register(lambda outcome: None).start(network.now)
    network.run(1)
    query, bound = network.sent
    assert required(query.message) == (None, None) and not query.contact
    assert required(bound.message) == (b"gin", b"gin") and bound.contact == CONTACT.replace("acc000001", trial.name)


BULK = UacAccount("bulk", "pbx", "pbx.example", "t1", REALM, gin=True)
PLAIN = UacAccount("plain", "alice", "pbx.example", "t2", REALM, contact_user="4930")
TABLE = AccountTable([BULK, PLAIN])


@pytest.mark.parametrize(("user", "line", "uri", "called"), [
    (b"+498912345", b"bulk", b"sip:+498912345@pbx.example", "+498912345"),
    (b"%2B49%3B89", b"bulk", b"sip:%2B49%3B89@pbx.example", "+49;89"),
    (b"+4989;phone-context=x", b"bulk", b"sip:+4989;phone-context=x@pbx.example", "+4989;phone-context=x"),
    (b"plain", b"bulk", b"sip:plain@pbx.example", "plain"),
    (b"", b"bulk", b"sip:pbx@pbx.example", "pbx"),
    (b"bulk", b"", b"sip:pbx@pbx.example", "pbx"),
    (b"4930", b"plain", b"sip:alice@pbx.example", "alice"),
])  # fmt: skip
def test_the_number_stays_who_is_called(user: bytes, line: bytes, uri: bytes, called: str) -> None:
    row = TABLE.uac_reg_lookup(user, line)
    assert row is not None and (row.contact_uri, row.user) == (uri, called)


def test_a_number_without_line_is_nobodys_here() -> None:
    assert TABLE.uac_reg_lookup(b"+498912345") is None
    assert [row.l_uuid for row in TABLE.gin] == ["bulk"]
    assert not TABLE.with_account(replace(BULK, gin=False)).gin and not TABLE.without("bulk").gin
    assert [row.l_uuid for row in TABLE.gin] == ["bulk"], "patches leave the old picture alone"
