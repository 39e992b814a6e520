"""Registrars by script: what another client's tests ask of it, asked of ours.

Left out, each for its reason: scripts that are no registration; what they expect of that client alone (the guess 3601
after a 423 that names no Min-Expires: ours doubles what it asked for); and how often a new nonce is answered.
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
from tests.sipengine.uac.registrar import Network, Reply, account

TESTDATA = Path(os.environ.get("SIP_TESTDATA", Path(__file__).parents[3] / ".." / "shared" / "testdata"))
DATA = TESTDATA / "registrar-scripts" / "pjsip-recvfrom.json"
SCRIPTS = {script["id"]: script for script in json.loads(DATA.read_text())["scripts"]} if DATA.exists() else {}
pytestmark = pytest.mark.skipif(not SCRIPTS, reason=f"no test data at {DATA}")

NO_REGISTRATION = {"240_publish_scenarios", "300_timer_good", "400_inv_answered_with_less_media"}
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
    assert (network.last().state, network.last().cause) == end
    if name == "100_simple":
        assert network.last().granted == 221
