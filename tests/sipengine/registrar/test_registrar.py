"""A registrar's rules, one by one (RFC 3261 §10.3), and the way to what is bound."""

from __future__ import annotations

import pytest

from sipengine.events import BindingChanged, Target
from sipengine.registrar.registrar import MAX_EXPIRES, Device
from sipengine.transport.flow import Flow
from sipengine.uac.digest import Credentials
from tests.sipengine.registrar.phone import ALICE, HOME, MD5_ONLY, Office, Phone

CONTACT = b"<sip:alice@203.0.113.7:5062>"
BOB = Device("bob@pbx.example", Credentials(b"bob", b"builder"))
OTHER = b"<sip:alice@203.0.113.7:5064>"


@pytest.fixture
def office() -> Office:
    return Office()


def refused(office: Office, phone: Phone, *contacts: bytes, **more: object) -> tuple[int, bytes]:
    """The answer to a REGISTER that must change nothing."""
    before, events = office.contacts(), len(office.events)
    reply = phone.register(*contacts, **more)  # type: ignore[arg-type]
    assert office.contacts() == before and len(office.events) == events
    return reply.status, reply.reason


@pytest.mark.rfc("3261", "10.3")
def test_a_binding_is_made_told_and_listed(office: Office) -> None:
    reply = Phone(office).register(CONTACT + b";expires=300;q=0.5")
    assert reply.status == 200
    assert reply.lines == (b"Contact: <sip:alice@203.0.113.7:5062>;expires=300;q=0.500",)
    [event] = office.events
    assert isinstance(event, BindingChanged)
    assert (event.aor, event.contact, event.q) == (ALICE.aor, "sip:alice@203.0.113.7:5062", 500)
    assert (event.expires_at, event.source, event.gone) == (office.now + 300, HOME, False)


@pytest.mark.rfc("3261", "10.3")
def test_without_contact_it_is_a_question(office: Office) -> None:
    phone = Phone(office)
    phone.register(CONTACT)
    office.run(100)
    reply = phone.register()
    assert reply.status == 200 and reply.lines == (b"Contact: <sip:alice@203.0.113.7:5062>;expires=3500;q=1.000",)
    assert len(office.events) == 1


@pytest.mark.rfc("3261", "10.3")
@pytest.mark.checklist("M5")
def test_nobody_registers_somebody_else(office: Office) -> None:
    phone = Phone(office)
    assert refused(office, phone, CONTACT, to=b"<sip:bob@pbx.example>")[0] == 403
    assert refused(office, phone, CONTACT, sender=b"<sip:boss@pbx.example>")[0] == 403
    assert not office.contacts(MD5_ONLY.aor)


def test_a_domain_that_is_not_ours(office: Office) -> None:
    assert refused(office, Phone(office), CONTACT, to=b"<sip:alice@elsewhere.example>")[0] == 404


@pytest.mark.rfc("3261", "10.3")
def test_the_address_of_record_is_compared_without_its_spelling(office: Office) -> None:
    reply = Phone(office).register(CONTACT, to=b'"A" <sip:%61lice@PBX.example:5060;transport=udp>')
    assert reply.status == 200 and office.contacts() == [b"sip:alice@203.0.113.7:5062"]


@pytest.mark.rfc("3261", "10.3")
def test_an_extension_that_we_do_not_know_is_named(office: Office) -> None:
    reply = Phone(office).register(CONTACT, extra=[b"Require: path, gruu"])
    assert (reply.status, reply.lines) == (420, (b"Unsupported: gruu",))


@pytest.mark.rfc("3261", "10.3")
def test_intervals(office: Office) -> None:
    phone = Phone(office)
    status, _ = refused(office, phone, CONTACT + b";expires=59")
    assert status == 423
    assert phone.register(CONTACT + b";expires=10").lines == (b"Min-Expires: 60",)
    phone.register(CONTACT + b";expires=60", extra=[b"Expires: 100"])  # its own goes before the header's
    assert office.events[-1].expires_at == office.now + 60
    phone.register(CONTACT, extra=[b"Expires: 100"])
    assert office.events[-1].expires_at == office.now + 100
    phone.register(CONTACT + b";expires=soon")  # what cannot be read is not there
    assert office.events[-1].expires_at == office.now + 3600
    phone.register(CONTACT + b";expires=9999999999")
    assert office.events[-1].expires_at == office.now + MAX_EXPIRES


@pytest.mark.rfc("3261", "10.3")
def test_an_end_by_zero_and_by_time(office: Office) -> None:
    phone = Phone(office)
    phone.register(CONTACT, OTHER + b";expires=60")
    assert len(office.contacts()) == 2
    reply = phone.register(CONTACT + b";expires=0")
    assert office.contacts() == [b"sip:alice@203.0.113.7:5064"] and len(reply.lines) == 1
    office.run(60)
    assert not office.contacts() and not len(office.location)
    assert [event.gone for event in office.events] == [False, False, True, True]


@pytest.mark.rfc("3261", "10.3")
@pytest.mark.checklist("M5")
def test_a_star_ends_all_and_goes_alone(office: Office) -> None:
    phone = Phone(office)
    phone.register(CONTACT, OTHER)
    assert refused(office, phone, b"*")[0] == 400
    assert refused(office, phone, b"*", extra=[b"Expires: 60"])[0] == 400
    assert refused(office, phone, b"*", CONTACT, extra=[b"Expires: 0"])[0] == 400
    reply = phone.register(b"*", extra=[b"Expires: 0"])
    assert (reply.status, reply.lines) == (200, ()) and not office.contacts()


@pytest.mark.rfc("3261", "10.3")
def test_a_late_request_of_the_same_call_changes_nothing(office: Office) -> None:
    phone = Phone(office)
    phone.register(CONTACT, cseq=7)
    assert refused(office, phone, CONTACT + b";expires=0", cseq=7)[0] == 500
    assert refused(office, phone, b"*", extra=[b"Expires: 0"], cseq=6)[0] == 500
    again = Phone(office, call_id=b"after-a-restart")
    assert again.register(CONTACT, cseq=1).status == 200
    assert office.events[-1].ruid == office.events[0].ruid


@pytest.mark.rfc("3261", "10.3")
def test_all_or_nothing(office: Office) -> None:
    """One Contact of several that may not be: the others are not bound either."""
    phone = Phone(office)
    phone.register(OTHER, cseq=9)
    for bad in (b"<sip:alice@203.0.113.7:5066>;expires=5", b"<tel:+4930>", b"<sip:alice@192.0.2.20>", b"<sip:alice@>"):
        assert refused(office, phone, CONTACT, bad)[0] in (400, 403, 423)
    assert refused(office, phone, CONTACT, OTHER, cseq=8)[0] == 500


def test_a_contact_that_is_named_twice_is_one(office: Office) -> None:
    Phone(office).register(CONTACT + b";q=0.1", CONTACT + b";q=0.2")
    assert [event.q for event in office.events] == [200]


@pytest.mark.checklist("M5")
def test_a_contact_that_is_no_devices_own(office: Office) -> None:
    """Neither ourselves (a loop) nor a configured provider or PBX."""
    for uri in (b"<sip:alice@192.0.2.5:5060>", b"<sip:alice@192.0.2.5>", b"<sip:alice@192.0.2.20:5080>"):
        assert refused(office, Phone(office), uri)[0] == 403
    assert refused(office, Phone(office), b"<sip:%b@203.0.113.7>" % (b"a" * 300))[0] == 400


@pytest.mark.checklist("M5")
def test_of_too_many_contacts_the_oldest_goes(office: Office) -> None:
    phone = Phone(office)
    assert refused(office, phone, CONTACT, OTHER, b"<sip:alice@203.0.113.7:5066>")[0] == 403
    for port in (5062, 5064, 5066):
        assert phone.register(b"<sip:alice@203.0.113.7:%d>" % port).status == 200
        office.run(1)
    assert office.contacts() == [b"sip:alice@203.0.113.7:5066", b"sip:alice@203.0.113.7:5064"]


@pytest.mark.rfc("3261", "19.1.4")
def test_the_same_contact_spelled_otherwise_is_the_same_binding(office: Office) -> None:
    phone = Phone(office)
    phone.register(b"<sip:%61lice@203.0.113.7:5062;Foo=a;transport=UDP>")
    phone.register(b"<sip:alice@203.0.113.7:5062;transport=udp>")
    assert len(office.contacts()) == 1


def test_order_is_by_q_then_the_youngest(office: Office) -> None:
    phone = Phone(office)
    phone.register(CONTACT + b";q=0.3")
    office.run(1)
    phone.register(OTHER + b";q=0.8")
    assert office.contacts() == [b"sip:alice@203.0.113.7:5064", b"sip:alice@203.0.113.7:5062"]
    assert phone.register(CONTACT + b";q=much").status == 200


# the way there
def hops(office: Office) -> list[bytes | None]:
    return [binding.hop for binding in office.location.of(ALICE.aor, office.now)]


@pytest.mark.checklist("M5")
def test_calls_go_to_where_the_register_came_from(office: Office) -> None:
    """Another port of that host may be named, another host may not: behind NAT it would not be reached anyway."""
    phone = Phone(office)
    phone.register(b"<sip:alice@203.0.113.7:5090;transport=tcp>")
    assert hops(office) == [b"sip:203.0.113.7:5090;transport=tcp"]
    phone.register(b"*", extra=[b"Expires: 0"])
    phone.register(b"<sip:alice@10.0.0.5:5060>")
    assert hops(office) == [b"sip:203.0.113.7:5062"]
    phone.register(b"*", extra=[b"Expires: 0"])
    phone.register(b"<sip:alice@victim.example>", extra=[b"Path: <sip:198.51.100.1;lr>"])
    assert hops(office) == [b"sip:203.0.113.7:5062"]


@pytest.mark.rfc("3327", "5.3")
def test_path_is_kept_and_given_back(office: Office) -> None:
    path = [b"Path: <sip:203.0.113.7:5070;lr>", b"Path: <sip:p2.example;lr>", b"Supported: path"]
    reply = Phone(office).register(b"<sip:alice@10.0.0.5>", extra=path)
    assert reply.lines[-1] == b"Path: <sip:203.0.113.7:5070;lr>, <sip:p2.example;lr>"
    [binding] = office.location.of(ALICE.aor, office.now)
    assert binding.path == (b"<sip:203.0.113.7:5070;lr>", b"<sip:p2.example;lr>")
    assert binding.hop == b"sip:203.0.113.7:5070"
    assert refused(office, Phone(office, call_id=b"x"), CONTACT, extra=[b"Path: <sip:%b;lr>" % (b"p" * 300)])[0] == 400


@pytest.mark.rfc("5626", "5.3")
@pytest.mark.parametrize("transport", ["tcp", "tls"])
def test_a_device_is_reached_over_its_connection(office: Office, transport: str) -> None:
    flow, by = office.flow((HOME[0], 40123), transport), b";transport=" + transport.encode()
    phone = Phone(office)
    phone.register(b"<sip:alice@10.0.0.5:5060%b>" % by, flow=flow)
    assert hops(office) == [b"sip:203.0.113.7:40123" + by]
    office.transport.close(flow)
    assert hops(office) == [None]  # nobody listens there
    office.run(1)
    phone.register(b"<sip:alice@203.0.113.7:5060%b>" % by, flow=flow)
    assert hops(office)[0] == b"sip:203.0.113.7:5060" + by


def leads(office: Office, uri: bytes) -> list[Target]:
    found: list[Target] = []
    office.locator.locate(uri, lambda targets, now: found.extend(targets), office.now)  # type: ignore[arg-type]
    return found


@pytest.mark.rfc("5626", "5.3")
def test_requests_within_calls_find_a_device_behind_nat(office: Office) -> None:
    private = b"sip:alice@10.0.0.5:5060;ob"
    assert leads(office, private) == [Target("udp", ("10.0.0.5", 5060))]
    phone = Phone(office)
    phone.register(b"<sip:alice@10.0.0.5:5060>")
    assert leads(office, private) == [Target("udp", HOME)]
    assert leads(office, b"sip:carol@10.0.0.5:5060") == [Target("udp", ("10.0.0.5", 5060))]
    office.registrar.device_of = {each.aor: each for each in (ALICE, BOB)}.get
    Phone(office, BOB, b"b").register(b"<sip:alice@10.0.0.5:5060>", flow=office.flow(("203.0.113.9", 5060)))
    assert leads(office, private) == [Target("udp", HOME)]  # not taken over
    phone.register(b"*", extra=[b"Expires: 0"])
    assert leads(office, private) == [Target("udp", ("10.0.0.5", 5060))]
    flow = office.flow((HOME[0], 40123), "tcp")
    phone.register(b"<sip:alice@abc.invalid;transport=ws>", flow=flow)
    assert leads(office, b"sip:alice@abc.invalid;transport=ws") == [Target("tcp", flow.remote)]
    phone.register(b"<sip:alice@203.0.113.7:5090>")  # it is reached by itself
    assert leads(office, b"sip:alice@203.0.113.7:5090") == [Target("udp", (HOME[0], 5090))]


def test_a_connection_that_a_device_opened_serves_whichever_listener_a_call_came_in_by(office: Office) -> None:
    second = office.transport.add_listener("tcp", "192.0.2.5", 5070)
    accepted = Flow(second, (HOME[0], 40123), accepted=True)
    second.flows[accepted.remote] = accepted
    assert office.flow(accepted.remote, "tcp") is accepted
    opened = office.transport.flow_for(second, ("203.0.113.8", 5060))
    assert office.flow(opened.remote, "tcp") is not opened  # that one was asked for from there
    office.transport.close(accepted)
    assert office.flow(accepted.remote, "tcp") is not accepted


@pytest.mark.rfc("5626", "6")
def test_instance_and_reg_id_are_the_identity(office: Office) -> None:
    phone = Phone(office)
    device = b';+sip.instance="<urn:uuid:1>";reg-id=1'
    reply = phone.register(CONTACT + device, extra=[b"Supported: outbound"])
    assert reply.lines[-1] == b"Require: outbound" and b'+sip.instance="<urn:uuid:1>";reg-id=1' in reply.lines[0]
    phone.register(OTHER + device, extra=[b"Supported: outbound"])
    assert office.contacts() == [b"sip:alice@203.0.113.7:5064"]
    reply = phone.register(CONTACT + device)  # without the option tag reg-id means nothing
    assert len(office.contacts()) == 2 and reply.lines[-1] != b"Require: outbound"


def test_bindings_come_back_as_they_were_told(office: Office) -> None:
    office.location.on_address = (heard := []).append
    phone = Phone(office)
    phone.register(CONTACT + b";q=0.7", extra=[b"Path: <sip:203.0.113.7:5070;lr>"])
    phone.register(OTHER + b";expires=60")
    assert list(office.location.domains_at(HOME[0])) == ["pbx.example"] and heard == [HOME[0]]
    told = list(office.events)
    later = Office()
    later.now = office.now + 61
    assert later.location.load([*told, told[0]], later.now) == 1
    assert later.contacts() == [b"sip:alice@203.0.113.7:5062"] and not later.events
    [binding] = later.location.of(ALICE.aor, later.now)
    assert (binding.path, binding.q, binding.hop) == ((b"<sip:203.0.113.7:5070;lr>",), 700, b"sip:203.0.113.7:5070")
    late = Phone(later, call_id=b"call1")
    assert refused(later, late, CONTACT, cseq=1)[0] == 500
    assert late.register(CONTACT, cseq=3).status == 200
    assert later.location.unbind_ruid(told[0].ruid) and not later.location.unbind_ruid(told[0].ruid)
    assert not list(later.location.domains_at(HOME[0])) and later.events[-1].gone


def test_a_device_that_is_no_more_loses_its_bindings(office: Office) -> None:
    Phone(office).register(CONTACT, OTHER)
    office.location.unbind_all(ALICE.aor)
    assert not office.contacts() and not len(office.location)
    office.location.unbind_all(ALICE.aor)
