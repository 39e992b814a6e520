"""Following the tables: overlap, once each, failed looks, rows behind lines, the full compare."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from trunkmgr.causes import CAUSES
from trunkmgr.exceptions import UndecryptableSecret
from trunkmgr.models import Change, Credential, Domain, Provider, UacReg, UacRegOptions
from trunkmgr.services import accounts, credentials, domains, nodes, providers
from trunkmgr.sip import changes, store
from trunkmgr.sip.changes import ChangeLog, Patch, compare, read_rows, read_snapshot

pytestmark = pytest.mark.django_db


def account(l_uuid: str, **columns: object) -> UacReg:
    values = {
        "l_username": "100", "l_domain": "pbx.example", "r_username": "4930", "r_domain": "sip.example",
        "auth_username": "4930", "auth_password": "secret", **columns,
    }
    return accounts.save(UacReg(l_uuid=l_uuid, **values))


def line(number: int, key: str, age: float = 0) -> Change:
    change = Change.objects.create(pk=number, table="uacreg", key=key)
    Change.objects.filter(pk=number).update(time=timezone.now() - timedelta(seconds=age))
    return change


def look(log: ChangeLog) -> list[str]:
    new, lines = log.read()
    log.done(lines)
    return [key for _, key in new]


def test_each_line_once_also_when_ids_commit_out_of_order() -> None:
    line(10, "old", age=3600)
    line(20, "recent", age=5)
    log = ChangeLog()
    log.start()
    assert look(log) == []
    line(30, "a")
    assert look(log) == ["a"]
    line(25, "late")  # its transaction was longer
    line(15, "later still")  # drawn before the start
    assert look(log) == ["later still", "late"]
    assert look(log) == []


def test_the_overlap_moves_on() -> None:
    log = ChangeLog()
    log.start()
    line(30, "a", age=120)
    line(31, "b")
    assert look(log) == ["a", "b"]
    line(29, "beyond the overlap")
    assert look(log) == [], "the full compare finds it"
    assert log._seen.keys() == {31}


def test_the_overlap_moves_on_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    log = ChangeLog()
    line(30, "a", age=5)
    log.start()
    assert log._seen.keys() == {30}
    monkeypatch.setattr(changes, "OVERLAP", timedelta(seconds=1))
    worker = nodes.start("n")
    assert store.look(log, worker) == (Patch(), {})
    assert not log._seen, "else each look would read for ever what an import wrote"


def test_lines_that_are_known_are_counted_only(django_assert_num_queries: Any) -> None:
    log = ChangeLog()
    for number in range(1, 20):
        line(number, "a")
    assert len(look(log)) == 19
    with django_assert_num_queries(1) as queries:
        assert look(log) == []
    assert "COUNT" in queries[0]["sql"]


def test_a_failed_look_is_repeated() -> None:
    log = ChangeLog()
    log.start()
    line(1, "a")
    log.read()
    assert look(log) == ["a"]


def test_rows_behind_the_lines() -> None:
    provider = providers.save(Provider(name="P", domain="sip.example", proxy="sip:192.0.2.1"))
    account("direct")
    row = UacReg(
        l_uuid="via", l_username="1", l_domain="pbx.example", r_username="1", r_domain="sip.example", auth_password="x",
    )
    accounts.save(row, UacRegOptions(provider=provider))
    domains.save(Domain(l_domain="pbx.example", next_hop="sip:192.0.2.20"))

    patch = read_rows([("uacreg", "direct"), ("uacreg", "gone"), ("domain", "pbx.example"), ("domain", "gone.example")])
    assert patch.trunks["direct"].account.auth_password == "secret"
    assert patch.trunks["gone"] is None
    assert patch.domains["pbx.example"].next_hop == b"sip:192.0.2.20"
    assert patch.domains["gone.example"] is None

    patch = read_rows([("provider", str(provider.pk))])
    assert patch.providers.keys() == {provider.pk}
    assert patch.trunks["via"].account.auth_proxy == "sip:192.0.2.1", "accounts follow their provider"


def test_credentials_are_read_by_their_lines_and_in_the_full_compare() -> None:
    account("direct")
    before = read_snapshot()
    row = credentials.save(Credential(username="alice", password="s3cret", account_id="direct"))
    table, key = Change.objects.values_list("table", "key").last()
    patch = read_rows([(table, key), ("credential", "999")])
    assert patch
    assert patch.credentials[row.pk].credentials.password == b"s3cret"
    assert patch.credentials[999] is None
    assert compare(before).credentials == {row.pk: patch.credentials[row.pk]}
    after = before.patched(credentials=patch.credentials)
    assert [c.username for c in after.credentials_for(after.trunks["direct"])] == [b"4930", b"alice"]
    assert "s3cret" not in repr(after)
    credentials.remove(row.pk)
    assert compare(after).credentials == {row.pk: None}


def test_a_credential_that_no_key_opens_answers_nothing(caplog: pytest.LogCaptureFixture) -> None:
    row = credentials.save(Credential(realm="example.net", username="alice", password="s3cret"))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE trunkmgr_credential SET password = 'enc1:gAAAAAbroken'")
    with caplog.at_level(logging.ERROR):
        assert read_rows([("credential", str(row.pk))]).credentials == {row.pk: None}
    assert "alice in example.net" in caplog.text and "TRUNKMGR_FIELD_KEYS" in caplog.text


def spoil(l_uuid: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE uacreg SET auth_password = 'enc1:gAAAAAbroken' WHERE l_uuid = %s", [l_uuid])


def test_a_secret_that_no_key_opens_leaves_its_account_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    account("good")
    account("bad")
    old = read_snapshot()
    spoil("bad")
    with caplog.at_level(logging.ERROR):
        patch = read_rows([("uacreg", "good"), ("uacreg", "bad")])
    patch.keep_known(old.trunks)
    assert patch.trunks.keys() == {"good"}
    assert "The account bad cannot register." in caplog.text
    assert not compare(old), "it is not taken for deleted either"


def test_a_secret_that_no_key_opens_is_a_trunk_with_a_cause() -> None:
    account("good")
    account("bad")
    spoil("bad")
    assert read_snapshot().trunks["bad"].account.problem in CAUSES
    assert not read_snapshot().trunks["good"].account.problem


def test_a_wrong_key_keeps_the_worker_from_starting() -> None:
    account("a")
    read_snapshot()
    spoil("a")
    with pytest.raises(UndecryptableSecret, match="TRUNKMGR_FIELD_KEYS"):
        read_snapshot()


def test_the_full_compare_finds_what_bypassed_the_log() -> None:
    account("edited")
    account("deleted")
    domains.save(Domain(l_domain="pbx.example", next_hop="sip:192.0.2.20"))
    old = read_snapshot()
    assert not compare(old)
    UacReg.objects.filter(l_uuid="edited").update(l_username="200")
    UacReg.objects.filter(l_uuid="deleted").delete()
    Domain.objects.all().delete()
    patch = compare(old)
    assert patch.trunks.keys() == {"edited", "deleted"}
    assert patch.trunks["edited"].account.l_username == "200"
    assert patch.trunks["deleted"] is None
    assert patch.domains == {"pbx.example": None}


def test_many_accounts_in_few_queries(django_assert_num_queries: pytest.FixtureRequest) -> None:
    for number in range(5):
        account(f"a{number}")
    with django_assert_num_queries(6):
        assert len(read_snapshot().trunks) == 5
    with django_assert_num_queries(1):
        assert len(changes.read_rows([("uacreg", f"a{number}") for number in range(5)]).trunks) == 5
