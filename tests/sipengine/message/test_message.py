"""Bytes to messages and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sipengine.exceptions import ParseError, UnsupportedUriScheme
from sipengine.message import NameAddr, SipUri, Via, parse
from sipengine.message.build import head_of, request, response
from sipengine.message.values import first_value, name_addr_of, params_at, split_list, tag_of, uri_of

TABLES = (
    Path(os.environ.get("SIP_TESTDATA", Path(__file__).resolve().parents[3].parent / "shared" / "testdata"))
    / "rfc-tables"
)

INVITE = (
    b"INVITE sip:bob@biloxi.example SIP/2.0\r\nv: SIP/2.0/UDP pc33;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n"
    b't: Bob <sip:bob@biloxi.example>\r\nf: "A \\"x\\" <y>;tag=no" <sip:a@b;tag=no>;x=1;tag=yes;y=2\r\n'
    b"i: 1@pc33\r\nCSeq:  7\r\n INVITE\r\n"
    b'm: <sip:a@pc33>, "B, C" <sip:c@d>;q=0.5\r\nX-Odd :  kept  \r\nl: 4\r\n\r\nbodyTAIL'
)


@pytest.mark.checklist("B7")
def test_untouched_bytes_stay_untouched_and_what_follows_the_body_is_dropped() -> None:
    assert parse(INVITE).serialize() == INVITE[:-4]


@pytest.mark.rfc("3261", "7.3.3")
def test_values_are_read_in_any_spelling() -> None:
    message = parse(INVITE)
    assert message.get(b"Call-ID") == message.call_id == b"1@pc33"
    assert message.cseq == (7, b"INVITE")
    assert message.from_ == NameAddr(b'"A \\"x\\" <y>;tag=no"', b"sip:a@b;tag=no", b";x=1;tag=yes;y=2")
    assert message.from_.tag == b"yes" and message.to.tag == b""
    assert [c.uri for c in message.contacts] == [b"sip:a@pc33", b"sip:c@d"] and message.contacts[1].param(
        b"q"
    ) == b"0.5"
    assert message.via == Via(b"UDP", b"pc33", None, ((b"branch", b"z9hG4bK1"),))
    assert message.get(b"x-odd") == b"kept" and message.get(b"nothing") is None and message.body == b"body"


@pytest.mark.checklist("M10")
def test_edits_replace_whole_lines() -> None:
    message = parse(INVITE)
    message.replace(b"Contact", b"<sip:new@x>")
    assert message.remove(b"X-ODD") == 1
    message.append(b"Subject: hi")
    again = parse(message.serialize())
    assert again.get_all(b"contact") == [b"<sip:new@x>"] and again.get(b"s") == b"hi" and again.get(b"x-odd") is None
    with pytest.raises(ParseError):
        message.append(b"Subject: a\r\nFrom: x")


@pytest.mark.checklist("B7")
@pytest.mark.parametrize(
    "data",
    [
        b"", b"\r\n\r\n", b"INVITE x SIP/2.0", INVITE.replace(b"l: 4", b"l: 99"), INVITE.replace(b"l: 4", b"l: -1"),
        INVITE.replace(b"l: 4", b"l: x"), INVITE.replace(b"X-Odd :", b"X Odd :"), INVITE.replace(b"X-Odd", b"X\rOdd"),
        INVITE.replace(b"X-Odd", b":"), b"A b SIP/2.0\r\n x: y\r\n\r\n", INVITE.replace(b"kept", b"k" * 9000),
        INVITE.replace(b"X-Odd", b"a: b\r\n" * 300 + b"X-Odd"),
    ],
)  # fmt: skip
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse(data)


def test_lf_only_and_a_missing_last_line_end_are_tolerated_and_leave_as_crlf() -> None:
    data = b"OPTIONS sip:a@b SIP/2.0\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\nCall-ID: x\n\n"
    assert parse(data).serialize() == data.replace(b"\n", b"\r\n")
    assert parse(data.replace(b"\n", b"\r\n")[:-2]).call_id == b"x"


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_parse_error(data: bytes) -> None:
    for text in (
        data,
        b"INVITE sip:a@b SIP/2.0\r\nVia: " + data + b"\r\n\r\n",
        INVITE.replace(b"Bob <sip:bob@biloxi.example>", data),
    ):
        try:
            message = parse(text)
        except ParseError:
            continue
        for read in (
            lambda m: m.via,
            lambda m: m.from_.tag,
            lambda m: m.to.tag,
            lambda m: m.cseq,
            lambda m: m.contacts,
        ):
            try:
                read(message)
            except ValueError:
                pass  # a missing field
            except ParseError:
                pass


@given(st.lists(st.sampled_from([b"a", b'"x,\\"y"', b"<sip:a,b>", b"c;d=1"]), min_size=1, max_size=5))
def test_lists_are_split_at_top_level_commas_only(parts: list[bytes]) -> None:
    assert split_list(b" , ".join(parts)) == parts


def test_lines_give_tag_uri_and_name_addr_without_parsing_everything() -> None:
    for line, tag, uri, name_addr in [
        (b"From: <sip:a@b>;tag=1-x", b"1-x", b"sip:a@b", b"<sip:a@b>"),
        (b"f: sip:a@b;tag=q;z=1", b"q", b"sip:a@b", b"sip:a@b"),
        (b'To:"a;tag=no" <sip:u;tag=no@h>', b"", b"sip:u;tag=no@h", b'"a;tag=no" <sip:u;tag=no@h>'),
        (b"To: <sip:u@h;tag=no>;TAG=Yes", b"Yes", b"sip:u@h;tag=no", b"<sip:u@h;tag=no>"),
        (b"To: A <sip:u@h> ; tag = 7", b"7", b"sip:u@h", b"A <sip:u@h>"),
    ]:
        assert (tag_of(line), uri_of(line), name_addr_of(line)) == (tag, uri, name_addr), line
    for broken in (b'To: "open <sip:a@b>', b"To: <sip:a@b", b'To: "x" y'):
        with pytest.raises(ParseError):
            params_at(broken)


@pytest.mark.checklist("A9")
def test_uris() -> None:
    uri = SipUri.parse("sips:user;par=u%40x@[2001:db8::1]:5061;transport=TCP;lr?h=v")
    assert (uri.scheme, uri.user, uri.host, uri.port) == (b"sips", b"user;par=u%40x", b"[2001:db8::1]", 5061)
    assert (
        uri.param(b"transport") == b"TCP"
        and uri.param(b"lr") == b""
        and uri.param(b"x") is None
        and uri.headers == b"?h=v"
    )
    assert bytes(uri) == b"sips:user;par=u%40x@[2001:db8::1]:5061;transport=TCP;lr?h=v"
    for bad in (
        "sip:",
        "sip:a@",
        "sip:@h",
        "sip:h:0",
        "sip:h:99999",
        "sip:h:x",
        "sip:2001:db8::1",
        "sip:[::1",
        "a",
        "sip:a b",
    ):
        with pytest.raises(ParseError):
            SipUri.parse(bad)
    with pytest.raises(UnsupportedUriScheme):
        SipUri.parse("tel:+49")


@pytest.mark.rfc("3261", "19.1.4")
@pytest.mark.skipif(not TABLES.is_dir(), reason="no test data; set SIP_TESTDATA")
def test_uri_comparison() -> None:
    table = json.loads((TABLES / "uri-compare.json").read_text())
    for one, other, *_ in table["equivalent"]:
        assert SipUri.parse(one).equivalent(SipUri.parse(other)), (one, other)
    for one, other, *_ in table["not_equivalent"]:
        assert not SipUri.parse(one).equivalent(SipUri.parse(other)), (one, other)


@pytest.mark.rfc("3261", "8.2.6.2")
def test_our_own_messages() -> None:
    ours = request(b"REGISTER", b"sip:x", [(b"From", b"<sip:a@b>;tag=1"), b"To: <sip:a@b>"], b"hi")
    assert (
        ours.serialize()
        == b"REGISTER sip:x SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nContent-Length: 2\r\n\r\nhi"
    )
    with pytest.raises(ParseError):
        request(b"REGISTER", b"sip:x", [(b"From", b"a\r\nEvil: 1")])
    answer = parse(response(head_of(parse(INVITE)), 404, to_tag=b"t1", extra=(b"Allow: X",)))
    assert (
        answer.status == 404
        and answer.reason == b"Not Found"
        and answer.to.tag == b"t1"
        and answer.get(b"Allow") == b"X"
    )
    assert answer.get(b"Content-Length") == b"0" and answer.from_.tag == b"yes"


def test_the_first_value_ends_at_a_comma_outside_quotes_on_each_python() -> None:
    assert first_value(b'a;x="b,c";y, d') == b'a;x="b,c";y'
    assert first_value(b'a;x="b\\",c", d') == b'a;x="b\\",c"'
    assert first_value(b"a, b") == b"a" and first_value(b"a") == b"a"
    for open_end in (b'a;x="b,c["";rport=7', b'a;x="b', b'"', b'a;x="b\\"'):
        with pytest.raises(ParseError, match="no end"):
            first_value(open_end)


@given(st.lists(st.sampled_from([b'"', b"\\", b",", b"a", b" "]), max_size=14).map(b"".join))
def test_the_first_value_is_that_of_a_reader_without_expressions(text: bytes) -> None:
    quoted = escaped = False
    for i, byte in enumerate(text):
        if quoted and escaped:
            escaped = False
        elif quoted and byte == 92:
            escaped = True
        elif byte == 34:
            quoted = not quoted
        elif byte == 44 and not quoted:
            text = text[:i]
            break
    if quoted:
        with pytest.raises(ParseError):
            first_value(text)
    else:
        assert first_value(text) == text
