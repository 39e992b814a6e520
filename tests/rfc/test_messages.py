"""Part A of the checklist: what a message may look like, through the whole engine (RFC 3261 §7, §19, §20, §25)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipengine.exceptions import ParseError
from sipengine.message import SipUri, Via, parse
from sipengine.message.message import MAX_HEAD, MAX_LINE, MAX_LINES, MAX_PARAMETERS, MAX_ROUTES, MAX_VIAS
from sipengine.message.values import split_list
from sipengine.proxy.context import ResponseContext
from sipengine.proxy.validation import clean_ruri, tag_of_proper
from sipengine.uac import digest
from tests.sipengine.net import PROXY, Net, reply


def plain(net: Net) -> Net:
    """Relay everything to the phone and touch nothing."""

    def decide(context: ResponseContext) -> None:
        context.du = b"sip:192.0.2.9:5060"
        context.t_relay()

    net.routing.decide = decide
    return net


def request(
    *lines: bytes, start: bytes = b"MESSAGE sip:acc1@192.0.2.5 SIP/2.0", cseq: bytes = b"CSeq: 1 MESSAGE",
    from_: bytes = b"From: <sip:a@b>;tag=1", to: bytes = b"To: <sip:c@d>", call_id: bytes = b"Call-ID: m1",
    via: bytes = b"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKm1", body: bytes = b"", length: bytes | None = None,
) -> bytes:  # fmt: skip
    size = b"Content-Length: %d" % len(body) if length is None else length
    head = [start, via, from_, to, call_id, cseq, *lines, *([size] if size else [])]
    return b"\r\n".join([*(line for line in head if line), b"", body])


def answers(data: bytes) -> tuple[list[int], list[bytes]]:
    """Statuses that the provider got, and what the phone got."""
    net = plain(Net())
    net.provider.send(data, PROXY)
    net.run(0.05)
    return [int(m[8:11]) for m in net.provider.take()], net.phone.take()


NAMES = st.sampled_from([b"Subject", b"s", b"X-Odd", b"x-oDD", b"Supported", b"k", b"Event", b"o", b"Warning", b"Date"])
BYTES = st.binary(max_size=20).map(lambda b: b.translate(None, b"\r\n"))
FOLD = st.sampled_from([b"", b" ", b"\t", b"\r\n ", b"\r\n\t "])
LINES = st.lists(
    st.tuples(NAMES, st.sampled_from([b":", b" :", b"\t: ", b": "]), FOLD, BYTES, FOLD, BYTES).map(b"".join), max_size=6
)


@pytest.mark.checklist("A1")
@pytest.mark.checklist("A2")
@pytest.mark.checklist("A3")
@pytest.mark.checklist("A5")
@pytest.mark.rfc("3261", "16.6")
@pytest.mark.rfc("4475", "3.1.1.9")
@pytest.mark.rfc("4475", "3.1.1.11")
@settings(max_examples=60, deadline=None)
@given(lines=LINES, display=BYTES, body=st.binary(max_size=60))
def test_what_nobody_edits_leaves_byte_for_byte_and_in_its_order(
    lines: list[bytes], display: bytes, body: bytes
) -> None:
    quoted = b'"' + display.replace(b"\\", b"").replace(b'"', b"") + b'"'
    data = request(*lines, from_=b"f :\r\n " + quoted + b"<sip:a@b>;tag=1;\xff=\xfe", body=body)
    _, went = answers(data)
    assert len(went) == 1
    came, out = parse(data), parse(went[0])
    own = (b"via", b"max-forwards")
    kept = [line for key, line in zip(out.keys, out.lines, strict=True) if key not in own]
    assert kept == [line for key, line in zip(came.keys, came.lines, strict=True) if key not in own]
    assert out.body == body


@pytest.mark.checklist("A3")
@pytest.mark.rfc("3261", "7.3.1")
def test_folded_via_cseq_and_length_are_read_and_what_we_write_is_not_folded() -> None:
    via = b"v\t:\r\n SIP / 2.0\r\n / UDP\r\n\t192.0.2.1:5060 ; branch\r\n = z9hG4bKm1"
    statuses, went = answers(request(via=via, cseq=b"cseq :\r\n 0009\r\n\tMESSAGE", body=b"x", length=b"l:\r\n 1"))
    assert statuses == [] and len(went) == 1
    out = parse(went[0])
    assert out.cseq == (9, b"MESSAGE") and out.body == b"x"
    assert b"\n" not in out.lines[0], "our own Via"


@pytest.mark.checklist("A4")
@pytest.mark.rfc("3261", "7.3.1")
def test_only_lists_are_split_and_challenges_never() -> None:
    message = parse(
        b'SIP/2.0 401 x\r\nWWW-Authenticate: Digest realm="a,b", nonce="c"\r\nDate: Sat, 13 Nov\r\nSubject: a, b\r\n'
        b'X-Odd: a, b\r\nUser-Agent: a, b\r\nContact: "A, \\", B" <sip:a,b@c>, <sip:d>\r\nSupported: x,y\r\n\r\n'
    )
    for whole in (b"WWW-Authenticate", b"Date", b"Subject", b"X-Odd", b"User-Agent"):
        assert len(message.get_list(whole)) == 1, whole
    assert [c.uri for c in message.contacts] == [b"sip:a,b@c", b"sip:d"]
    assert message.get_list(b"k") == [b"x", b"y"]


@pytest.mark.checklist("A6")
@pytest.mark.rfc("3261", "20.10")
@pytest.mark.rfc("4475", "3.1.2.14")
def test_without_angles_parameters_belong_to_the_field() -> None:
    assert tag_of_proper(b"From: sip:a@b;tag=1") == b"1" and tag_of_proper(b"From: <sip:a@b;tag=1>") == b""
    for broken in (
        b"From: sip:a@b?x=y", b"To: sip:a@b, sip:c@d", b"To: < sip:a@b >", b"From: A, B <sip:a@b>;tag=1",
        b'To: "open <sip:a@b>', b"From: <sip:a@b", b'From: "x" y <sip:a@b>;tag=1', b"From: ;tag=1", b"To: nothing",
        b"From: <sip:a b>;tag=1", b'From: "a\\" <sip:a@b>;tag=1',
    ):  # fmt: skip
        with pytest.raises(ParseError):
            tag_of_proper(broken)
        name = {b"From": "from_", b"To:": "to"}.get(broken[:4].strip(), "to")
        statuses, went = answers(request(**{name: broken}))  # type: ignore[arg-type]
        assert statuses == [400] and went == [], broken


@pytest.mark.checklist("A7")
@pytest.mark.rfc("4475", "3.1.1.2")
@pytest.mark.rfc("4475", "3.1.1.4")
@pytest.mark.parametrize("user", [b"a;b=c", b"a/b?c&d", b"a:pw", b"sips%3Aa%40b.example", b"null-%00-null", b"%61"])
def test_the_user_part_goes_on_as_it_came(user: bytes) -> None:
    ruri = b"sip:%b@192.0.2.5" % user
    _, went = answers(request(start=b"MESSAGE %b SIP/2.0" % ruri))
    assert parse(went[0]).ruri == ruri
    assert SipUri.parse(ruri).user == user and SipUri.parse(ruri).host == b"192.0.2.5"
    if user == b"%61":
        assert SipUri.parse(ruri).equivalent(SipUri.parse(b"sip:a@192.0.2.5"))


@pytest.mark.checklist("A10")
@pytest.mark.rfc("3261", "8.1.1.5")
@pytest.mark.parametrize(("line", "status"), [
    (b"CSeq: 2147483647 MESSAGE", 0), (b"CSeq: 2147483648 MESSAGE", 400), (b"CSeq: 4294967296 MESSAGE", 400),
    (b"CSeq: " + b"9" * 5000 + b" MESSAGE", 400), (b"CSeq: -1 MESSAGE", 400), (b"CSeq: 1_0 MESSAGE", 400),
    (b"CSeq: \xb2 MESSAGE", 400), (b"CSeq: 00000001 MESSAGE", 0), (b"CSeq: MESSAGE", 400), (b"CSeq: 1", 400),
])  # fmt: skip
def test_cseq_has_bounds(line: bytes, status: int) -> None:
    statuses, went = answers(request(cseq=line))
    assert statuses == ([status] if status else []) and len(went) == (not status)


@pytest.mark.checklist("A10")
@pytest.mark.rfc("3261", "20.22")
@pytest.mark.parametrize(("value", "status"), [
    (b"255", 0), (b"0068", 0), (b"256", 400), (b"99999999999999999999", 400), (b"-1", 400), (b"x", 400), (b"", 400),
    (b"0", 483),
])  # fmt: skip
def test_max_forwards_has_bounds(value: bytes, status: int) -> None:
    statuses, went = answers(request(b"Max-Forwards: " + value))
    assert statuses == ([status] if status else [])
    if not status:
        assert parse(went[0]).get(b"max-forwards") == b"%d" % (int(value) - 1)


@pytest.mark.checklist("A10")
@pytest.mark.parametrize("port", [b"0", b"65536", b"-1", b"x", b"", b"99999999999999999999"])
def test_ports_have_bounds(port: bytes) -> None:
    assert answers(request(start=b"MESSAGE sip:a@192.0.2.5:%b SIP/2.0" % port))[0] == [400]
    # a Via that names no port cannot be answered
    assert answers(request(via=b"Via: SIP/2.0/UDP 192.0.2.1:%b;branch=z9hG4bKm1" % port)) == ([], [])


@pytest.mark.checklist("A10")
@pytest.mark.checklist("A12")
@pytest.mark.checklist("A14")
@pytest.mark.rfc("3261", "7.2")
@pytest.mark.parametrize(("start", "passes"), [
    (b"SIP/2.0 200 OK", True), (b"SIP/2.0 200 ", True), (b"SIP/2.0 200", True), (b"sip/2.0 200 ok", True),
    (b"SIP/2.0 200 = 2**3 * 5**2 \xd0\xbd\xd0\xbe \xff;,\"", True), (b"SIP/2.0 699 x", True),
    (b"SIP/2.0 99 x", False), (b"SIP/2.0 700 x", False), (b"SIP/2.0 4294967301 x", False), (b"SIP/2.0 2000 x", False),
    (b"SIP/2.0 -20 x", False), (b"SIP/2.0 2_0 x", False), (b"SIP/2.0 abc x", False), (b"SIP/3.0 200 OK", False),
    (b"SIP/2.0  200 OK", False), (b"SIP/2.0", False), (b"SIP/2.0 ", False),
])  # fmt: skip
def test_status_lines(start: bytes, passes: bool) -> None:
    net = plain(Net())
    net.send(net.provider, request())
    asked = parse(net.phone.take()[0])
    net.send(net.phone, start + reply(asked, b"200 OK")[14:])
    got = net.provider.take()
    assert len(got) == passes, got
    assert net.phone.take() == [], "a broken response is never answered"
    if passes:
        assert got[0].split(b"\r\n")[0][8:] == start[8:]


@pytest.mark.checklist("A11")
@pytest.mark.rfc("3261", "8.1.1")
@pytest.mark.rfc("4475", "3.3.8")
@pytest.mark.parametrize("twice", [
    b"From: <sip:x@y>;tag=9", b"f: <sip:x@y>", b"To: <sip:x@y>", b"t:<sip:x@y>", b"Call-ID: x", b"i: m1",
    b"CSeq: 1 MESSAGE",
    b"Max-Forwards: 5\r\nmax-forwards: 5", b"l: 0",
])  # fmt: skip
def test_fields_that_come_twice_are_refused(twice: bytes) -> None:
    assert answers(request(twice)) == ([400], [])


@pytest.mark.checklist("A11")
@pytest.mark.checklist("A12")
@pytest.mark.rfc("4475", "3.3.1")
@pytest.mark.parametrize(("field", "statuses"), [
    ("from_", [400]), ("to", [400]), ("call_id", [400]), ("cseq", []), ("via", []),
])  # fmt: skip
def test_missing_fields_are_refused_as_far_as_a_client_could_know_the_answer(field: str, statuses: list[int]) -> None:
    assert answers(request(**{field: b""})) == (statuses, [])  # type: ignore[arg-type]
    assert answers(request(call_id=b"Call-ID:  ")) == ([400], [])


@pytest.mark.checklist("A11")
@pytest.mark.rfc("4475", "3.1.2.18")
@pytest.mark.parametrize(("method", "status"), [
    (b"MESSAGE", 400), (b"NEWMETHOD", 501), (b"NEW(METHOD", 400), (b"message", 501),
])  # fmt: skip
def test_the_method_of_cseq_is_the_requests(method: bytes, status: int) -> None:
    assert answers(request(start=b"%b sip:a@192.0.2.5 SIP/2.0" % method, cseq=b"CSeq: 1 INVITE")) == ([status], [])


@pytest.mark.checklist("A5")
@pytest.mark.checklist("A19")
def test_methods_nobody_knows_pass() -> None:
    statuses, went = answers(request(start=b"NewMethod sip:a@192.0.2.5 SIP/2.0", cseq=b"CSeq: 1 NewMethod"))
    assert statuses == [] and went[0].startswith(b"NewMethod ")


@pytest.mark.checklist("A12")
@pytest.mark.rfc("3261", "16.3")
@pytest.mark.parametrize("broken", [b"X Odd: 1", b"Max-Forwards: x", b"Max-Forwards: 0", b"Call-ID: y", b"\x00: 1"])
def test_a_broken_ack_is_never_answered_nor_logged_as_ours(broken: bytes, caplog: pytest.LogCaptureFixture) -> None:
    ack = request(
        broken, b"Route: <sip:192.0.2.5:5060;lr>", start=b"ACK sip:a@192.0.2.9 SIP/2.0", cseq=b"CSeq: 1 ACK",
        to=b"To: <sip:c@d>;tag=2",
    )  # fmt: skip
    assert answers(ack) == ([], [])
    assert "could not be served" not in caplog.text


@pytest.mark.checklist("A12")
def test_a_400_is_stateless_short_and_says_why() -> None:
    net = Net()
    net.send(net.provider, request(b"X Odd: 1"))
    (data,) = net.provider.take()
    answer = parse(data)
    assert answer.status == 400 and b"token" in answer.reason and len(answer.reason) < 80 and answer.to.tag
    assert net.endpoint.live["server_transactions"] == 0


@pytest.mark.checklist("A13")
@pytest.mark.rfc("3261", "21.5.6")
@pytest.mark.rfc("3261", "7.1")
@pytest.mark.parametrize(("start", "status"), [
    (b"MESSAGE sip:a@192.0.2.5 SIP/7.0", 505), (b"MESSAGE sip:a@192.0.2.5 SIP/2.00", 505),
    (b"MESSAGE sip:a@192.0.2.5 sip/2.0", 0), (b"MESSAGE  sip:a@192.0.2.5 SIP/2.0", 400),
    (b"MESSAGE sip:a@192.0.2.5 SIP/2.0 ", 400), (b"MESSAGE sip:a@192.0.2.5  SIP/2.0", 400),
    (b"MESSAGE <sip:a@192.0.2.5> SIP/2.0", 400), (b"MESSAGE sip:a@192.0.2.5\tx SIP/2.0", 400),
    (b"MESSAGE sip:a@192.0.2.5; lr SIP/2.0", 400), (b"MESSAGE sip:a@192.0.2.5 HTTP/1.1", 400),
    (b"MESSAGE nobodyKnows:x SIP/2.0", 416), (b"MESSAGE a SIP/2.0", 400), (b"MESSAGE sip:2001:db8::1 SIP/2.0", 400),
    (b"MESSAGE sip:[x] SIP/2.0", 400), (b"MESSAGE sip:@192.0.2.5 SIP/2.0", 400),
    (b"MESSAGE urn:service:sos SIP/2.0", 0), (b"MESSAGE tel:+49-30 SIP/2.0", 0),
])  # fmt: skip
def test_request_lines(start: bytes, status: int) -> None:
    statuses, went = answers(request(start=start))
    assert statuses == ([status] if status else []) and len(went) == (not status)
    if not status:
        assert went[0].partition(b"\r\n")[0].endswith(b" SIP/2.0")


@pytest.mark.checklist("A13")
@pytest.mark.rfc("4475", "3.1.2.11")
@given(st.binary(max_size=30).map(lambda b: b.translate(None, b" \r\n\t\0@")))
@settings(max_examples=60, deadline=None)
def test_headers_of_a_request_uri_never_become_fields(headers: bytes) -> None:
    data = request(start=b"MESSAGE sip:acc1@192.0.2.5?Route=%3Csip:x%3E&" + headers + b" SIP/2.0")
    for out in answers(data)[1]:
        assert b"?" not in parse(out).ruri and b"route" not in parse(out).keys
    assert clean_ruri(b"sip:a@h;lr?Route=x") == b"sip:a@h;lr"


VIAS = b"Via: SIP/2.0/TCP h;branch=z9hG4bKq"


@pytest.mark.checklist("A15")
@pytest.mark.rfc("4475", "3.1.1.7")
@pytest.mark.parametrize(("lines", "passes"), [
    ([b"X: " + b"y" * (MAX_LINE - 3)], True), ([b"X: " + b"y" * (MAX_LINE - 2)], False),
    ([b"X: y"] * (MAX_LINES - 20), True), ([b"X: y"] * MAX_LINES, False),
    ([b"X: " + b"y" * 8000] * 3, True), ([b"X: " + b"y" * 8000] * (MAX_HEAD // 8000 + 1), False),
    ([b"X: a" + b"\r\n " + b"y" * 6000 + b"\r\n " + b"y" * 6000], False),
    ([VIAS] * (MAX_VIAS - 1), True), ([VIAS] * MAX_VIAS, False),
    ([b"Via: " + b",".join([VIAS[5:]] * MAX_VIAS)], False),
    ([b"Route: <sip:192.0.2.9;lr>"] * MAX_ROUTES, True), ([b"Route: <sip:192.0.2.9;lr>"] * (MAX_ROUTES + 1), False),
    ([b"Route: " + b",".join([b"<sip:192.0.2.9;lr;a=bbbbbbbbbbbbbbbbbb>"] * (MAX_ROUTES + 1))], False),
    ([b"Contact: <sip:a@b" + b";p=q" * (MAX_PARAMETERS - 10) + b">"], True),
    ([b"Contact: <sip:a@b" + b";p=q" * MAX_PARAMETERS + b">"], False),
])  # fmt: skip
def test_limits(lines: list[bytes], passes: bool) -> None:
    statuses, went = answers(request(*lines))
    assert (statuses, len(went)) == (([], 1) if passes else ([400], 0))


@pytest.mark.checklist("A16")
@pytest.mark.rfc("3261", "20.14")
@pytest.mark.parametrize(("length", "body", "sent"), [
    (b"", b"hello", b"hello"), (b"", b"", b""), (b"Content-Length: 2", b"hello", b"he"),
    (b"l: 005", b"hello", b"hello"),
])  # fmt: skip
def test_content_length_leaves_on_each_message(length: bytes, body: bytes, sent: bytes) -> None:
    net = plain(Net())
    net.send(net.provider, request(body=body, length=length))
    (data,) = net.phone.take()
    out = parse(data)
    assert data.endswith(b"\r\n\r\n" + sent) and int(out.get(b"l") or -1) == len(sent)
    net.send(net.phone, reply(out, b"200 OK").replace(b"Content-Length: 0\r\n", b""))
    assert parse(net.provider.take()[0]).get(b"Content-Length") == b"0", "a response over UDP may have come without"


@pytest.mark.checklist("A18")
@pytest.mark.rfc("3966", "3")
def test_tel_uris_pass_in_from_to_and_contact() -> None:
    fields = (b"From: <tel:+49-30>;tag=1", b"To: tel:+49(30)1;tag-not=1")
    _, went = answers(request(b"Contact: <tel:+1>", from_=fields[0], to=fields[1]))
    assert all(line in parse(went[0]).lines for line in (*fields, b"Contact: <tel:+1>"))


@pytest.mark.checklist("A20")
@pytest.mark.parametrize("sloppy", [
    request().replace(b"\r\n", b"\n"), request()[:-2], request(length=b"") + b"\0\0\0\0", b"\r\n\r\n" + request(),
    request(b"Max-Forwards: 70", to=b"To: <sip:c@d>"),
], ids=["LF", "no empty line", "padding", "line ends before", "as it should be"])  # fmt: skip
def test_what_is_tolerated(sloppy: bytes) -> None:
    statuses, went = answers(sloppy)
    assert statuses == [] and len(went) == 1
    out = parse(went[0])
    assert b"\n" not in went[0].replace(b"\r\n", b"") and out.body == b""
    assert out.get(b"Max-Forwards") in (b"69", b"70")


@given(st.lists(st.binary(max_size=8).map(lambda b: b.translate(None, b',"<>\\').strip()), min_size=1, max_size=6))
@pytest.mark.checklist("A4")
def test_values_without_quotes_split_at_each_comma(parts: list[bytes]) -> None:
    assert split_list(b",".join(parts)) == parts


@pytest.mark.checklist("A17")
@pytest.mark.rfc("3261", "25.1")
@given(st.binary(min_size=1, max_size=12).map(lambda b: b.translate(None, b"\r\n")))
def test_what_we_quote_escapes_backslash_and_quote_and_nothing_else(text: bytes) -> None:
    asked = digest.parse_challenge(b'Digest realm="r", nonce="n"')
    _, value = digest.answer(asked, digest.Credentials(text, b"x"), b"REGISTER", b"sip:r", cnonce=b"c")
    assert value.startswith(b'Digest username="' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'", realm="r"')


@pytest.mark.checklist("A19")
@pytest.mark.rfc("3261", "7.3.1")
def test_tokens_are_compared_without_case() -> None:
    assert Via.parse(b"sip/2.0/udp h;BRANCH=z9hG4bKx").branch == b"z9hG4bKx"
    asked = digest.parse_challenge(b'dIGEST REALM="r", Nonce="n", ALGORITHM=sha-256, QOP="AUTH", stale=TRUE')
    assert (asked.algorithm, asked.qop, asked.stale) == (b"SHA-256", b"auth", True)
    assert SipUri.parse(b"SIP:a@h;Transport=UDP").param(b"transport") == b"UDP"
    assert SipUri.parse(b"SIP:a@H;Transport=UDP").equivalent(SipUri.parse(b"sip:a@h;transport=udp"))
    assert not SipUri.parse(b"sip:A@h").equivalent(SipUri.parse(b"sip:a@h"))
