"""What must hold for any bytes at all; a target fails by an AssertionError or an exception that nobody promised.

Atheris drives them (`make fuzz`), pytest replays the kept inputs through them, Hypothesis feeds them what its
grammars make.  Nothing here knows which of the three calls.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sipengine.exceptions import ChallengeUnsupported, ParseError, ResolutionError, UnsupportedUriScheme
from sipengine.message import Message, NameAddr, SipUri, parse
from sipengine.message.message import value_of
from sipengine.message.values import params_at, split_list, tag_of, uri_of
from sipengine.proxy.validation import clean_ruri, salvage, tag_of_proper
from sipengine.transport.layer import TransportLayer, no_local_address
from sipengine.transport.stream import StreamFramer
from sipengine.uac import digest
from tests.sipengine.net import PROVIDER, Net

READ: tuple[Callable[[Message], object], ...] = (
    lambda m: m.via,
    lambda m: m.from_.tag,
    lambda m: m.to.sip_uri,
    lambda m: m.cseq,
    lambda m: m.call_id,
    lambda m: m.contacts,
    lambda m: m.get_list(b"route"),
)


def message(data: bytes) -> None:
    """Bytes are a message or a ParseError; a message comes back as it was, and reading it changes nothing."""
    try:
        found = parse(data)
    except ParseError:
        salvage_is_total(data)
        return
    wire = found.serialize()
    assert parse(wire).serialize() == wire
    assert len(found.keys) == len(found.lines)
    flat = data.replace(b"\r\n", b"\n")
    for line in found.lines:
        assert line.replace(b"\r\n", b"\n") in flat, "a line nobody touched is not the sender's"
    for read in READ:
        try:
            read(found)
        except (ParseError, UnsupportedUriScheme, ValueError):
            continue  # ValueError: the field is not there
    assert found.serialize() == wire
    salvage_is_total(data)


def salvage_is_total(data: bytes) -> None:
    try:
        head = salvage(data)
    except ParseError:
        return
    assert head is None or {b"via", b"cseq"} <= set(head.keys)


def uri(data: bytes) -> None:
    """A SIP URI means the same after it was written out, and equals itself."""
    try:
        clean = clean_ruri(data)
    except (ParseError, UnsupportedUriScheme):
        pass
    else:
        assert not set(clean) & set(b"\r\n \t\0<>"), "a Request-URI may not end its line"
    try:
        found = SipUri.parse(data)
    except (ParseError, UnsupportedUriScheme):
        return
    assert SipUri.parse(bytes(found)) == found
    assert found.equivalent(found)
    assert found.port is None or 0 < found.port < 65536


def address(data: bytes) -> None:
    """From, To and Contact values: every reader gives one answer, and says ParseError where there is none."""
    line = b"From: " + data
    try:
        tag = tag_of_proper(line)
    except ParseError:
        tag = None
    if tag is not None:
        value = NameAddr.parse(value_of(line))
        assert value.tag == tag, "two readers, two tags"
        assert not set(value.uri) & set(b" \t<>\"")
    for read in (tag_of, params_at, uri_of):
        try:
            read(line)
        except ParseError:
            continue
    for part in split_list(data):
        try:
            NameAddr.parse(part)
        except ParseError:
            continue


def via(data: bytes) -> None:
    """Where a request came from is noted in its top Via, whatever stands there, and nothing else changes."""
    layer = TransportLayer(no_local_address)
    flow = layer.flow_for(layer.add_listener("udp", "192.0.2.5", 5060), PROVIDER)
    try:
        found = parse(b"OPTIONS sip:a@b SIP/2.0\r\nVia: " + data + b"\r\nCSeq: 1 OPTIONS\r\n\r\n")
        below = found.get_list(b"via")[1:]
        sent_by, back = layer.receive_via(found, 0, flow)
        noted = found.via
    except ParseError:
        return
    assert noted.received in (None, PROVIDER[0].encode())
    assert noted.host.strip(b"[]") == PROVIDER[0].encode() or noted.received is not None
    assert sent_by.lower() == sent_by
    assert back.remote[0] == PROVIDER[0], "an answer never leaves for another host than the request came from"
    if b"<" not in data:  # no Via has one; a list that has is split differently
        assert found.get_list(b"via")[1:] == below


def challenge(data: bytes) -> None:
    """A challenge is answered in one line that the challenger can read, or not at all."""
    data = data.translate(None, b"\r\n")  # field values come unfolded
    try:
        asked = digest.parse_challenge(data)
    except ChallengeUnsupported:
        return
    credentials = digest.Credentials(b"al\"ice", b"secret")
    name, value = digest.answer(asked, credentials, b"REGISTER", b"sip:provider.example", cnonce=b"0a4f113b")
    assert name == b"Authorization"
    assert b"\r" not in value and b"\n" not in value
    assert digest.choose([data], [data], credentials)
    back = digest.parse_challenge(value)
    assert (back.realm, back.nonce) == (asked.realm, asked.nonce)


def stream(data: bytes) -> None:
    """A connection's bytes are the same messages however TCP cuts them."""
    whole, error = _frame([data])
    for size in (1, 2, 7, 64):
        cut, other = _frame([data[i : i + size] for i in range(0, len(data), size)])
        assert cut == whole
        assert other == error, "the framing is lost for one segmentation and not for another"
    if not error:
        for found in whole:
            assert found in data


def _frame(parts: list[bytes]) -> tuple[list[bytes], bool]:
    framer = StreamFramer()
    found: list[bytes] = []
    for part in parts:
        try:
            found += framer.feed(part)
        except ParseError:
            return found, True
        if framer.error is not None:
            return found, True
    return found, False


class _Unserved(logging.Handler):
    """A message that could not be served is a fault of ours: it fails the input."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            raise AssertionError(record.getMessage()) from (record.exc_info or (None, None))[1]


def endpoint(data: bytes) -> None:
    """The whole engine: a datagram and the same bytes on a connection; then everything ends by its timers."""
    handler = _Unserved()
    logging.getLogger("sipengine").addHandler(handler)
    try:
        net = Net()
        net.wire.hosts = {}
        for listener in net.endpoint.listeners[:2]:
            flow = net.endpoint.flow_for(listener, PROVIDER)
            receive = net.endpoint.receive if listener.transport == "udp" else net.endpoint.receive_stream
            receive(data, flow, net.wire.now)
            for answer, _ in net.endpoint.out:
                if answer.strip(b"\r\n"):
                    parse(answer)
            net.endpoint.out.clear()
            for event in list(net.endpoint.events):
                if hasattr(event, "host"):
                    net.endpoint.resolved(event, ResolutionError("no such host"), net.wire.now)
            net.endpoint.events.clear()
        net.wire.now += 400
        for _ in range(40):
            if net.endpoint.next_at() <= net.wire.now:
                net.endpoint.handle_timer(net.wire.now)
                net.wire.now += 40
    finally:
        logging.getLogger("sipengine").removeHandler(handler)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "message": message,
    "uri": uri,
    "address": address,
    "via": via,
    "challenge": challenge,
    "stream": stream,
    "endpoint": endpoint,
}
