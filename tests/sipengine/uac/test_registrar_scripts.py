"""Registrars by script: what another client's tests ask of it, asked of ours.

Left out, each for its reason: scripts that are no registration; what they expect of that client alone (the guess 3601
after a 423 that names no Min-Expires: ours doubles what it asked for); how often a new nonce is answered; and of the
NAT that gives us another port its challenge, which has no nonce and so no answer.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from sipengine.events import RegistrationState as State
from sipengine.message import Message
from tests.sipengine.uac.registrar import PASSWORD, Network, Reply, account, is_right
from tests.sipengine.uac.test_nat import LOCAL, Nat, contacts, named, start

TESTDATA = Path(os.environ.get("SIP_TESTDATA", Path(__file__).parents[3] / ".." / "shared" / "testdata"))
DATA = TESTDATA / "registrar-scripts" / "pjsip-recvfrom.json"
SCRIPTS = {script["id"]: script for script in json.loads(DATA.read_text())["scripts"]} if DATA.exists() else {}
pytestmark = pytest.mark.skipif(not SCRIPTS, reason=f"no test data at {DATA}")

NO_REGISTRATION = {"240_publish_scenarios", "300_timer_good", "400_inv_answered_with_less_media"}
PORT_CHANGES = "uas-register-ip-change-port-only/uas-register-ip-change-port-only.xml"
OF_THAT_CLIENT = {"Expires: 3601"}
OK = State.REGISTERED, ""
CASES: dict[str, tuple[dict[str, object], int, tuple[State, str]]] = {
    # Row, steps that concern us, and where it ends.
    "100_simple": ({}, 1, (State.REGISTERED, "short_grant")),
    "200_reg_good_enocredentiall": ({"auth_password": ""}, 1, (State.REFUSED, "no_password")),
    "201_reg_good_ok": ({"realm": "python"}, 2, OK),
    "202_reg_good_ok_wildcard": ({}, 2, OK),
    "205_reg_good_no_realm": ({"realm": "provider"}, 1, (State.REFUSED, "realm_mismatch")),
    "208_reg_good_retry_nonce_ok": ({"realm": "python"}, 3, OK),
    "209a_reg_handle_423_ok": ({}, 3, OK),
    "209c_reg_handle_423_bad_min_expires2": ({"expires": 300}, 2, (State.FAILING, "interval_423")),
    "231_reg_bad_fail_stale_false_nonce_changed": ({"realm": "python"}, 4, (State.REFUSED, "wrong_password")),
    # Without `stale` a new nonce is answered exactly once: the next may be the one that gets us banned.
    "234_reg_bad_stale_ok": ({"realm": "python"}, 3, (State.REFUSED, "wrong_password")),
    "235_reg_good_tel_uri_enocredential": (
        {"auth_password": "", "r_username": "+12345"}, 1, (State.REFUSED, "no_password"),
    ),
}  # fmt: skip


def test_every_script_is_played_or_left_out() -> None:
    assert set(SCRIPTS) == {*CASES, *NO_REGISTRATION}


@pytest.mark.parametrize("name", CASES)
def test_script(name: str) -> None:
    row, steps, end = CASES[name]
    script: list[dict[str, Any]] = SCRIPTS[name]["steps"] if SCRIPTS else []
    played: list[int] = []

    def answer(message: Message) -> Reply:
        number = len(played)
        if number >= len(script):
            return 423, "Interval Too Brief", []
        step, text = script[number], message.serialize().decode()
        assert all(re.search(wanted, text) for wanted in step["must_match"] if wanted not in OF_THAT_CLIENT), text
        assert not any(re.search(unwanted, text) for unwanted in step["must_not_match"]), text
        proof = message.get(b"Authorization")
        assert proof is None or is_right(proof.decode(), PASSWORD)
        played.append(message.cseq[0])
        headers = list(step["response_headers"])
        if step["respond"] == 200 and not any(header.startswith("Contact") for header in headers):
            # RFC 3261 §10.3: a 200 lists the bindings; without ours it grants us nothing.
            headers.append(f"Contact: {(message.get(b'Contact') or b'').decode()}")
        return step["respond"], "As the script says", headers

    values: dict[str, object] = {"auth_username": "user" if "username=\"user\"" in str(script) else "username"}
    network = Network(answer)
    network.registrations.change(account(**{**values, **row}), network.now)
    network.run(2)
    assert len(played) == steps and played == sorted(set(played))
    last = network.last()
    assert (last.state, last.cause) == end
    assert last.next_attempt_at is not None and last.next_attempt_at <= last.at + 3600, "never given up"
    if name == "100_simple":
        assert last.granted == 221 and last.bound_until_at is not None
        assert 32 <= last.bound_until_at - last.next_attempt_at <= 32 + 0.05 * 221


def test_a_nat_gives_us_another_port() -> None:
    text = (TESTDATA / "sipp" / "pjsip__pjproject" / PORT_CHANGES).read_text()
    challenge, *ports = re.findall(r"SIP/2\.0 (\d+) .*\n.*received=1\.1\.1\.1;rport=(\d+)", text)
    assert challenge[0] == "401" and {code for code, _ in ports} == {"200"}
    network = Nat(lambda message: (200, "OK", [f"Contact: {line.decode()}" for line in message.get_all(b"Contact")]))
    number = iter(range(len(ports)))
    deliver = network._deliver

    def seen(data: bytes, flow: object) -> None:
        network.outside = f"1.1.1.1:{ports[next(number)][1]}"
        deliver(data, flow)

    network._deliver = seen  # type: ignore[method-assign]
    start(network)
    while len(network.sent) < len(ports):
        network.run((network.last().next_attempt_at or 0) - network.now + 3)
    first, second = named("1.1.1.1:1111"), named("1.1.1.1:2222")
    assert [contacts(each.message) for each in network.sent] == [
        [named(LOCAL)], [first, f"{named(LOCAL)};expires=0"], [first], [second, f"{first};expires=0"], [second],
        [second],
    ], "at once, with the old one taken back"
