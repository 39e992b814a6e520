"""What must never come twice, and in which order keys come."""

from __future__ import annotations

import os

from sipengine.identifiers import Identifiers


def test_keys_rise_and_differ_between_two_processes() -> None:
    one, other = Identifiers(os.urandom), Identifiers(os.urandom)
    keys = [one.key() for _ in range(3000)]
    assert keys == sorted(keys) and len(set(keys)) == 3000, "rows are found side by side"
    assert {len(key) for key in keys} == {16} and bytes.fromhex(keys[-1])
    assert other.key()[:10] != keys[0][:10]


def test_a_count_that_is_used_up_begins_anew_with_another_prefix() -> None:
    identifiers = Identifiers(os.urandom)
    first = identifiers.key()
    identifiers._count = 0xFFFFFF
    last, next_one = identifiers.key(), identifiers.key()
    assert last == first[:10] + "ffffff"
    assert next_one[10:] == "000000" and next_one[:10] != first[:10]


def test_branches_do_not_repeat_over_the_end_of_a_draw() -> None:
    identifiers = Identifiers(os.urandom)
    drawn = [identifiers.hex() for _ in range(2000)] + [identifiers.nonce().hex().encode() for _ in range(1000)]
    assert len(set(drawn)) == 3000
