"""Two ways of counting one direction, and what of them outlives the process."""

from __future__ import annotations

import pytest

from sipengine.dialog import state
from sipengine.dialog.cseq import JUMP, Numbering, Sequence
from sipengine.dialog.record import DialogTable
from sipengine.dialog.seal import Sealer
from sipengine.dialog.views import Views
from sipengine.timerqueue import TimerQueue


@pytest.mark.rfc("3261", "12.2.1.1")
def test_numbers_rise_on_both_sides_whatever_the_sender_does() -> None:
    sequence = Sequence(1, 1)
    assert [sequence.take(number) for number in (2, 3, 3, 7)] == [2, 3, 3, 7]
    assert sequence.again() == 8
    assert [sequence.take(number) for number in (8, 9, 12)] == [9, 10, 13]
    assert sequence.again() == 14
    assert [sequence.take(number) for number in (12, 13)] == [15, 16]


def test_an_invite_keeps_its_number_until_no_ack_can_come() -> None:
    sequence = Sequence(1, 2)
    sequence.remember(b"", 1, 2, (b"Authorization: x",))
    sequence.remember(b"t", 5, 9, ())
    assert (sequence.number_of(b"t", 1), sequence.number_of(b"t", 5)) == (2, 9)
    found = sequence.invite(b"other", 1)
    assert found is not None and found.lines == (b"Authorization: x",)
    assert sequence.number_of(b"t", 4) == 4
    found.over_at = 10.0
    sequence.prune(9.0)
    assert sequence.invites
    sequence.prune(10.0)
    assert sequence.invite(b"t", 1) is None and sequence.number_of(b"t", 1) == 2


@pytest.mark.checklist("K2")
def test_a_stored_call_comes_back_for_its_keys_only_and_shows_nobody() -> None:
    table = DialogTable(TimerQueue())
    views = Views(b'"Al\xe4ce" <sip:alice@pbx.example>', b"<sip:4930@provider.example>", hidden=3, contact=True)
    record = table.add(b"call1", b"ct", views, 100.0, 0.0)
    record.token, record.mark, record.l_uuid, record.provider, record.tags = b";vsf=x", "0" * 16, "berlin", 2, (b"pt",)
    sequence = Sequence(4, 7)
    sequence.remember(b"pt", 4, 7, (b"Authorization: secret",))
    record.numbering = Numbering()
    record.numbering.directions[2] = sequence
    nonce = iter(range(9)).__next__
    sealer = Sealer((b"a" * 32,), lambda: b"%012d" % nonce())
    text = state.write(record, sealer)
    assert "alice" not in text and "secret" not in text and text.isascii() and text.isprintable()
    other = DialogTable(TimerQueue())
    assert not state.read("k", text, 100.0, Sealer((b"b" * 32,), lambda: b"0" * 12), other, 0.0)
    assert not other.records
    assert state.read("k", text, 100.0, sealer, other, 0.0)
    back = other.find(b"call1", b"ct")
    assert back is not None and back.views == views and back.answered
    assert (back.token, back.mark, back.l_uuid, back.provider) == (b";vsf=x", "0" * 16, "berlin", 2)
    assert back.numbering is not None and back.numbering.stored == "k"
    again = back.numbering.directions[2]
    assert again.number_of(b"pt", 4) == 7 and again.invite(b"pt", 4).lines == ()  # type: ignore[union-attr]
    assert again.take(5) == 8 + JUMP and again.take(6) == 9 + JUMP
