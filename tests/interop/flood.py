"""Sends datagrams that nobody asked for: a program of its own, so that its CPU is not the test's.

usage: python -m tests.interop.flood KIND HOST PORT SOURCE RATE SECONDS     RATE 0: as fast as it goes
KIND `garbage`: what fuzzers and scanners send, some of it nearly SIP; `invites`: new calls without end.
"""

from __future__ import annotations

import random
import socket
import sys
import time
from itertools import cycle

INVITE = (
    b"INVITE sip:%b@%b:%d SIP/2.0\r\nVia: SIP/2.0/UDP %b:%d;branch=z9hG4bKf%b\r\nMax-Forwards: 70\r\n"
    b"From: <sip:flood@%b>;tag=%b\r\nTo: <sip:%b@%b:%d>\r\nCall-ID: %b@flood\r\nCSeq: 1 INVITE\r\n"
    b"Contact: <sip:flood@%b:%d>\r\nContent-Length: 0\r\n\r\n"
)


def invite(number: int, user: bytes, to: tuple[str, int], source: tuple[str, int]) -> bytes:
    host, at, mark = to[0].encode(), source[0].encode(), b"%d" % number
    return INVITE % (
        user, host, to[1], at, source[1], mark, at, mark, user, host, to[1], mark, at, source[1],
    )  # fmt: skip


def garbage(to: tuple[str, int], source: tuple[str, int]) -> list[bytes]:
    """A thousand datagrams: noise, cut and bent requests, lies about lengths, stray responses and ACKs."""
    chance = random.Random(3)
    whole = [invite(number, b"nobody", to, source) for number in range(50)]
    made = []
    for number in range(1000):
        text = bytearray(whole[number % 50])
        kind = number % 8
        if kind == 0:
            text = bytearray(chance.randbytes(chance.randrange(1, 1400)))
        elif kind == 1:
            del text[chance.randrange(len(text) - 20) :]
        elif kind == 2:
            for _ in range(20):
                text[chance.randrange(len(text))] = chance.randrange(256)
            text[:1] = b"\xff"
        elif kind == 3:
            text = text.replace(b"Content-Length: 0", b"Content-Length: %d" % chance.randrange(1, 10**9))
        elif kind == 4:
            text = bytearray(b"SIP/2.0 200 OK\r\n") + text.partition(b"\r\n")[2]
        elif kind == 5:
            text = text.replace(b"INVITE", b"ACK")
        elif kind == 6:
            text = text.replace(b"CSeq: 1 INVITE", b"CSeq: %d INVITE" % 10**chance.randrange(10, 200))
        else:
            text = text.replace(b"Max-Forwards: 70", b"X: " + b"a,;=\"<" * chance.randrange(1, 200))[:-2]
        made.append(bytes(text))
    return made


def main(kind: str, host: str, port: int, address: str, rate: int, seconds: float) -> None:
    to = (host, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        source = sock.getsockname()
        made = cycle(garbage(to, source)) if kind == "garbage" else None
        sent, start = 0, time.monotonic()
        while (passed := time.monotonic() - start) < seconds:
            due = 64 if not rate else int(passed * rate) - sent
            for _ in range(due):
                sock.sendto(next(made) if made else invite(sent, b"nobody", to, source), to)
                sent += 1
            if rate:
                time.sleep(0.002)
    sys.stdout.write(f"sent {sent}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), float(sys.argv[6]))
