"""What the measured processes and the machine used, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def _read(path: str) -> str:
    """Empty for a process that has ended."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def cpu_s(pids: Iterable[int]) -> float:
    """Return user + system CPU seconds of the processes so far, of all their threads and of children that ended."""
    return sum(map(_process_s, pids))


def _process_s(pid: int) -> float:
    text = _read(f"/proc/{pid}/stat")
    fields = [int(field) for field in text[text.rfind(")") + 2 :].split()[11:15]]
    if not fields:
        return 0.0
    # Of the whole process in ticks of 10 ms, of each thread that still runs in nanoseconds: neither is too much.
    tasks = (_read(f"{task}/schedstat").split() for task in Path(f"/proc/{pid}/task").glob("*"))
    exact = sum(int(task[0]) for task in tasks if task) / 1e9
    return max(sum(fields[:2]) / TICKS, exact) + sum(fields[2:]) / TICKS


def memory(pids: Iterable[int]) -> dict[str, float]:
    sums = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    pids = list(pids)
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            key = line.split(":")[0]
            if key in sums:
                sums[key] += int(line.split()[1])
    return {
        "rss_sum_mb": round(sums["Rss"] / 1024, 1),
        "pss_sum_mb": round(sums["Pss"] / 1024, 1),
        "private_mb": round((sums["Private_Clean"] + sums["Private_Dirty"]) / 1024, 1),
        "procs": len(pids),
    }


def rss_mb(pids: Iterable[int]) -> float:
    """Cheaper than `memory`, for sampling: resident memory, shared pages counted once per process."""
    return sum(int((_read(f"/proc/{pid}/statm") or "0 0").split()[1]) for pid in pids) * PAGE / 2**20


def udp_drops(port: int) -> int:
    """Return the datagrams that the kernel dropped on sockets of this port."""
    rows = (line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:])
    return sum(int(row[-1]) for row in rows if int(row[1].split(":")[1], 16) == port)


def busy() -> dict[str, int]:
    values = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return {"total": sum(values[:8]), "idle": values[3] + values[4], "steal": values[7]}


def busy_since(before: dict[str, int]) -> dict[str, float]:
    after = busy()
    total = max(1, after["total"] - before["total"])
    return {
        "machine_busy_pct": round(100 * (1 - (after["idle"] - before["idle"]) / total), 1),
        "steal_pct": round(100 * (after["steal"] - before["steal"]) / total, 2),
    }
