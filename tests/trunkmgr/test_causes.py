"""Every cause has its words, and the words are complete whatever the registration tells."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from trunkmgr.causes import CAUSES, REASON_LIMIT, Shown, answer, explain

ENGINE = Path(__file__).parents[2] / "sipengine" / "uac"

#: The causes of the design, and in which state each stands.
DESIGNED = {
    "wrong_password": "ref", "unknown_user": "ref", "realm_mismatch": "ref", "contact_number": "ref",
    "banned_403": "ref", "dns_empty": "fail", "tls_name": "fail", "tls_certificate": "fail",
    "tls_fingerprint": "fail", "tls_handshake": "fail", "timeout": "fail", "busy_503": "fail",
    "interval_423": "work",
    "nat_changed": "work", "short_grant": "ok", "worker_silent": "unk", "beat_late": "unk", "disabled": "off",
}


LOOKS_LIKE_A_CAUSE = re.compile(r"[a-z]+(_[a-z0-9]+)+|timeout|disabled|unreachable|unregistered")
#: Columns of a row that the engine names in a text of its own.
NO_CAUSE = {"l_uuid", "l_username", "l_domain", "r_username", "r_domain", "contact_addr", "contact_user", "auth_proxy"}


def emitted() -> set[str]:
    """All strings of the engine that it may use as a cause; names of slots are none."""
    found: set[str] = set()
    for path in ENGINE.glob("*.py"):
        tree = ast.parse(path.read_text())
        slots = {
            id(constant) for node in ast.walk(tree) if isinstance(node, ast.Assign)
            and any(isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets)
            for constant in ast.walk(node)
        }
        found |= {
            node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in slots
            and LOOKS_LIKE_A_CAUSE.fullmatch(node.value)
        }
    return found - NO_CAUSE


@pytest.mark.parametrize(("key", "state"), DESIGNED.items())
def test_designed_causes_have_texts_and_state(key: str, state: str) -> None:
    assert CAUSES[key].shown == state


def test_every_cause_of_the_engine_has_texts() -> None:
    causes = emitted()
    assert causes >= {"wrong_password", "timeout", "dns_empty", "unreachable", "no_binding", "unregistered"}
    assert not causes - set(CAUSES)


@pytest.mark.parametrize("key", CAUSES)
def test_texts_are_whole_without_any_fact(key: str) -> None:
    told = explain(key, None, "", {})
    for text in (told.short, told.sentence, told.fix):
        assert text
        assert not re.search(r"[{}]", text)
        assert "  " not in text
        assert "!" not in text
    assert told.sentence.endswith(".")


def test_facts_stand_in_the_texts() -> None:
    told = explain("realm_mismatch", 401, "Unauthorized", {"got": "rheintel.example", "want": "rheintel"})
    assert told.sentence == 'The provider asks for realm "rheintel.example", this trunk is set to "rheintel".'
    assert told.fix == 'Clear the realm to accept the provider\'s, or set it to "rheintel.example".'


def test_facts_from_the_network_are_not_read_as_templates() -> None:
    told = explain("realm_mismatch", 401, "", {"got": "{want.__class__}", "want": "x"})
    assert told.fix.endswith('"{want.__class__}".')


def test_an_unknown_cause_reads_as_the_raw_answer() -> None:
    assert explain("answer", 488, "Not Acceptable", {}).sentence == "Answer 488 Not Acceptable not known to us."
    assert explain("answer", None, "", {}).sentence == "No usable answer has come yet."


def test_reasons_are_cut() -> None:
    assert len(answer(500, "x" * 4000)) == REASON_LIMIT


def test_worst_state_ranks_first() -> None:
    assert sorted(Shown, key=lambda shown: shown.rank) == ["ref", "fail", "unk", "work", "ok", "off"]
    assert [shown.label for shown in Shown] == ["Refused", "Failing", "Unknown", "Refreshing", "Registered", "Disabled"]
