"""Import and export of accounts: nothing half, nothing silent, nothing secret."""

from __future__ import annotations

import csv
import io
import json

import pytest
from cryptography.fernet import Fernet
from django.db import DatabaseError, connection

from trunkmgr.models import Change, Provider, Registration, UacReg, UacRegOptions
from trunkmgr.models.credential import PREFIX
from trunkmgr.services import exchange
from trunkmgr.services.exchange_file import COLUMNS, SEED_COLUMNS, ImportRefused, read_rows

pytestmark = pytest.mark.django_db

PASSWORD = "s3cret;\"with',everything"
HA1 = "0123456789abcdef0123456789abcdef"


def rows(*values: dict[str, object]) -> str:
    """A JSON file of accounts that are complete but for what is given."""
    return json.dumps([
        {
            "l_uuid": "4711", "l_username": "alice", "l_domain": "pbx.example", "r_username": "49895550100",
            "r_domain": "sip.rheintel.example", "auth_username": "49895550100", "auth_password": PASSWORD,
        } | value
        for value in values
    ], indent=1)


def refusals(data: str | bytes, format: str | None = None) -> list[tuple[int | None, str | None, str]]:
    before = list(UacReg.objects.order_by("l_uuid").values_list("l_uuid", "expires"))
    with pytest.raises(ImportRefused) as caught:
        exchange.import_accounts(data, format)
    assert list(UacReg.objects.order_by("l_uuid").values_list("l_uuid", "expires")) == before
    assert PASSWORD not in str(caught.value)
    return [(refusal.line, refusal.column, refusal.reason) for refusal in caught.value.refusals]


def exported(format: str, **options: bool) -> str:
    return "".join(exchange.export_accounts(format, **options))


def test_an_account_of_a_file_is_stored_sealed_with_all_that_belongs_to_it() -> None:
    Provider.objects.create(name="RheinTel", domain="sip.rheintel.example")
    diffs = exchange.import_accounts(rows({
        "provider": "RheinTel", "inbound_identity": "anonymous", "note": "front desk", "expires": 600, "id": 9,
        "qualify": 30, "gin": "yes", "outbound": "yes", "registrars": "sip:192.0.2.31, sip:192.0.2.32",
    }), who="op")
    account = UacReg.objects.get(l_uuid="4711")
    assert [diff.verb for diff in diffs] == ["added"]
    assert account.auth_password.reveal() == PASSWORD
    assert account.auth_password.sealed().startswith(PREFIX)
    assert (account.expires, account.options.inbound_identity, account.options.note) == (600, "anonymous", "front desk")
    assert account.options.provider is not None and account.options.provider.name == "RheinTel"
    assert account.options.registrars == "sip:192.0.2.31, sip:192.0.2.32"
    assert account.options.outbound and '"outbound": "yes"' in exported("json")
    assert account.options.gin and '"gin": "yes"' in exported("json")
    assert account.options.qualify == 30 and '"qualify": "30"' in exported("json")
    assert Registration.objects.get(pk="4711").state == "unregistered"
    assert list(Change.objects.values_list("table", "key", "who")) == [("uacreg", "4711", "op")]


@pytest.mark.parametrize("format", ["csv", "json"])
def test_an_export_read_again_changes_nothing(format: str) -> None:
    Provider.objects.create(name="Rhein, \"Tel\"", domain="sip.rheintel.example")
    exchange.import_accounts(rows(
        {"provider": "Rhein, \"Tel\"", "note": "zwölf; \"drei\", →", "flags": 1, "reg_delay": 3},
        {"l_uuid": "4712", "auth_password": "", "auth_ha1": HA1, "contact_user": "x", "socket": "udp:127.0.0.1:5060"},
    ))
    Change.objects.all().delete()
    text = exported(format)
    assert [diff.verb for diff in exchange.import_accounts(text)] == ["unchanged", "unchanged"]
    assert not Change.objects.exists()
    assert UacReg.objects.get(l_uuid="4711").auth_password.reveal() == PASSWORD
    assert exported(format) == text


@pytest.mark.parametrize("format", ["csv", "json"])
def test_an_export_with_tokens_restores_an_empty_installation(format: str) -> None:
    exchange.import_accounts(rows({}, {"l_uuid": "4712", "auth_password": "", "auth_ha1": HA1, "expires": 120}))
    text = exported(format, with_encrypted_secrets=True)
    assert PASSWORD not in text and HA1 not in text
    for model in (Registration, UacRegOptions, UacReg):
        model.objects.all().delete()
    exchange.import_accounts(text)
    assert UacReg.objects.get(l_uuid="4711").auth_password.reveal() == PASSWORD
    assert UacReg.objects.get(l_uuid="4712").auth_ha1.reveal() == HA1
    assert UacReg.objects.get(l_uuid="4712").expires == 120


def test_an_export_seals_what_kamailio_stored_in_clear_text() -> None:
    exchange.import_accounts(rows({}))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE uacreg SET auth_password = 'clear-text'")
    assert "clear-text" not in exported("csv", with_encrypted_secrets=True)
    assert PREFIX in exported("csv", with_encrypted_secrets=True)
    assert PREFIX not in exported("csv")


def test_a_token_of_foreign_keys_is_refused() -> None:
    foreign = Fernet(Fernet.generate_key()).encrypt(b"x").decode()
    [(line, column, reason)] = refusals(rows({"auth_password": PREFIX + foreign}))
    assert (line, column) == (2, "auth_password") and "TRUNKMGR_FIELD_KEYS" in reason


def test_a_dry_run_tells_old_and_new_and_writes_nothing() -> None:
    exchange.import_accounts(rows({}, {"l_uuid": "4712"}))
    Change.objects.all().delete()
    diffs = exchange.import_accounts(
        rows({"expires": 600, "auth_password": "another"}, {"l_uuid": "4712"}, {"l_uuid": "4713"}), dry_run=True,
    )
    assert [diff.verb for diff in diffs] == ["changed", "unchanged", "added"]
    assert str(diffs[0]) == "~ 4711: expires 3600 → 600, auth_password changed"
    assert "auth_password set" in str(diffs[2])
    assert PASSWORD not in "".join(map(str, diffs)) and "another" not in "".join(map(str, diffs))
    assert UacReg.objects.count() == 2 and not Change.objects.exists()
    assert UacReg.objects.get(l_uuid="4711").auth_password.reveal() == PASSWORD


def test_only_changed_rows_reach_the_change_log() -> None:
    exchange.import_accounts(rows({}, {"l_uuid": "4712"}))
    ids = dict(UacReg.objects.values_list("l_uuid", "id"))
    Change.objects.all().delete()
    exchange.import_accounts(rows({}, {"l_uuid": "4712", "auth_proxy": "sip:192.0.2.9"}))
    assert list(Change.objects.values_list("key", flat=True)) == ["4712"]
    assert dict(UacReg.objects.values_list("l_uuid", "id")) == ids


def test_columns_that_the_file_lacks_stay() -> None:
    exchange.import_accounts(rows({"note": "keep me", "expires": 600}))
    exchange.import_accounts("l_uuid,realm\n4711,example\n")
    account = UacReg.objects.get()
    assert (account.realm, account.expires, account.options.note) == ("example", 600, "keep me")
    assert account.auth_password.reveal() == PASSWORD


def test_a_new_secret_replaces_the_other_one() -> None:
    """A stored HA1 wins over a password: one that stayed would make the new password useless."""
    exchange.import_accounts(rows({"auth_password": "", "auth_ha1": HA1}))
    exchange.import_accounts(rows({"auth_password": "new"}))
    account = UacReg.objects.get()
    assert (account.auth_password.reveal(), account.auth_ha1.reveal()) == ("new", "")


def test_a_secret_that_no_key_opens_is_replaced_by_a_new_one_only() -> None:
    exchange.import_accounts(rows({}))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE uacreg SET auth_password = 'enc1:broken'")
    exchange.import_accounts("l_uuid,expires\n4711,600\n")
    assert UacReg.objects.get().auth_password.sealed() == "enc1:broken"
    exchange.import_accounts(rows({"expires": 600}))
    assert UacReg.objects.get().auth_password.reveal() == PASSWORD


@pytest.mark.parametrize(("delimiter", "newline", "mark"), [(",", "\n", ""), (";", "\r\n", "\ufeff"), ("\t", "\n", "")])
def test_a_dump_of_kamailios_table_is_taken(delimiter: str, newline: str, mark: str) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=newline)
    writer.writerow(["id", *SEED_COLUMNS[:-2], "socket"])  # version 5 has no contact_user
    writer.writerow([
        1, "4711", "alice", "pbx.example", "4989", "sip.example", "", "4989", PASSWORD, "", "sip:192.0.2.1", 360, 18, 0,
        "\\N", "",
    ])
    exchange.import_accounts((mark + out.getvalue()).encode())
    account = UacReg.objects.get()
    assert account.auth_password.reveal() == PASSWORD and account.contact_addr == ""
    assert account.flags == 0, "flags of a running registration are no operator's wish"


def test_one_bad_row_lets_nothing_in() -> None:
    found = refusals(rows({}, {"l_uuid": "4712", "expires": -1}, {"l_uuid": "4713", "auth_ha1": "xyz"}))
    assert [(line, column) for line, column, _ in found] == [(11, "expires"), (21, "auth_ha1")]
    assert "32 hex" in found[1][2]


def test_a_database_that_fails_half_way_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange.import_accounts(rows({}))

    def fail(*args: object) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(exchange.changes, "log", fail)
    with pytest.raises(DatabaseError):
        exchange.import_accounts(rows({"expires": 600}, {"l_uuid": "4712"}))
    assert list(UacReg.objects.values_list("l_uuid", "expires")) == [("4711", 3600)]
    assert UacRegOptions.objects.count() == Registration.objects.count() == 1


@pytest.mark.parametrize(("value", "column"), [
    ({"expires": "soon"}, "expires"), ({"expires": ""}, "expires"), ({"l_uuid": ""}, "l_uuid"),
    ({"l_uuid": "a b"}, "l_uuid"), ({"l_uuid": "x" * 65}, "l_uuid"), ({"r_domain": ""}, "r_domain"),
    ({"auth_password": ""}, "auth_password"), ({"auth_password": "a\r\nVia: x"}, "auth_password"),
    ({"auth_ha1": HA1[:-1]}, "auth_ha1"), ({"auth_proxy": "192.0.2.1"}, "auth_proxy"),
    ({"inbound_identity": "hide"}, "inbound_identity"), ({"inbound_from": "all"}, "inbound_from"),
    ({"provider": "RheinTell"}, "provider"),
    ({"socket": "udp:here:1"}, "socket"), ({"note": "a\nb"}, "note"), ({"reg_delay": "-1"}, "reg_delay"),
    ({"expires": 10**12}, "expires"),
])
def test_a_bad_value_is_refused_with_line_and_column(value: dict[str, object], column: str) -> None:
    Provider.objects.create(name="RheinTel", domain="sip.rheintel.example")
    found = refusals(rows(value))
    assert (2, column) in [(line, name) for line, name, _ in found]
    if column == "provider":
        assert "Did you mean 'RheinTel'?" in found[0][2]


def test_the_same_l_uuid_twice_is_refused() -> None:
    assert refusals(rows({}, {"l_uuid": "1"}, {})) == [(20, "l_uuid", "4711 stands in line 2 too.")]


@pytest.mark.parametrize(("data", "line", "column", "words"), [
    (b"", None, None, "empty"),
    (b" \n", None, None, "empty"),
    (b"l_uuid,realm\n", None, None, "no accounts"),
    (b"[]", None, None, "no accounts"),
    ("l_uuid,realm\n1,zwölf\n".encode("latin-1"), 2, None, "0xf6 is not UTF-8"),
    ("l_uuid\n1\n".encode("utf-16"), 1, None, "UTF-16"),
    (b"l_uuid,l_usrname\n1,x\n", 1, "l_usrname", "Did you mean l_username?"),
    (b"l_uuid,color\n1,x\n", 1, "color", "Known columns: l_uuid"),
    (b"realm\nx\n", 1, "l_uuid", "missing"),
    (b"l_uuid,realm,realm\n1,x,x\n", 1, "realm", "twice"),
    (b"l_uuid,realm\n1,a\n2\n", 3, None, "1 fields, the header has 2"),
    (b'l_uuid,realm\n1,a\n2,"b\n3,c\n', 3, None, "double quote is missing"),
    (b'l_uuid,realm\n1,"a"b\n', 2, None, "malformed"),
    (b'{"l_uuid": "1"}', 1, None, "not a list"),
    (b'[\n{"l_uuid": "1"},\n]', 3, None, "must follow the comma"),
    (b'[\n{"l_uuid": "1"}\n', 3, None, "comma or ]"),
    (b'[\n{"l_uuid": }\n]', 2, None, "character 12"),
    (b'[{"l_uuid": "1"}]\nx', 2, None, "Nothing may follow"),
    (b'[\n1]', 2, None, "not an object"),
    (b'[{"l_uuid": "1",\n"expires": true}]', 1, "expires", "neither text nor a whole number"),
    (b'[{"l_uuid": "1", "realm": ["x"]}]', 1, "realm", "neither text"),
    (b'[{"l_uuid": "1", "l_uuid": "2"}]', 1, "l_uuid", "twice"),
    (b'[{"l_uuid": ' + b"9" * 5000 + b"}]", 1, None, "no account"),
    (b"[" * 100_000, 1, None, "no account"),
])
def test_a_file_that_cannot_be_read_names_its_fault(
    data: bytes, line: int | None, column: str | None, words: str,
) -> None:
    [found] = refusals(data)
    assert found[:2] == (line, column)
    assert words in found[2]


def test_a_file_without_header_repeats_no_value() -> None:
    """Its first line is an account; the password in it must not be taken for a column's name."""
    [(line, _, reason)] = refusals(f"{PASSWORD},4711,alice\n".encode())
    assert line == 1 and "No column name" in reason


def test_slipped_columns_repeat_no_value() -> None:
    """The password stands where the number should."""
    found = refusals(rows({"expires": PASSWORD, "provider": PASSWORD, "inbound_identity": PASSWORD, "flags": PASSWORD}))
    assert {column for _, column, _ in found} == {"expires", "provider", "inbound_identity", "flags"}


def test_lines_are_counted_across_fields_with_line_breaks() -> None:
    assert [row.line for row in read_rows('l_uuid,note\n1,"a\nb"\n\n2,c\n')] == [2, 5]


def test_columns_are_those_of_the_table() -> None:
    assert {field.name for field in UacReg._meta.concrete_fields} == {"id", *SEED_COLUMNS}
    assert len(COLUMNS) == 31


def test_a_large_file_takes_few_statements(django_assert_max_num_queries: object) -> None:
    """SQLite takes 62 accounts a statement (Django's limit of 999 parameters), PostgreSQL 500."""
    data = rows(*({"l_uuid": f"u{number}"} for number in range(1200)))
    done: list[tuple[int, int]] = []
    with django_assert_max_num_queries(100):  # type: ignore[operator]
        exchange.import_accounts(data, progress=lambda *step: done.append(step))
    assert done == [(500, 1200), (1000, 1200), (1200, 1200)]
    assert UacReg.objects.count() == Registration.objects.count() == UacRegOptions.objects.count() == 1200
    assert Change.objects.count() == 1200
