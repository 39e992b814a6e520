"""The targets under inputs that Hypothesis builds from the grammar, right ones and nearly right ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sipengine.exceptions import UnsupportedUriScheme
from sipengine.message import SipUri
from sipengine.uac.restore import KamailioCodec
from tests.fuzz.targets import TARGETS

NOISE = st.binary(max_size=6)
LWS = st.sampled_from([b"", b"", b" ", b"\t", b"\r\n ", b"\r\n\t "])
TOKEN = st.sampled_from([b"a", b"tag", b"branch", b"received", b"rport", b"lr", b"Method", b"x-y", b"%61"])
QUOTED = st.sampled_from([b'""', b'"a, b;c"', b'"\\""', b'"\\\\"', b'"<sip:x>"', b'"', b'"\xff\xfe"'])
HOST = st.sampled_from([b"h", b"192.0.2.1", b"[2001:db8::1]", b"[::", b"2001:db8::1", b"a.example.", b"", b"h_1"])
PORT = st.sampled_from([b"", b":5060", b":0", b":65536", b":", b":05061", b": 4000"])
VALUE = st.one_of(TOKEN, QUOTED, HOST, NOISE)
PARAMS = st.lists(
    st.builds(lambda a, name, b, value: a + b";" + b + name + value, LWS, TOKEN, LWS,
              st.one_of(st.just(b""), VALUE.map(lambda v: b"=" + v))), max_size=4
).map(b"".join)  # fmt: skip
USER = st.sampled_from([b"", b"a@", b"a:p@", b"a;b=c@", b"%00@", b"a?b&c@", b"@", b"a@b@", b"\xc3\xa4@"])
URI = st.builds(
    lambda scheme, user, host, port, params, headers: scheme + user + host + port + params + headers,
    st.sampled_from([b"sip:", b"SIPS:", b"tel:", b"urn:service:", b"", b"x:"]), USER, HOST, PORT, PARAMS,
    st.sampled_from([b"", b"?a=b", b"?Route=%3Csip:x%3E&b", b"?"]),
)
ADDRESS = st.builds(
    lambda display, a, uri, b, params: display + a + uri + b + params,
    st.one_of(st.just(b""), TOKEN, QUOTED, NOISE), LWS,
    st.one_of(URI, URI.map(lambda u: b"<" + u + b">"), URI.map(lambda u: b"< " + u)), LWS, PARAMS,
)
VIA = st.lists(
    st.builds(
        lambda protocol, a, host, port, params: protocol + b" " + a + host + port + params,
        st.sampled_from([b"SIP/2.0/UDP", b"SIP / 2.0 / TCP", b"sip/2.0/x", b"SIP/3.0/UDP", b""]), LWS, HOST, PORT,
        PARAMS,
    ), min_size=1, max_size=3,
).map(b", ".join)  # fmt: skip
CHALLENGED = st.sampled_from([b"MD5", b"SHA-256-sess", b'"auth"', b'"auth-int,auth"', b"true", b'"n"'])
CHALLENGE = st.builds(
    lambda scheme, parts: scheme + b" " + b",".join(parts),
    st.sampled_from([b"Digest", b"digest", b"Basic", b""]),
    st.lists(
        st.builds(
            lambda name, value: name + b"=" + value,
            st.sampled_from([b"realm", b"nonce", b"opaque", b"qop", b"algorithm", b"stale", b"userhash", b"x"]),
            st.one_of(QUOTED, NOISE, CHALLENGED),
        ), max_size=6,
    ),
)  # fmt: skip
FIELD = st.one_of(
    VIA.map(lambda v: b"Via: " + v), ADDRESS.map(lambda v: b"From: " + v), ADDRESS.map(lambda v: b"t : " + v),
    ADDRESS.map(lambda v: b"m:" + v), URI.map(lambda v: b"Route: <" + v + b">"),
    CHALLENGE.map(lambda v: b"WWW-Authenticate: " + v),
    st.sampled_from([
        b"Call-ID: 1", b"i:1", b"CSeq: 1 INVITE", b"CSeq: 1\r\n ACK", b"l: 0", b"l: 3", b"Content-Length: 3",
        b"Max-Forwards: 0",
        b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKp", b"From: <sip:a@b>;tag=1", b"To: <sip:c@d>", b"Proxy-Require: x",
    ]),
    NOISE,
)  # fmt: skip
MESSAGE = st.builds(
    lambda start, fields, end, body: end.join([start, *fields, b"", body]),
    st.one_of(
        URI.map(lambda u: b"INVITE " + u + b" SIP/2.0"),
        st.sampled_from([
            b"ACK sip:a@h SIP/2.0", b"SIP/2.0 200 OK", b"BYE sip:a@h SIP/2.0", b"CANCEL sip:a@h SIP/2.0", b"x",
        ]),
    ),
    st.lists(FIELD, max_size=9), st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"]), NOISE,
)
STREAM = st.lists(st.one_of(MESSAGE, st.sampled_from([b"\r\n\r\n", b"\r\n", b"\n"]), NOISE), max_size=4).map(b"".join)

BUILT = {
    "message": MESSAGE, "uri": URI, "address": ADDRESS, "via": VIA, "challenge": CHALLENGE, "stream": STREAM,
    "endpoint": MESSAGE,
}  # fmt: skip


@pytest.mark.checklist("A15")
@pytest.mark.parametrize("name", TARGETS)
def test_what_must_hold_for_any_bytes(name: str) -> None:
    @settings(max_examples=40 if name == "endpoint" else 200, deadline=None)
    @given(BUILT[name])
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()


@settings(deadline=None, max_examples=300)
@given(original=URI, new=URI, seen=URI, password=st.sampled_from(["", "key", "a long password"]))
def test_the_seeds_codec_gives_a_uri_or_nothing(original: bytes, new: bytes, seen: bytes, password: str) -> None:
    """kamailio-uac g.2: what was stored comes back; what another URI makes of it is a URI, or is not used."""
    codec = KamailioCodec(password, "vsf", "vst")
    value = codec.encode(original, new)
    assert codec.decode(value, original) in (new, b"") and codec.decode(value, new) in (original, b"")
    other = codec.decode(value, seen)
    if other:
        assert other.isascii() and not any(c <= 32 or c in b'<>"' for c in other)
        try:
            SipUri.parse(other)
        except UnsupportedUriScheme:
            assert other[:4].lower() == b"tel:"
