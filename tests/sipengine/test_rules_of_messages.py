"""What a message may hold and what it may not, as the peers of the endpoint see it (checklist, part A)."""

from __future__ import annotations

from typing import Any

import pytest

from sipengine.exceptions import ParseError
from sipengine.message import parse
from sipengine.message.uri import SipUri
from sipengine.message.values import tag_of
from sipengine.proxy.validation import clean_ruri, refusal, salvage
from tests.sipengine.net import Net, reply, starts


def relayed(net: Net, data: bytes) -> bytes:
    """What the far side gets for a request that is served."""
    net.routing.anonymous = False
    net.send(net.provider, data)
    (sent,) = net.phone.take()
    return sent


def refused(data: bytes) -> bytes:
    """Status of the only answer; nobody else hears of it."""
    net = Net()
    net.send(net.provider, data)
    assert not net.phone.take()
    (answer,) = net.provider.take()
    return answer[8:11]


def test_a_field_without_its_colon_is_not_copied_into_the_400() -> None:
    message = salvage(b"CANCEL sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nTo\r\nCSeq: 1 CANCEL\r\n\r\n")
    assert message is not None
    assert parse(refusal(message, ParseError("no colon"), b"t")).status == 400


@pytest.mark.checklist("A1")
def test_bytes_that_are_no_text_pass_unchanged() -> None:
    net = Net()
    body = bytes(range(256))
    fields = b'X-Name: "\xc3\x28 \\\x00"\r\nSubject: \xff\xfe\r\n'.replace(b"\\\x00", b"\xf5")
    data = net.invite(extra=fields).replace(b"Content-Length: 0", b"Content-Length: 256") + body
    sent = relayed(net, data)
    assert fields in sent and sent.endswith(b"\r\n\r\n" + body)


@pytest.mark.checklist("A6")
def test_parameters_without_brackets_are_the_fields() -> None:
    assert tag_of(b"From: sip:a@b.example;tag=1;x=2") == b"1"
    assert tag_of(b"From: <sip:a@b.example;tag=no>;tag=1") == b"1"
    for uri in (b"sip:a@b.example?x=y", b"sip:a,b@b.example"):
        net = Net()
        data = net.invite()
        line = next(line for line in data.split(b"\r\n") if line.startswith(b"From:"))
        assert refused(data.replace(line, b"From: " + uri + b";tag=ct")) == b"400"


@pytest.mark.checklist("A7")
@pytest.mark.parametrize("user", [b"user;par=u%40example.net", b"a:b;c&d/e?f", b"null-%00-null", b"%75ser"])
def test_a_user_part_stays_as_it_is(user: bytes) -> None:
    text = b"sip:%b@b.example;lr" % user
    uri = SipUri.parse(text)
    assert (uri.user, uri.host, uri.parameters) == (user, b"b.example", b";lr") and bytes(uri) == text


@pytest.mark.checklist("A10")
@pytest.mark.parametrize(("field", "value"), [
    (b"CSeq: 1 INVITE", b"CSeq: 2147483648 INVITE"), (b"CSeq: 1 INVITE", b"CSeq: -1 INVITE"),
    (b"CSeq: 1 INVITE", b"CSeq: %b INVITE" % (b"9" * 400)), (b"Max-Forwards: 70", b"Max-Forwards: 256"),
    (b"Max-Forwards: 70", b"Max-Forwards: -1"), (b"Content-Length: 0", b"Content-Length: -1"),
])  # fmt: skip
def test_numbers_out_of_bounds_are_refused(field: bytes, value: bytes) -> None:
    assert refused(Net().invite().replace(field, value)) == b"400"


@pytest.mark.checklist("A10")
def test_leading_zeros_are_fine_and_a_strange_status_is_dropped() -> None:
    net = Net()
    data = net.invite().replace(b"CSeq: 1 INVITE", b"CSeq: 0001 INVITE")
    invite = parse(relayed(net, data.replace(b"Max-Forwards: 70", b"Max-Forwards: 070")))
    assert invite.cseq[0] == 1 and int(invite.get(b"Max-Forwards") or 0) == 69
    net.provider.take()
    for status in (b"99 Low", b"700 High", b"2000 Long", b"20x None", b"\xb2\xb2\xb2 Superscript"):
        net.send(net.phone, reply(invite, status))
    assert not net.provider.take()


@pytest.mark.checklist("A11")
@pytest.mark.parametrize("name", [b"From", b"To", b"Call-ID", b"CSeq", b"Max-Forwards", b"Content-Length"])
def test_fields_that_come_once_come_once(name: bytes) -> None:
    data = Net().invite()
    line = next(line for line in data.split(b"\r\n") if line.startswith(name + b":"))
    assert refused(data.replace(line, line + b"\r\n" + line)) == b"400"


@pytest.mark.checklist("A11")
def test_the_method_of_cseq_is_the_requests() -> None:
    data = Net().invite()
    assert refused(data.replace(b"1 INVITE", b"1 OPTIONS")) == b"400"
    assert refused(data.replace(b"INVITE sip", b"NEWMETHOD sip")) == b"501"


@pytest.mark.checklist("A12")
def test_a_broken_ack_is_not_answered() -> None:
    net = Net()
    data = net.invite().replace(b"INVITE sip", b"ACK sip").replace(b"1 INVITE", b"x ACK")
    net.send(net.provider, data)
    assert not net.provider.take() and net.endpoint.counters.bad == 1


@pytest.mark.checklist("A13")
def test_another_version_is_505_and_headers_leave_a_request_uri() -> None:
    data = Net().invite()
    assert refused(data.replace(b" SIP/2.0\r\nVia", b" SIP/7.0\r\nVia", 1)) == b"505"
    assert refused(data.replace(b"INVITE sip:acc1@192.0.2.5 ", b"INVITE <sip:acc1@192.0.2.5> ")) == b"400"
    assert refused(data.replace(b"INVITE sip:", b"INVITE  sip:")) == b"400"
    assert clean_ruri(b"sip:a@b.example;x=y?Route=%3Csip:evil.example%3E") == b"sip:a@b.example;x=y"


@pytest.mark.checklist("A14")
@pytest.mark.parametrize("line", [b"486", b"486 ", b"486 = 2**3 * 9**2 \xd0\xbd\xd0\xbe", b"486 Busy: \xe2\x98\x8e"])
def test_a_reason_may_be_anything(line: bytes) -> None:
    net = Net()
    invite = parse(relayed(net, net.invite()))
    net.provider.take()
    net.send(net.phone, reply(invite, line))
    (answer,) = net.provider.take()
    assert answer.split(b"\r\n")[0].rstrip() == b"SIP/2.0 " + line.rstrip()


@pytest.mark.checklist("A15")
@pytest.mark.parametrize("extra", [
    b"X: y\r\n" * 300, b"X: %b\r\n" % (b"y" * 9000), b"X: %b\r\n" % (b"y" * 8000) * 5,
    b"Via: SIP/2.0/UDP a.example\r\n" * 71, b"Route: %b\r\n" % b",".join([b"<sip:proxy-with-a-name.example;lr>"] * 65),
], ids=["fields", "line", "section", "Via", "Route"])  # fmt: skip
def test_what_is_over_a_limit_is_refused(extra: bytes) -> None:
    assert refused(Net().invite(extra=extra)) == b"400"


@pytest.mark.checklist("A15")
def test_a_long_request_of_the_rfcs_kind_passes() -> None:
    net = Net()
    extra = b"Via: SIP/2.0/UDP sip33.example.com;branch=z9hG4bKl\r\n" * 33 + b"X-Long: %b\r\n" % (b"z" * 2000)
    assert extra.split(b"\r\n")[-2] in relayed(net, net.invite(extra=extra))


@pytest.mark.checklist("A16")
def test_a_request_without_length_leaves_with_one() -> None:
    net = Net()
    assert b"\r\nContent-Length: 0\r\n" in relayed(net, net.invite().replace(b"Content-Length: 0\r\n", b""))
    net.send(net.phone, reply(parse(net.phone.log[0]), b"486 Busy Here").replace(b"Content-Length: 0", b"X: y"))
    assert b"Content-Length: 0" in net.provider.take()[-1]


@pytest.mark.checklist("A18")
def test_tel_uris_pass() -> None:
    net = Net()
    data = net.invite()
    line = next(line for line in data.split(b"\r\n") if line.startswith(b"From:"))
    tel = b"From: <tel:+49-89-1234;phone-context=example.com>;tag=ct"
    assert tel in relayed(net, data.replace(line, tel))


@pytest.mark.checklist("A20")
def test_sloppy_messages_are_served() -> None:
    for bend in (
        lambda data: data.replace(b"\r\n", b"\n"), lambda data: data + b"\0" * 20, lambda data: data[:-2],
        lambda data: data.replace(b"Max-Forwards: 70\r\n", b""),
    ):  # fmt: skip
        net = Net()
        sent = relayed(net, bend(net.invite()))
        assert starts([sent]) == [b"INVITE"] and b"\n" not in sent.replace(b"\r\n", b"")
        assert b"\r\nMax-Forwards: " in sent


@pytest.mark.checklist("A17")
def test_a_display_name_that_we_build_escapes_backslash_and_quote_only() -> None:
    net = Net()
    name = 'a "b" \\ c; é'.encode()
    net.routing.anonymous = False

    def decide(context: Any) -> None:
        context.uac_replace_from(name, b"sip:x@y.example")
        net.routing.inbound(context)

    net.routing.decide = decide
    net.send(net.provider, net.invite())
    written = b'"%b"' % name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    assert b"From: %b <sip:x@y.example>;tag=" % written in net.phone.take()[0]
