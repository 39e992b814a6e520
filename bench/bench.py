#!/usr/bin/env python3
"""SIP trunk benchmark that knows nothing of the system it measures; README.md has the contract and the verbs.

Each measure prints one JSON line and appends it to --out. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calls
import capture
import compare
import plan
import refreshes
import registrations

MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "storm": registrations.storm, "refresh": refreshes.refresh, "addlat": registrations.addlat,
    "idle": registrations.idle, "mem": registrations.mem,
    "inbound": calls.inbound, "outbound": calls.outbound, "findmax": calls.findmax, "null": calls.null,
    "latency": capture.latency, "trace": capture.trace,
    "compare": compare.compare,
}
BRIEF = (
    "measure", "rate", "n", "attempted", "ok", "failed", "uas_failed", "cps", "clean", "retrans", "retrans_uac",
    "retrans_uas", "t_start_to_all", "burst_s", "cpu_ms_per_call", "sut_cores", "gen_cpu_ms_per_call", "udp_drops",
    "foreign_cores", "steal_pct", "max_clean_cps", "first_unclean", "to_register_median_s", "to_register_max_s",
    "rss_sum_mb",
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("measure", choices=sorted(MEASURES))
    add("--adapter", help="script of the system under test")
    add("--against", default=str(plan.HERE / "sut_kamailio.sh"), help="compare, refresh: script of the other system")
    add("--sut", default=f"{plan.IP}:{plan.SUT}", help="IP:PORT")
    add("--pids", help="a running system without adapter: all its processes, separated by commas")
    add("-e", "--env", action="append", metavar="K=V", help="environment of the adapter; may be repeated")
    add("--label", default="")
    add("--out", type=Path, default=plan.RUN / "results.jsonl")
    add("--brief", action="store_true", help="print the main figures only")
    add("--n", type=int, default=100, help="storm: accounts")
    add("--accounts", type=int, default=100, help="accounts to call, or to refresh")
    add("--timeout", type=float, default=120)
    add("--tail", type=float, default=1.0)
    add("--grant", type=int, default=0)
    add("--expires", type=int, default=60, help="refresh: seconds asked for")
    add("--nonce", type=int, default=300, help="refresh: seconds that the registrar takes a nonce again; 0: never")
    add("--rate", type=int, default=50)
    add("--rates", default="50,500,1000,2000", help="compare: calls/s, separated by commas")
    add("--rounds", type=int, default=3, help="compare, refresh: pairs (at each rate)")
    add("--secs", type=int, default=20)
    add("--dir", choices=["inbound", "outbound"], default="inbound", help="compare, findmax, latency, trace")
    add("--start", type=int, default=500)
    add("--factor", type=float, default=1.5)
    add("--steps", type=int, default=8)
    add("--settle", type=float, default=2)
    add("--restart", action="store_true")
    add("--count", type=int, default=5)
    add("--gap", type=float, default=1.0)
    add("--verb", default="add")
    add("--prefix", default="new")
    add("--name", default="trace")
    add("--sbye", action="store_true", help="trace: the callee hangs up")
    if parser.parse_args().measure == "refresh":
        parser.set_defaults(accounts=1000, secs=60)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    plan.RUN.mkdir(parents=True, exist_ok=True)
    result = MEASURES[options.measure](options)
    result |= {"env": options.env, "sut": options.sut, "wall": time.strftime("%H:%M:%S")}
    if options.label:
        result["label"] = options.label
    with options.out.open("a") as out:
        out.write(json.dumps(result) + "\n")
    if options.brief:
        print(" ".join(f"{key}={result[key]}" for key in BRIEF if result.get(key) is not None))
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
