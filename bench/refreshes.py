"""Measure B: what it costs to keep accounts registered, here and there in the same run.

Both get the same accounts with the same short expiry at the same registrar, one system after the other in each round:
started, registered, left alone for `--secs` seconds, stopped. A refresh is an account's 200, however many round trips
it takes; the CPU is that of all processes, idle work included. The registrar says what lapsed.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from argparse import Namespace
from typing import Any

import machine
from compare import TUNED
from sut import Registrar, Sut

Result = dict[str, Any]

#: Kamailio looks for what expires before its next tick only: at its default of 90 s shorter grants would lapse.
TICKS = 6


def refresh(options: Namespace) -> Result:
    """Keep `--accounts` accounts registered by `--adapter` and by `--against`, `--rounds` times in turn."""
    print(
        f"{'':>9} {'refreshes':>9} {'round trips':>11} {'CPU s':>6} {'ms a refresh':>12} {'lapsed':>6} {'foreign':>7}",
        file=sys.stderr,
    )
    rounds = [(_turn(options, options.adapter), _turn(options, options.against)) for _ in range(options.rounds)]
    Registrar().stop()
    ratios = [round(ours["cpu_ms"] / theirs["cpu_ms"], 2) for ours, theirs in rounds]
    print(f"ratio {statistics.median(ratios)} {ratios}", file=sys.stderr)
    return {
        "measure": "B_refresh", "accounts": options.accounts, "expires": options.expires, "secs": options.secs,
        "nonce_s": options.nonce, "ratio": statistics.median(ratios), "ratios": ratios,
        **{
            side: {key: [turn[index][key] for turn in rounds] for key in rounds[0][index]}
            for index, side in enumerate(("ours", "theirs"))
        },
    }


def _turn(options: Namespace, adapter: str) -> Result:
    own = Namespace(**{**vars(options), "adapter": adapter, "pids": None})
    own.env = [
        *(TUNED if adapter == options.against else []), f"N={options.accounts}", f"EXPIRES={options.expires}",
        f"REGINT={max(1, options.expires // TICKS)}", *(options.env or []),
    ]
    sut, registrar = Sut(own), Registrar()
    sut.verb("stop")
    sut.verb("prepare")
    registrar.command(f"nonce {options.nonce}")
    registrar.command("reset")
    sut.verb("start")
    try:
        _until_registered(registrar, options)
        result = _measure(sut, registrar, options.secs)
    finally:
        sut.verb("stop")
    print(
        f"{'ours' if adapter == options.adapter else 'theirs':>9} {result['refreshes']:>9} {result['round_trips']:>11} "
        f"{result['cpu_s']:>6} {result['cpu_ms']:>12} {result['lapsed']:>6} {result['foreign_cores']:>7}",
        file=sys.stderr,
    )
    return result


def _until_registered(registrar: Registrar, options: Namespace) -> None:
    end = time.monotonic() + options.timeout
    while registrar.stats()["aors_ok"] < options.accounts:
        if time.monotonic() > end:
            sys.exit(f"After {options.timeout:g} s these are registered: {registrar.stats()['aors_ok']}.")
        time.sleep(0.1)


def _measure(sut: Sut, registrar: Registrar, secs: float) -> Result:
    first, drops = registrar.stats(), machine.udp_drops(sut.port)
    cpu, before, start = machine.cpu_s(sut.pids()), machine.busy(), time.monotonic()
    time.sleep(secs)
    took, cpu = time.monotonic() - start, machine.cpu_s(sut.pids()) - cpu
    busy, last = machine.busy_since(before), registrar.stats()
    done, requests = last["ok"] - first["ok"], last["req"] - first["req"]
    if not done:
        sys.exit(f"Nothing was refreshed within {secs:g} s: ask for a shorter --expires.")
    return {
        "refreshes": done, "round_trips": round(requests / done, 2), "cpu_s": round(cpu, 2),
        "cpu_ms": round(1000 * cpu / done, 3), "lapsed": registrar.command("lapsed")["lapsed"],
        "retrans": sum(last[key] - first[key] for key in ("dup_unauth", "dup_auth")),
        "badauth": last["badauth"] - first["badauth"], "stale": last["stale"] - first["stale"],
        "udp_drops": machine.udp_drops(sut.port) - drops,
        "foreign_cores": round(max(0, busy["machine_busy_pct"] / 100 * (os.cpu_count() or 1) - cpu / took), 2),
    }
