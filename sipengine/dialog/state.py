"""A call's record as sealed text, for calls whose token does not tell how their CSeq is counted (RFC 3261 §12.2.1.1).

The text names hidden callers, so it is sealed with the same keys as the tokens; who stores it cannot read it.
"""

from __future__ import annotations

import json

from sipengine.dialog.cseq import JUMP, Numbering, Sequence
from sipengine.dialog.record import DialogRecord, DialogTable
from sipengine.dialog.seal import Sealer
from sipengine.dialog.views import Views

BOUND_TO = b"dialog"
INVITES = 8
"""Of each direction; older ones have long had their ACK."""


def write(record: DialogRecord, sealer: Sealer) -> str:
    views = record.views
    sequences = {
        direction: [
            sequence.last_a, sequence.last_b, sequence.earlier,
            [[_text(tag), number, sent.number] for (tag, number), sent in list(sequence.invites.items())[-INVITES:]],
        ]
        for direction, sequence in (record.numbering.directions if record.numbering is not None else {}).items()
    }
    values = [
        _text(record.key), [_text(value) for value in views[:4]], views.hidden, views.contact, _text(record.token),
        record.mark, record.l_uuid, record.provider, [_text(tag) for tag in record.tags], record.lifetime, sequences,
    ]
    return sealer.seal(json.dumps(values, separators=(",", ":")).encode(), BOUND_TO).decode()


def read(key: str, state: str, expires_at: float, sealer: Sealer, table: DialogTable, now: float) -> bool:
    """Put the record of a call back into the table; False for a state that no key of ours opens."""
    plain = sealer.open(state.encode(), BOUND_TO)
    if plain is None:
        return False
    (
        record_key, (from_caller, from_callee, to_caller, to_callee), hidden, contact, token,
        mark, l_uuid, provider, tags, lifetime, sequences,
    ) = json.loads(plain)  # fmt: skip
    views = Views(
        _bytes(from_caller), _bytes(from_callee), _bytes(to_caller), _bytes(to_callee), hidden, contact
    )
    record = DialogRecord(table, _bytes(record_key), views, expires_at)
    record.token, record.mark, record.l_uuid, record.provider = _bytes(token), mark, l_uuid, provider
    record.tags, record.lifetime = tuple(_bytes(tag) for tag in tags), lifetime
    record.answered = True  # one that was not had its INVITE's transaction, which ended with the process
    numbering = record.numbering = Numbering()
    numbering.stored = key
    for direction, (last_a, last_b, earlier, invites) in sequences.items():
        sequence = numbering.directions[int(direction)] = Sequence(last_a, last_b, earlier)
        sequence.jump = JUMP
        for tag, number, sent in invites:
            sequence.remember(_bytes(tag), number, sent, ())
    table.put_back(record, now)
    return True


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
