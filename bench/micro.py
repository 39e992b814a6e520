"""Cost of one call in the core, without sockets: INVITE, 180, 200, ACK, BYE, 200; From and Contact hidden, restored.

usage: python bench/micro.py [CALLS] [--plain]      prints microseconds for each kind of message and for the call
`--plain` relays without changing identities.  The machine drifts: compare runs that alternate.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sipengine.configuration import Configuration
from sipengine.endpoint import Endpoint

SDP = (
    b"v=0\r\no=gw 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 40000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
)
PROVIDER, PHONE = ("127.0.0.1", 5072), ("127.0.0.1", 5080)
BATCH = 200
STEPS = ("INVITE", "180", "200", "ACK", "BYE", "200 BYE")


class Routing:
    def __init__(self, plain: bool) -> None:
        self.accounts = {"acc%06d" % n: b"sip:acc%06d@127.0.0.1" % n for n in range(100)}  # noqa: UP031 - one format for str and bytes
        self.plain = plain

    def __call__(self, context) -> None:
        context.routing = self
        contact_uri = self.accounts.get(context.rU)
        if contact_uri is None:
            context.sl_send_reply(404, "Not Found")
            return context.routed()
        context.ruri = contact_uri
        context.du = b"sip:127.0.0.1:5080"
        if not self.plain:
            context.uac_replace_from(b"", b"sip:anonymous@anonymous.invalid")
            context.remove_hf(b"P-Asserted-Identity", b"Remote-Party-ID", b"Diversion")
            context.hide_contact()
            context.mark_call("line-1", "in", context.from_uri, "acc", True)
        context.record_route()
        context.t_relay()
        return context.routed()


def invite(i: int) -> bytes:
    return (
        b"INVITE sip:acc%06d@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5072;branch=z9hG4bK-23488-%d-0\r\n"
        b'Max-Forwards: 70\r\nFrom: "Alice" <sip:+4930%d@provider.example>;tag=pu23488x%d\r\n'
        b"To: <sip:acc%06d@127.0.0.1:5060>\r\nCall-ID: %d-23488@127.0.0.1\r\nCSeq: 1 INVITE\r\n"
        b"Contact: <sip:gw@127.0.0.1:5072>\r\nUser-Agent: provider-sipp\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS\r\n"
        b"Content-Type: application/sdp\r\nContent-Length: %5d\r\n\r\n" % (i % 100, i, i, i, i % 100, i, len(SDP))
    ) + SDP


def header(message: bytes, name: bytes) -> list[bytes]:
    return [line for line in message.split(b"\r\n\r\n")[0].split(b"\r\n") if line.startswith(name)]


def reply(message: bytes, status: bytes, sdp: bytes = b"", i: int = 0) -> bytes:
    via = b"Via: " + b", ".join(line[5:] for line in header(message, b"Via:"))
    to = header(message, b"To:")[0]
    if b";tag=" not in to:
        to += b";tag=us23487x%d" % i
    return b"\r\n".join([
        b"SIP/2.0 " + status, via, *header(message, b"Record-Route:"), header(message, b"From:")[0], to,
        header(message, b"Call-ID:")[0], header(message, b"CSeq:")[0], b"Contact: <sip:phone@127.0.0.1:5080>",
        *([b"Content-Type: application/sdp"] if sdp else []), b"Content-Length: %5d" % len(sdp), b"", sdp,
    ])  # fmt: skip


def within(i: int, method: bytes, branch: int, cseq: int, route: bytes) -> bytes:
    return (
        b"%b sip:phone@127.0.0.1:5080 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5072;branch=z9hG4bK-23488-%d-%d\r\n"
        b'Max-Forwards: 70\r\nRoute: %b\r\nFrom: "Alice" <sip:+4930%d@provider.example>;tag=pu23488x%d\r\n'
        b"To: <sip:acc%06d@127.0.0.1:5060>;tag=us23487x%d\r\nCall-ID: %d-23488@127.0.0.1\r\nCSeq: %d %b\r\n"
        b"Content-Length: 0\r\n\r\n" % (method, i, branch, route, i, i, i % 100, i, i, cseq, method)
    )


def main() -> None:
    plain = "--plain" in sys.argv
    calls = int(next((word for word in sys.argv[1:] if word.isdigit()), "10000"))
    endpoint = Endpoint(Configuration(), application=Routing(plain), admission=lambda flow: True, entropy=os.urandom)
    listener = endpoint.add_listener("udp", "127.0.0.1", 5060)
    provider, phone = endpoint.flow_for(listener, PROVIDER), endpoint.flow_for(listener, PHONE)
    clock = time.thread_time_ns
    spent = [0] * len(STEPS)
    timers = 0
    now = 0.0
    out = endpoint.out
    gc.collect()
    gc.freeze()
    gc.disable()

    def batch(step: int, messages: list[bytes], flow) -> list[tuple[bytes, tuple[str, int]]]:
        begin = clock()
        for message in messages:
            endpoint.receive(message, flow, now)
        spent[step] += clock() - begin
        sent = [(wire, to.remote) for wire, to in out]
        out.clear()
        endpoint.events.clear()
        return sent

    for begin in range(0, calls, BATCH):
        now += BATCH / 1000.0  # as if 1,000 calls came a second
        started = clock()
        endpoint.handle_timer(now)
        timers += clock() - started
        out.clear()
        ids = range(begin, begin + BATCH)
        sent = batch(0, [invite(i) for i in ids], provider)
        invites = sent[1::2]
        assert invites[0][1] == PHONE, invites[0]
        assert plain or (b"lice" not in invites[0][0] and b"sip:gw@" not in invites[0][0]), invites[0]
        sent = batch(1, [reply(m, b"180 Ringing", i=i) for (m, _), i in zip(invites, ids, strict=True)], phone)
        assert b'"Alice"' in sent[0][0] and sent[0][1] == PROVIDER and len(sent) == BATCH, sent[0]
        sent = batch(2, [reply(m, b"200 OK", SDP, i) for (m, _), i in zip(invites, ids, strict=True)], phone)
        routes = [header(m, b"Record-Route:")[0][14:] for m, _ in sent]
        sent = batch(3, [within(i, b"ACK", 4, 1, r) for i, r in zip(ids, routes, strict=True)], provider)
        assert len(sent) == BATCH and (plain or b"lice" not in sent[0][0]), sent[:1]
        byes = batch(4, [within(i, b"BYE", 6, 2, r) for i, r in zip(ids, routes, strict=True)], provider)
        assert len(byes) == BATCH and byes[0][1] == PHONE and (plain or b"lice" not in byes[0][0]), byes[:1]
        sent = batch(5, [reply(m, b"200 OK", i=i) for (m, _), i in zip(byes, ids, strict=True)], phone)
        assert len(sent) == BATCH and b"Alice" in sent[0][0], sent[:1]
    kinds = {name: round(total / calls / 1000, 2) for name, total in zip(STEPS, spent, strict=True)}
    print(
        kinds, "timers", round(timers / calls / 1000, 2), "us a call:", round((sum(spent) + timers) / calls / 1000, 1)
    )
    print(endpoint.counters.as_dict(), endpoint.live)


if __name__ == "__main__":
    main()
