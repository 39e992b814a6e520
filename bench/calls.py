"""Measures D and E: SIPp at both ends of the SUT, at a given rate or in search of the highest clean one."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import machine
import plan
from sut import Registrar, Sut

Result = dict[str, Any]


def _files(tag: str) -> tuple[Path, Path, Path]:
    return plan.RUN / f"{tag}.csv", plan.RUN / f"{tag}_err.log", plan.RUN / f"{tag}.out"


def _sipp(scenario: str, port: int, tag: str, *more: str) -> subprocess.Popen[bytes]:
    stat, errors, out = _files(tag)
    for path in (stat, errors):
        path.unlink(missing_ok=True)
    with out.open("w") as output:
        # -ci: without it SIPp opens its control port on every address of the machine.
        return subprocess.Popen(
            [
                "sipp", *more, "-sf", str(plan.HERE / "sipp" / scenario), "-i", plan.IP, "-p", str(port), "-nostdin",
                "-trace_stat", "-stf", str(stat), "-fd", "1", "-trace_err", "-error_file", str(errors),
                "-buff_size", "4000000", "-l", "15000", "-ci", plan.IP, "-cp", str(port + 4000),
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )


def _until_bound(port: int) -> None:
    for _ in range(60):
        if f":{port:04X} " in Path("/proc/net/udp").read_text():
            return
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGUSR1, wait: float = 3) -> None:
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stat(tag: str) -> dict[str, str]:
    with contextlib.suppress(OSError, IndexError), _files(tag)[0].open() as text:
        rows = list(csv.reader(text, delimiter=";"))
        return dict(zip(rows[0], rows[-1], strict=False))
    return {}


def _users(count: int) -> Path:
    path = plan.RUN / f"acc_{count}.csv"
    if not path.exists():
        path.write_text("SEQUENTIAL\n" + "".join(f"acc{number:06d}\n" for number in range(count)))
    return path


def run(
    options: Namespace, direction: str, rate: int, secs: float, *, target: str = "", uac: str = "", uas: str = "",
) -> Result:
    """Place `rate` calls/s for `secs` seconds and return the counts of both ends and the SUT's CPU."""
    sut, count, inbound = Sut(options), int(rate * secs), direction == "inbound"
    pids = [] if target else sut.pids()
    prefix = "in" if inbound else "out"
    uas_port, uac_port = (plan.PHONE_UAS, plan.PROVIDER_UAC) if inbound else (plan.PROVIDER_UAS, plan.PBX_UAC)
    callee = _sipp(uas or f"{prefix}_uas.xml", uas_port, "uas")
    _until_bound(uas_port)
    drops, cpu, before, start = machine.udp_drops(sut.port), machine.cpu_s(pids), machine.busy(), time.monotonic()
    caller = _sipp(
        uac or f"{prefix}_uac.xml", uac_port, "uac", target or options.sut, "-inf", str(_users(options.accounts)),
        "-r", str(rate), "-m", str(count), "-timeout", f"{secs + 25:g}s",
    )
    generator = 0.0
    try:
        while caller.poll() is None and time.monotonic() - start < secs + 40:
            time.sleep(0.05)
            generator = max(generator, machine.cpu_s([caller.pid, callee.pid]))
    finally:
        took, cpu = time.monotonic() - start, machine.cpu_s(pids) - cpu
        busy, drops = machine.busy_since(before), machine.udp_drops(sut.port) - drops
        end(caller)
        end(callee)
    near, far = _stat("uac"), _stat("uas")
    ok = int(near.get("SuccessfulCall(C)") or 0)
    result = {
        "measure": f"null_{direction}" if target else "D_inbound" if inbound else "E_outbound",
        "rate": rate, "secs": secs, "attempted": count, "created": int(near.get("TotalCallCreated") or 0),
        "ok": ok, "failed": count - ok, "sipp_failed": int(near.get("FailedCall(C)") or 0),
        "uas_ok": int(far.get("SuccessfulCall(C)") or 0), "uas_failed": int(far.get("FailedCall(C)") or 0),
        "retrans_uac": int(near.get("Retransmissions(C)") or 0), "retrans_uas": int(far.get("Retransmissions(C)") or 0),
        "wall_s": round(took, 2), "cps": round(ok / max(0.001, took - 0.65), 1),  # 0.65 s: the last call's own length
        "rtd_invite_180": near.get("ResponseTime1(C)"), "rtd_bye": near.get("ResponseTime2(C)"),
        "cpu_s_sut": round(cpu, 2), "cpu_ms_per_call": round(cpu * 1000 / ok, 4) if ok and pids else None,
        "sut_cores": round(cpu / took, 3), "gen_cpu_ms_per_call": round(generator * 1000 / ok, 4) if ok else None,
        "udp_drops": drops, **busy,
    }
    used = result["machine_busy_pct"] / 100 * (os.cpu_count() or 1)
    result["foreign_cores"] = round(max(0, used - result["sut_cores"] - generator / took), 2)
    result["clean"] = not result["failed"] and not result["uas_failed"] and result["cps"] >= 0.96 * rate
    if not result["clean"]:
        for tag in ("uac", "uas"):
            with contextlib.suppress(OSError):
                kept = plan.RUN / f"err_{result['measure']}_{tag}_{rate}.log"
                kept.write_text(_files(tag)[1].read_text(errors="replace")[:200_000])
    return result


def inbound(options: Namespace) -> Result:
    return run(options, "inbound", options.rate, options.secs)


def outbound(options: Namespace) -> Result:
    return run(options, "outbound", options.rate, options.secs)


def null(options: Namespace) -> Result:
    """SIPp to SIPp, no SUT: the yardstick of the machine's mood."""
    return run(options, "inbound", options.rate, options.secs, target=f"{plan.IP}:{plan.PHONE_UAS}")


def findmax(options: Namespace) -> Result:
    """Search the highest rate without a failed call: up by `factor`, then by halves."""
    low, high, rate, best = 0, None, options.start, None
    for _ in range(options.steps):
        result = run(options, options.dir, rate, options.secs)
        time.sleep(options.settle)
        if result["clean"]:
            low, best = rate, result
        else:
            high = rate
            if options.adapter and options.restart:
                restart(options)
        if high is None:
            rate = int(rate * options.factor)
        elif low == 0:
            rate //= 2
        elif high / low < 1.08:
            break
        else:
            rate = (low + high) // 20 * 10
    return {
        "measure": f"findmax_{options.dir}", "max_clean_cps": low, "first_unclean": high, "secs": options.secs,
        "best_cpu_ms_per_call": best and best["cpu_ms_per_call"],
    }


def restart(options: Namespace) -> None:
    """Start the SUT anew with `--accounts` accounts and wait until they are registered."""
    sut, registrar = Sut(options), Registrar()
    sut.verb("stop")
    registrar.command("reset")
    sut.env["N"] = str(options.accounts)
    sut.verb("prepare")
    sut.verb("start")
    for _ in range(300):
        if registrar.stats()["aors_ok"] >= options.accounts:
            return
        time.sleep(0.1)
