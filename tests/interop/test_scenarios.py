"""SIPp scenarios that others wrote, unmodified, through the shipped engine as a process of its own.

`BASELINE`: what a stock Kamailio 5.6.3 passes.  The others are what applies to a proxy: cancel, forking, failover,
PRACK, UPDATE, re-INVITE, refusals, session timers.  Where a scenario has one side only, the other is one of the set or
one of ours (`scenarios/`).  `LEFT_OUT` names the rest of those categories and why no proxy of this kind passes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop.peers import SCENARIOS, _bound
from tests.interop.programs import ROOT, Program, eventually, free_port, missing, program

DATA = Path(os.environ.get("SIP_TESTDATA", ROOT.parent / "shared" / "testdata")) / "sipp"
HOST = "127.0.0.1"
SECONDS = 25
AT_ONCE = 4

SIPHON, DRACHTIO, SRF = "siphon-project__siphon-sip", "drachtio__drachtio-server", "drachtio__drachtio-srf"
JAMBONZ, SIPWISE, ASTERISK = "jambonz__sbc-outbound", "sipwise__kamailio-config-tests", "asterisk__testsuite"
FLEXISIP, PJSIP, SIPP = "BelledonneCommunications__flexisip", "pjsip__pjproject", "SIPp__sipp"
FORK = f"{FLEXISIP}/fork_invite_cancel"
OFF_NOMINAL = f"{ASTERISK}/basic_calls__outgoing__off-nominal"
CANCELED = f"{OFF_NOMINAL}__call_canceled"
ANSWERS = f"{DRACHTIO}/uas-success/uas-success.xml"
ANSWERS_LATER = f"{DRACHTIO}/uas-183-180-200/uas-183-180-200.xml"
"""After 2.5 s: another one that refuses is heard before, and not cancelled in the middle of it."""
CALLS = f"{DRACHTIO}/uac/uac.xml"


@dataclass(frozen=True)
class Case:
    name: str
    caller: str
    """File of the set, or of `scenarios/` where it has no folder."""
    callees: tuple[str, ...] = ()
    joined: str = ","
    """`,`: the callees are called at once; `>`: one after the other."""


def pair(folder: str, caller: str, callee: str, name: str = "") -> Case:
    return Case(name or folder.rpartition("/")[2], f"{folder}/{caller}", (f"{folder}/{callee}",))


def called(folder: str, callee: str, caller: str = CALLS) -> Case:
    vendor, _, case = folder.partition("/")
    return Case(f"{vendor.partition('__')[0]}-{case}-{callee.removesuffix('.xml')}", caller, (f"{folder}/{callee}",))


BASELINE = [
    pair(f"{SIPHON}/failure", "b2bua_failure_uac.xml", "b2bua_failure_uas.xml"),
    pair(f"{SIPHON}/invite_fast", "invite_uac_fast.xml", "invite_uas_fast.xml"),
    pair(f"{SIPHON}/prack", "prack_uac.xml", "prack_uas.xml"),
    pair(f"{SIPHON}/proxy_refer", "proxy_refer_uac.xml", "proxy_refer_uas.xml"),
    pair(f"{SIPHON}/reinvite", "reinvite_uac.xml", "reinvite_uas.xml"),
]
CASES = [
    *BASELINE,
    # cancel
    called(f"{SIPHON}/cancel", "b2bua_cancel_uas.xml", "calls_and_cancels.xml"),
    called(f"{JAMBONZ}/uas-cancel", "uas-cancel.xml", "calls_and_cancels.xml"),
    called(f"{DRACHTIO}/uas-cancel", "uas-cancel.xml", "calls_and_cancels.xml"),
    called(f"{SIPHON}/reject", "reject_uas.xml", "calls_and_cancels.xml"),
    called(f"{OFF_NOMINAL}__bob_does_not_answer", "receive.xml", "calls_and_cancels.xml"),
    called(f"{DRACHTIO}/uas-ackbye", "uas-ackbye.xml", "cancels_too_late.xml"),
    called(CANCELED, "call_cancel_valid_sdp.xml", "cancels_too_late.xml"),
    called(CANCELED, "call_cancel_invalid_sdp.xml", "cancels_too_late.xml"),
    called(CANCELED, "call_cancel_missing_sdp.xml", "cancels_too_late.xml"),
    # forking
    Case("fork-cancelled", "cancels_a_fork.xml", (f"{FORK}/client1-ringing.xml", f"{FORK}/client2-ringing.xml")),
    Case("fork-one-answers", CALLS, (f"{SIPHON}/cancel/b2bua_cancel_uas.xml", ANSWERS)),
    Case("fork-one-refuses", CALLS, (f"{DRACHTIO}/uas-fail-486/uas-fail-486.xml", ANSWERS_LATER)),
    Case("fork-one-503", CALLS, (f"{JAMBONZ}/uas-503/uas-503.xml", ANSWERS_LATER)),
    # failover
    Case(
        "failover", f"{SIPHON}/failover/failover_uac.xml",
        (f"{SIPHON}/failover/failover_reject_uas.xml", f"{SIPHON}/failover/failover_answer_uas.xml"), ">",
    ),
    Case("failover-503", f"{SIPHON}/failover/failover_uac.xml", (f"{JAMBONZ}/uas-503/uas-503.xml", ANSWERS), ">"),
    Case(
        "invite_peerout_failover", f"{SIPHON}/failover/failover_uac.xml",
        tuple(f"{SIPWISE}/invite_peerout_failover/sipp_scenario_responder0{n}.xml" for n in (0, 2)), ">",
    ),
    Case("transport_error", f"{SIPHON}/transport_error/transport_error_uac.xml"),
    # PRACK, UPDATE, re-INVITE, session timers
    called(f"{SIPHON}/reliable_prov", "b2bua_reliable_prov_uas.xml", "calls_and_pracks.xml"),
    pair(f"{SIPHON}/update", "b2bua_update_uac.xml", "b2bua_update_uas.xml"),
    called(
        f"{PJSIP}/uas-answer-200-update-without-sdp", "uas-answer-200-update-without-sdp.xml", "calls_and_updates.xml"
    ),
    called(f"{DRACHTIO}/uas-success-reinvite", "uas-success-reinvite.xml", "calls_and_reinvites.xml"),
    Case(
        "uac-refresh", f"{DRACHTIO}/uac-refresh/uac-refresh.xml",
        (f"{DRACHTIO}/uas-success-reinvite/uas-success-reinvite.xml",),
    ),
    pair(f"{SIPHON}/session_timer", "b2bua_session_timer_uac.xml", "b2bua_session_timer_uas.xml"),
    # calls, refusals, hops, requests that are no INVITE
    Case("uac", CALLS, (ANSWERS,)),
    Case("uac-proxy", f"{SRF}/uac-proxy/uac-proxy.xml", (ANSWERS,)),
    Case("uac-displayname-from", f"{SRF}/uac-displayname-from/uac-displayname-from.xml", (ANSWERS,)),
    Case("uac-long-uri", f"{DRACHTIO}/uac-long-uri/uac-long-uri.xml", (ANSWERS,)),
    called(f"{DRACHTIO}/uas-183-180-200", "uas-183-180-200.xml"),
    called(f"{SIPWISE}/invite", "sipp_scenario_responder00.xml", f"{SIPHON}/invite_fast/invite_uac_fast.xml"),
    called(f"{ASTERISK}/basic_calls__outgoing__nominal__early_media", "ua1_invite_recv.xml"),
    called(f"{DRACHTIO}/uas-fail-486", "uas-fail-486.xml", f"{SIPHON}/failure/b2bua_failure_uac.xml"),
    called(
        f"{OFF_NOMINAL}__bob_is_busy", "receive-ipv4-udp.xml",
        f"{SIPHON}/failure/b2bua_failure_uac.xml",
    ),
    Case("uac-expect-404", f"{SRF}/uac-expect-404/uac-expect-404.xml", (f"{SIPHON}/failover/failover_reject_uas.xml",)),
    Case("max_forwards", f"{SIPHON}/max_forwards/max_forwards_uac.xml"),
    pair(f"{SIPHON}/message_auto100", "message_auto100.xml", "message_auto100_uas.xml"),
]  # fmt: skip

LEFT_OUT = {
    f"{SIPP}/rr-gh0850": "its caller takes no 100, which RFC 3261 §17.2.1 asks for; its Route leads to fixed ports",
    f"{SIPHON}/cancel/cancel_uac.xml": "SIPp 3.6.1 does not load it: only optional answers stand before a pause",
    f"{SIPHON}/cancel/b2bua_cancel_uac.xml": "its CANCEL has a branch of its own: 481 is the answer (RFC 3261 §9.1)",
    f"{JAMBONZ}/uac-cancel": "its CANCEL and INVITE differ in the From tag; SIPp then waits for a 487 of neither",
    f"{DRACHTIO}/uac-drop-200-then-cancel": "expects 481 from a UAS to a late CANCEL; a proxy in Accepted says 200",
    f"{CANCELED}/call_invalid_sdp.xml": "answers CANCEL and never the INVITE: the 487 comes after 64*T1",
    f"{CANCELED}/call_missing_sdp.xml": "answers CANCEL and never the INVITE: the 487 comes after 64*T1",
    f"{FORK}/client3.xml": "takes one 180 only, though both forks ring: which comes first is chance",
    f"{DRACHTIO}/uac-forking": "its Call-ID, tags and branch are fixed words of an old trace",
    f"{PJSIP}/uas-forked-100rel": "plays five early dialogs in one UAS; needs a UA that answers each by PRACK",
    f"{SIPWISE}/invite_q_forking": "its callee answers CANCEL and never the INVITE; hunts by the time a callee rings",
    f"{DRACHTIO}/uas-prack": "its reliable 180 has no Contact, so that no PRACK can be aimed at it (RFC 3262 §4)",
    f"{SRF}/uas-prack": "its reliable 180 has no Contact, so that no PRACK can be aimed at it (RFC 3262 §4)",
    f"{SIPHON}/reliable_prov/b2bua_reliable_prov_uac.xml": "asserts that a B2BUA takes `Require: 100rel` away",
    f"{ASTERISK}/rel100__*": "ask for what an Asterisk that answers by itself puts into its 183",
    f"{PJSIP}/uac-prack-sdp-decline": "tests the offers of a UAS",
    f"{DRACHTIO}/uac-update-during-invite": "takes no 100 and no callee of the set answers its UPDATE while it rings",
    f"{PJSIP}/uas-timer-reinvite": "its callee waits for the second refresh of a UAC with session timers",
    f"{PJSIP}/uac-early-recv-update-481": "tests a UAS that knows no early dialog",
    f"{SIPHON}/bye_glare": "expects a B2BUA, which answers the second BYE by itself",
    f"{SIPHON}/reinvite_bleg": "both sides pause 200 ms: whether BYE or its recv comes first is chance",
    f"{DRACHTIO}/uas-reinvite-overlap": "tests the UAC of a B2BUA",
    f"{DRACHTIO}/uac-recv-reinvite": "its caller waits for a re-INVITE that no callee of the set sends at that time",
    f"{DRACHTIO}/uac-expect-503": "503 of a callee is passed on as 500 (RFC 3261 §16.7 step 6)",
    f"{DRACHTIO}/uac-drop-one-503": "503 of a callee is passed on as 500 (RFC 3261 §16.7 step 6)",
    f"{SIPHON}/reject/reject_uac.xml": "expects the 503 of a B2BUA",
    f"{SIPHON}/subscribe": "its NOTIFY has `To: <sip:watcher@>`: 400 is the answer",
    f"{SIPHON}/failover/failover_register_path.xml": "registers at the proxy, which is no registrar",
}
"""Why these are not run; a scenario that one day can be is moved up."""


def test_what_is_left_out_is_there_and_is_not_run() -> None:
    used = {part for case in CASES for part in (case.caller, *case.callees)}
    for name, why in LEFT_OUT.items():
        assert len(why) > 20
        if name.endswith(".xml"):
            assert name not in used


def test_all_scenarios_that_kamailio_passes_unmodified_are_run() -> None:
    index = DATA / "index.json"
    if not index.is_file():
        missing("no test data; set SIP_TESTDATA")
    passed = {
        entry["dir"].removeprefix("sipp/") for entry in json.loads(index.read_text())["cases"]
        if entry.get("kamailio_5_6_3_baseline", "").startswith("pass unmodified")
    }  # fmt: skip
    assert passed == {case.caller.rpartition("/")[0] for case in BASELINE}


@dataclass(frozen=True)
class Outcome:
    caller: int | None
    callees: tuple[int | None, ...]
    told: str

    @property
    def passed(self) -> bool:
        return self.caller == 0 and not any(code != 0 for code in self.callees)


def path_of(name: str) -> str:
    return str(DATA / name if "/" in name else SCENARIOS / name)


def sipp(folder: Path, side: str, scenario: str, port: int, *more: str) -> Program:
    folder.mkdir(parents=True, exist_ok=True)
    return Program(
        [
            program("sipp"), "-sf", path_of(scenario), "-i", HOST, "-p", str(port), "-m", "1", "-s", "bob", "-nostdin",
            "-timeout", str(SECONDS), "-timeout_error", "-trace_err", "-error_file", str(folder / f"{side}.err"), *more,
        ],
        log=folder / f"{side}.log", cwd=folder,
    )  # fmt: skip


def code_of(run: Program, seconds: float) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return run.wait(seconds)
    return None


def play(case: Case, folder: Path) -> Outcome:
    """Relay, callees, caller; every program is ended."""
    folder.mkdir(parents=True)
    ports = [free_port(HOST) for _ in range(len(case.callees) + 2)]
    targets = [f"{HOST}:{port}" for port in ports[2:]] or [f"{HOST}:{ports[1]};transport=tcp"]
    with contextlib.ExitStack() as ended:
        proxy = Program(
            [sys.executable, "-m", "tests.interop.relay", f"{HOST}:{ports[0]}", case.joined.join(targets)],
            log=folder / "relay.log", cwd=ROOT,
        )  # fmt: skip
        ended.callback(proxy.stop)
        eventually(lambda: "ready" in proxy.text, 15, "the relay starts")
        callees = []
        for number, (scenario, port) in enumerate(zip(case.callees, ports[2:], strict=True)):
            callees.append(sipp(folder, f"callee{number}", scenario, port))
            ended.callback(callees[-1].kill)
        for port in ports[2:]:
            eventually(lambda at=port: _bound((HOST, at)), 5, "a callee binds its socket")
        towards = ["-rsa", f"{HOST}:{ports[0]}", f"{HOST}:{ports[2]}"] if callees else [f"{HOST}:{ports[0]}"]
        caller = sipp(folder, "caller", case.caller, ports[1], *towards)
        ended.callback(caller.kill)
        codes = [code_of(caller, SECONDS + 3), *(code_of(callee, 5) for callee in callees)]
        errors = [path.read_text(errors="replace")[-1500:] for path in sorted(folder.glob("*.err"))]
        return Outcome(codes[0], tuple(codes[1:]), "\n".join(errors))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Outcome]]]:
    """All cases, a few at once, each on ports of its own."""
    if not DATA.is_dir():
        missing("no test data; set SIP_TESTDATA")
    program("sipp")
    folder = tmp_path_factory.mktemp("scenarios")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {case.name: pool.submit(play, case, folder / case.name) for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_scenario(case: Case, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[case.name].result()
    assert outcome.passed, f"caller {outcome.caller}, callees {outcome.callees}\n{outcome.told}"


def test_count(outcomes: dict[str, Future[Outcome]], capsys: pytest.CaptureFixture[str]) -> None:
    results = {name: future.result().passed for name, future in outcomes.items()}
    with capsys.disabled():
        sys.stdout.write(
            f"\nSIPp scenarios passed: {sum(results.values())} of {len(results)}, "
            f"{len(BASELINE)} of them those that Kamailio passes; left out with a reason: {len(LEFT_OUT)}\n"
        )
    assert all(results.values())
