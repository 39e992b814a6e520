"""Two systems at the same rates, one pair after the other, and the ratio of their CPU.

They share addresses, so each in turn is started, registered, warmed, measured and stopped. The machine's mood drifts by
tens of percent within an hour: only the ratio inside a pair says something, and the median over the pairs is reported.
"""

from __future__ import annotations

import statistics
import sys
import time
from argparse import Namespace
from typing import Any

import calls
from sut import Registrar, Sut

#: Kamailio gets what it needs to be clean at every rate (RESULTS.md): its defaults fail calls for want of memory.
TUNED = ["CHILDREN=2", "SHM=1024", "PKG=64", "RCVBUF=4000000", "HASH=12"]

#: Kamailio does not raise CSeq on its own: with its dialog module it does the same job as a call out of ours.
DIALOG = "DIALOG=1"

#: Cores used by neither side nor SIPp; above it the turn says more about them than about us, and is taken again.
FOREIGN = 0.7
TRIES = 3


def _turn(options: Namespace, adapter: str, rate: int) -> dict[str, Any]:
    result = _measure(options, adapter, rate)
    for _ in range(TRIES - 1):
        if result["foreign_cores"] <= FOREIGN:
            break
        result = _measure(options, adapter, rate)
    return result


def _measure(options: Namespace, adapter: str, rate: int) -> dict[str, Any]:
    own = Namespace(**{**vars(options), "adapter": adapter, "pids": None})
    if adapter == options.against:
        own.env = [*TUNED, *([DIALOG] if options.dir == "outbound" else []), *(options.env or [])]
    calls.restart(own)
    try:
        calls.run(own, options.dir, rate, 1)
        time.sleep(1)
        return calls.run(own, options.dir, rate, options.secs)
    finally:
        Sut(own).verb("stop")


def compare(options: Namespace) -> dict[str, Any]:
    """Measure `--adapter` and `--against` in `--rounds` pairs at each of `--rates`."""
    results: dict[str, Any] = {}
    head = f"{'calls/s':>8} {'ours ms':>9} {'theirs ms':>10} {'ratio':>6}   pairs; failed and dropped, ours/theirs"
    print(head, file=sys.stderr)
    for rate in (int(word) for word in options.rates.split(",")):
        pairs = [
            (_turn(options, options.adapter, rate), _turn(options, options.against, rate))
            for _ in range(options.rounds)
        ]
        cost = [(ours["cpu_ms_per_call"], theirs["cpu_ms_per_call"]) for ours, theirs in pairs]
        ratios = [round(ours / theirs, 2) if ours and theirs else None for ours, theirs in cost]
        known = [ratio for ratio in ratios if ratio is not None]
        row = results[str(rate)] = {
            "ratio": statistics.median(known) if known else None,
            "ratios": ratios,
            "ours_ms": statistics.median([ours or 0 for ours, _ in cost]),
            "theirs_ms": statistics.median([theirs or 0 for _, theirs in cost]),
            "foreign_cores": [[ours["foreign_cores"], theirs["foreign_cores"]] for ours, theirs in pairs],
            **{
                f"{key}_{side}": sum(pair[index][key] for pair in pairs)
                for key in ("failed", "udp_drops", "retrans_uac", "retrans_uas")
                for index, side in enumerate(("ours", "theirs"))
            },
        }
        print(
            f"{rate:>8} {row['ours_ms']:>9} {row['theirs_ms']:>10} {row['ratio']:>6}   {ratios}; "
            f"{row['failed_ours']}/{row['failed_theirs']}, {row['udp_drops_ours']}/{row['udp_drops_theirs']}",
            file=sys.stderr,
        )
    Registrar().stop()
    return {"measure": "compare", "dir": options.dir, "secs": options.secs, "rounds": options.rounds, "rates": results}
