"""Draws docs/state-machines.md from `sipengine.transaction.tables`; a test holds both together.

usage: python -m docs.state_machines
"""

from __future__ import annotations

from pathlib import Path

from sipengine.transaction import tables
from sipengine.transaction.tables import Step, Table
from sipengine.transaction.timers import NONE, RETRANSMIT, D, I, J, K, L, M

PAGE = Path(__file__).with_name("state-machines.md")
CLIENT = ("Proceeding", "Completed", "Accepted", "Terminated")
SERVER = ("Trying", "Proceeding", "Completed", "Confirmed", "Accepted", "Terminated")
RESPONSES = ("1xx", "2xx", "300-699")
ACTIONS = (
    (tables.ACK, "ACK"), (tables.AGAIN, "send again"), (tables.SEND, "send"), (tables.HUNDRED, "100"),
    (tables.PASS, "to the user"), (tables.TELL, "tell the user"),
)  # fmt: skip
MACHINES: tuple[tuple[str, str, Table, tuple[str, ...], tuple[str, ...], dict[int, str]], ...] = (
    (
        "INVITE client", "RFC 3261 §17.1.1, RFC 6026 §7.2", tables.INVITE_CLIENT, ("Calling", *CLIENT),
        (*RESPONSES, "timer A", "timer B", "timer ends", "transport error"), {RETRANSMIT: "A", D: "D", M: "M"},
    ),
    (
        "Non-INVITE client", "RFC 3261 §17.1.2", tables.NON_INVITE_CLIENT, ("Trying", *CLIENT),
        (*RESPONSES, "timer E", "timer F", "timer ends", "transport error"), {RETRANSMIT: "E", K: "K"},
    ),
    (
        "INVITE server", "RFC 3261 §17.2.1, RFC 6026 §7.1", tables.INVITE_SERVER, SERVER,
        (*RESPONSES, "INVITE again", "timer G", "timer ends", "ACK", "user stays silent"),
        {RETRANSMIT: "G", I: "I", L: "L"},
    ),
    (
        "Non-INVITE server", "RFC 3261 §17.2.2, RFC 4320 §4", tables.NON_INVITE_SERVER, SERVER,
        (*RESPONSES, "request again", "T2 reached", "timer ends", "ACK", "user stays silent"), {J: "J", L: "L"},
    ),
)  # fmt: skip
HEAD = """# The state machines

Drawn from `sipengine/transaction/tables.py` by `python -m docs.state_machines`.
`tests/sipengine/transaction/test_tables.py` checks every cell, and that this page is up to date.

An event that has no arrow in a state is absorbed there: nothing is sent, nobody hears of it. Behind the slash: what is
done, and the timer that starts. "Timer ends" is D, I, J, K, L or M, whichever runs (H: the sum of all waits of G), and
64\\*T1 after a CANCEL counts as timer B. Over a reliable transport D, I, J and K are zero, and A, E and G never fire.
"User stays silent": a hook's `drop()`, or a request other than INVITE whose far side never answered.
"""


def page() -> str:
    return "\n".join([HEAD, *(diagram(*machine) for machine in MACHINES)])


def diagram(
    title: str, source: str, table: Table, states: tuple[str, ...], events: tuple[str, ...], letters: dict[int, str]
) -> str:
    """One machine as a mermaid diagram; arrows between the same two states share a label."""
    first = states[0]
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, row in zip(states, table, strict=True):
        for event, step in zip(events, row, strict=True):
            if step is not None:
                arrows.setdefault((state, states[step[0]]), []).append(label(event, step, letters))
    lines = [f"## {title}", "", f"{source}.", "", "```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for (source_state, target), labels in arrows.items():
        lines.append(f"    {source_state} --> {target}: {'<br>'.join(labels)}")
    lines += [f"    {states[-1]} --> [*]", "```", ""]
    return "\n".join(lines)


def label(event: str, step: Step, letters: dict[int, str]) -> str:
    assert step is not None
    _, timer, action = step
    done = [text for bit, text in ACTIONS if action & bit]
    if timer != NONE:
        done.append(f"start {letters[timer]}")
    return event if not done else f"{event} / {', '.join(done)}"


if __name__ == "__main__":
    PAGE.write_text(page())
