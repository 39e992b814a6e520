"""Measures A, C and F: registration storm, time to a new account's REGISTER, memory and idle CPU."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import machine
from sut import Registrar, Sut

Result = dict[str, Any]


def _repeated(stats: dict[str, Any]) -> int:
    return stats["dup_unauth"] + stats["dup_auth"]


def storm(options: Namespace) -> Result:
    """Start the SUT with N accounts and time it until the last one's 200; leaves it running."""
    sut, registrar = Sut(options), Registrar()
    sut.env["N"] = str(options.n)
    sut.verb("stop")
    sut.verb("prepare")
    registrar.command("reset")
    registrar.command(f"grant {options.grant}")
    time.sleep(0.5)
    before, start = machine.busy(), time.monotonic()
    sut.verb("start")
    up = time.monotonic()
    pids = sut.pids()
    samples: list[tuple[float, float]] = []
    peak_rss, drops, looked = 0.0, 0, 0.0
    stats = registrar.stats()
    while stats["aors_ok"] < options.n and time.monotonic() < start + options.timeout:
        now = time.monotonic()
        samples.append((now, machine.cpu_s(pids)))
        if now - looked > 0.2:
            peak_rss, drops, looked = max(peak_rss, machine.rss_mb(pids)), max(drops, machine.udp_drops(sut.port)), now
        time.sleep(0.02)
        stats = registrar.stats()
    cpu_all, busy = machine.cpu_s(pids), machine.busy_since(before)
    samples.append((time.monotonic(), cpu_all))
    time.sleep(options.tail)
    after = registrar.stats()
    complete = stats["aors_ok"] >= options.n
    cpu_before_burst = next((cpu for at, cpu in reversed(samples) if at < stats["t_first"]), 0.0)
    burst = stats["t_lastnew"] - stats["t_first"] if stats["aors_ok"] else None
    return {
        "measure": "A_storm", "n": options.n, "ok": stats["aors_ok"], "complete": complete,
        "t_start_to_up": round(up - start, 3),
        "t_start_to_first_register": round(stats["t_first"] - start, 3) if stats["t_first"] else None,
        "t_start_to_all": round(stats["t_lastnew"] - start, 3) if complete else None,
        "burst_s": round(burst, 3) if burst is not None else None,
        "registrations_per_s": round(stats["aors_ok"] / burst, 1) if burst else None,
        "registers_per_s": round(stats["req"] / burst, 1) if burst else None,
        "req": stats["req"], "unauth": stats["unauth"], "auth": stats["auth"], "badauth": stats["badauth"],
        "retrans": _repeated(stats), "extra_req": stats["req"] - 2 * options.n,
        "cpu_s_burst": round(cpu_all - cpu_before_burst, 2), "cpu_s_start_to_end": round(machine.cpu_s(pids), 2),
        "cpu_ms_per_registration": round((cpu_all - cpu_before_burst) * 1000 / max(1, stats["aors_ok"]), 4),
        "peak_cpu_cores": round(_peak(samples), 2), "peak_rss_sum_mb": round(peak_rss, 1),
        "udp_drops": max(drops, machine.udp_drops(sut.port)), "ok_after_tail": after["aors_ok"],
        "req_after_tail": after["req"], **machine.memory(pids), **busy,
    }


def _peak(samples: Sequence[tuple[float, float]]) -> float:
    """Return the most cores used over any quarter of a second."""
    peak, first = 0.0, 0
    for at, cpu in samples:
        while at - samples[first][0] > 0.25:
            first += 1
        span = at - samples[first][0]
        if span >= 0.1:
            peak = max(peak, (cpu - samples[first][1]) / span)
    return peak


def addlat(options: Namespace) -> Result:
    """Add accounts one by one and time each until the registrar sees it."""
    sut, registrar = Sut(options), Registrar()
    before = registrar.stats()
    waiting: dict[str, tuple[float, float]] = {}
    seen: list[tuple[float, float, float]] = []
    errors: list[str] = []
    for number in range(options.count):
        user = f"{options.prefix}{number:06d}"
        start = time.monotonic()
        said = sut.verb(options.verb, user)
        waiting[user] = start, time.monotonic()
        if "rror" in said or "fail" in said.lower():
            errors.append(said[:120])
        time.sleep(options.gap)
    end = time.monotonic() + options.timeout
    while waiting and time.monotonic() < end:
        for user in list(waiting):
            aor = registrar.command(f"aor {user}")
            if aor.get("t_ok"):
                start, returned = waiting.pop(user)
                seen.append((aor["t_first"] - start, aor["t_ok"] - start, returned - start))
        time.sleep(0.05)
    first, good, command = (sorted(column) for column in zip(*seen, strict=True)) if seen else ([], [], [])
    return {
        "measure": "C_addlat", "verb": options.verb, "added": options.count, "registered": len(seen),
        "missing": len(waiting), "to_register_min_s": _rank(first, 0), "to_register_median_s": _rank(first, 0.5),
        "to_register_max_s": _rank(first, 1), "to_200_median_s": _rank(good, 0.5), "cmd_median_s": _rank(command, 0.5),
        "other_registers": registrar.stats()["req"] - before["req"] - 2 * len(seen), "errors": errors[:2],
    }


def _rank(values: Sequence[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(share * len(values)))], 4) if values else None


def idle(options: Namespace) -> Result:
    pids = Sut(options).pids()
    cpu, start = machine.cpu_s(pids), time.monotonic()
    time.sleep(options.secs)
    share = 100 * (machine.cpu_s(pids) - cpu) / (time.monotonic() - start)
    return {"measure": "idle", "secs": options.secs, "cpu_pct_of_core": round(share, 3), **machine.memory(pids)}


def mem(options: Namespace) -> Result:
    return {"measure": "F_mem", **machine.memory(Sut(options).pids())}
