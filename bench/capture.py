"""What only a capture of the loopback shows: the latency that the SUT adds to each message, and one call as text."""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import calls
import plan
from sut import Sut

Result = dict[str, Any]

CALL_ID = re.compile(r"^(?:Call-ID|i)\s*:\s*(\S+)", re.M | re.I)
CSEQ = re.compile(r"^CSeq\s*:\s*(\d+)\s+(\w+)", re.M | re.I)


def _start(path: Path) -> subprocess.Popen[bytes]:
    path.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            "tcpdump", "-i", "lo", "-n", "-s", "0", "-B", "32768", "-U", "--immediate-mode", "-Z", "root",
            "--time-stamp-precision=nano", "-w", str(path), "udp and portrange 5060-5081",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    for _ in range(60):
        time.sleep(0.05)
        if path.exists() and path.stat().st_size >= 24:
            break
    time.sleep(0.3)
    return process


def _packets(path: Path) -> Iterator[tuple[float, int, int, str]]:
    """Yield time, source port, destination port and text of each datagram."""
    data = path.read_bytes()
    unit = 1e-9 if struct.unpack("<I", data[:4])[0] == 0xA1B23C4D else 1e-6
    skip = {1: 14, 113: 16, 276: 20}[struct.unpack("<I", data[20:24])[0]]
    at = 24
    while at + 16 <= len(data):
        seconds, fraction, length, _ = struct.unpack("<IIII", data[at : at + 16])
        ip = data[at + 16 + skip : at + 16 + length]
        at += 16 + length
        head = (ip[0] & 15) * 4
        source, destination = struct.unpack(">HH", ip[head : head + 4])
        yield seconds + fraction * unit, source, destination, ip[head + 8 :].decode("utf8", "replace")


def latency(options: Namespace) -> Result:
    """Pair each message that enters the SUT with the one that leaves it."""
    port, path = Sut(options).port, plan.RUN / "lat.pcap"
    dump = _start(path)
    result = calls.run(options, options.dir, options.rate, options.secs)
    time.sleep(1.5)
    calls.end(dump, signal.SIGTERM)
    entered: dict[tuple[str, str], float] = {}
    added: dict[str, dict[str, float]] = {}
    for at, source, destination, text in _packets(path):
        call, cseq = CALL_ID.search(text), CSEQ.search(text)
        if not call or not cseq or text.startswith("SIP/2.0 100"):
            continue
        key = f"{text[8:11]}_{cseq.group(2)}" if text.startswith("SIP/2.0") else cseq.group(2)
        if destination == port:
            entered.setdefault((call.group(1), key), at)
            if options.dir == "outbound" and key == "407_INVITE":
                entered.setdefault((call.group(1), "authenticated"), at)
        elif source == port:
            came = key
            if options.dir == "outbound" and key == "INVITE" and "roxy-Authorization" in text:
                came, key = "authenticated", "challenge407_to_INVITE"
            start = entered.get((call.group(1), came))
            if start is not None and at >= start:
                added.setdefault(key, {}).setdefault(call.group(1), at - start)
    return {
        "measure": f"latency_{options.dir}", "rate": options.rate, "secs": options.secs, "ok": result["ok"],
        "failed": result["failed"], "cpu_ms_per_call": result["cpu_ms_per_call"], "steal_pct": result["steal_pct"],
        "lat": {key: _spread(sorted(values.values())) for key, values in added.items() if len(values) >= 10},
    }


def _spread(values: list[float]) -> dict[str, int]:
    def rank(share: float) -> int:
        return round(values[min(len(values) - 1, int(len(values) * share))] * 1e6)

    return {"n": len(values), "p50_us": rank(0.5), "p90_us": rank(0.9), "p99_us": rank(0.99), "max_us": rank(1)}


def trace(options: Namespace) -> Result:
    """Write one call as text to $BENCH_RUN/traces."""
    path, prefix = plan.RUN / "trace.pcap", "in" if options.dir == "inbound" else "out"
    dump = _start(path)
    far = {"uac": f"{prefix}_uac_rbye.xml", "uas": f"{prefix}_uas_sbye.xml"} if options.sbye else {}
    result = calls.run(options, options.dir, 1, 1, **far)
    time.sleep(1.5)
    calls.end(dump, signal.SIGTERM)
    file = plan.RUN / "traces" / f"{options.name}.txt"
    file.parent.mkdir(exist_ok=True)
    messages = [packet for packet in _packets(path) if "CSeq" in packet[3]]
    file.write_text("".join(
        f"#### +{at - messages[0][0]:.6f} s  {plan.NAMES.get(source, '?')}:{source} -> "
        f"{plan.NAMES.get(destination, '?')}:{destination}\n" + text.replace("\r\n", "\n") + "\n"
        for at, source, destination, text in messages
    ))
    return {"measure": "trace", "dir": options.dir, "file": str(file), "ok": result["ok"], "failed": result["failed"]}
