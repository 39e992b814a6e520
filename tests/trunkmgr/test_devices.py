"""Devices and what they have registered: what is refused, who writes it, what the worker reads back, no secret out."""

from __future__ import annotations

import io
import json
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from sipengine.events import BindingChanged
from sipengine.uac.digest import Credentials
from trunkmgr.models import Change, Device, Domain, Location
from trunkmgr.services import devices, domains, locations
from trunkmgr.sip import store
from trunkmgr.sip.bridge import Batch, Bridge
from trunkmgr.sip.changes import compare, read_rows, read_snapshot
from trunkmgr.sip.clock import Clock

pytestmark = pytest.mark.django_db

PASSWORD = "pw-that-must-not-show"
HA1 = "0123456789abcdef0123456789abcdef"


def device(username: str = "100", **columns: Any) -> Device:
    return devices.save(Device(**{"username": username, "domain": "pbx.example", "password": PASSWORD, **columns}))


def binding(ruid: str = "r1", aor: str = "100@pbx.example", **fields: Any) -> BindingChanged:
    values: dict[str, Any] = {
        "contact": "sip:100@198.51.100.7:5062", "q": 700, "expires_at": 3000.0, "call_id": "c", "cseq": 5,
        "path": "<sip:198.51.100.7;lr>", "transport": "tcp", "source": ("2001:db8::7", 40000),
        "instance": '"<urn:uuid:1>"', "reg_id": 2, "user_agent": "phone", "changed_at": 90.0, **fields,
    }
    return BindingChanged(ruid, aor, **values)


def logged() -> list[tuple[str, str]]:
    return list(Change.objects.order_by("pk").values_list("table", "key"))


def stored(*events: BindingChanged, clock: Clock | None = None) -> None:
    """Write events as the bridge and the store do."""
    bridge = Bridge(clock or Clock(lambda: 100.0), None, None, None)  # type: ignore[arg-type]
    bridge._queue.extend(events)
    bridge._gather()
    store.store("test", bridge._next())


@pytest.mark.parametrize(("values", "column", "text"), [
    ({"password": ""}, "password", "neither password nor HA1"),
    ({"ha1": HA1}, "password", "both a password and an HA1"),
    ({"password": "", "ha1": "abc"}, "ha1", "32 hex digits"),
    ({"password": "a\nb"}, "password", "line break"),
    ({"username": "a b"}, "username", "SIP user"),
    ({"username": "%61"}, "username", "without %HH"),
    ({"domain": "pbx.example:5060"}, "domain", "no port"),
    ({"domain": "sip:pbx"}, "domain", "without sip:"),
    ({"max_contacts": 0}, "max_contacts", "greater than or equal to 1"),
])
def test_what_makes_no_sense_is_refused_at_its_column(values: dict[str, Any], column: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        device(**values)
    assert text in " ".join(caught.value.message_dict[column]) and not logged()


def test_the_picture_follows_a_device() -> None:
    row = device(domain="PBX.example", max_contacts=2, digest="md5")
    assert logged() == [("device", "100@pbx.example")]
    before = read_snapshot()
    known = before.devices["100@pbx.example"]
    assert (known.credentials, known.max_contacts) == (Credentials(b"100", PASSWORD.encode()), 2)
    assert known.md5_only
    assert before.device_domains == {"pbx.example"} and PASSWORD not in repr(before)
    row.enabled = False
    devices.save(row)
    assert read_rows([("device", "100@pbx.example")]).devices == {"100@pbx.example": None}
    assert compare(before).devices == {"100@pbx.example": None} and not read_snapshot().device_domains
    row.enabled, row.username = True, "101"
    devices.save(row)
    patch = read_rows([("device", "100@pbx.example"), ("device", "101@pbx.example")])
    assert patch.devices["100@pbx.example"] is None and patch.devices["101@pbx.example"] is not None and patch


def test_a_secret_that_no_key_opens_registers_nobody(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    device()
    settings.FIELD_KEYS = ("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",)
    assert not read_snapshot().devices and "The device 100@pbx.example cannot register" in caplog.text


def test_bindings_are_written_behind_and_read_back_as_they_were() -> None:
    clock = Clock(lambda: 100.0)
    told = [binding(), binding("r2", expires_at=150.0), binding("r2", gone=True), binding("r3", path="")]
    stored(*told, clock=clock)
    row = Location.objects.get(ruid="r1")
    assert (row.username, row.domain, row.q, row.node) == ("100", "pbx.example", 0.7, "test")
    assert row.received == "sip:[2001:db8::7]:40000;transport=tcp"
    first, third = sorted(store.bindings(clock), key=lambda each: each.ruid)
    assert third.ruid == "r3" and third.path == ""
    for name in BindingChanged.__slots__:
        mine, theirs = getattr(first, name), getattr(told[0], name)
        assert mine == pytest.approx(theirs) if isinstance(theirs, float) else mine == theirs
    stored(binding(gone=True))
    assert not Location.objects.filter(ruid="r1").exists()


def test_what_ran_out_is_not_read_and_goes() -> None:
    stored(binding())
    Location.objects.update(expires=timezone.now() - timedelta(seconds=1))
    assert store.bindings(Clock(lambda: 100.0)) == [] and not Location.objects.exists()


def test_a_batch_that_cannot_be_stored_goes_row_by_row() -> None:
    batch = Batch(bindings=[{"ruid": "a"}, {"ruid": "b"}], bindings_over=["c"])
    assert batch and [(each.bindings, each.bindings_over) for each in batch.singly()] == [
        ([{"ruid": "a"}], []), ([{"ruid": "b"}], []), ([], ["c"]),
    ]


def test_bindings_waiting_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkmgr.sip.bridge.BINDINGS_LIMIT", 2)
    bridge = Bridge(Clock(lambda: 100.0), None, None, None)  # type: ignore[arg-type]
    bridge._queue.extend([binding("r1"), binding("r2"), binding("r2"), binding("r3")])
    bridge._gather()
    assert [row["ruid"] for row in bridge._next().bindings] == ["r2", "r3"] and bridge.dropped == 1


def test_an_operator_takes_a_binding_away() -> None:
    stored(binding(), binding("r2"))
    assert locations.remove(["r1", "r9"], "anna") == 1
    assert logged() == [("location", "r1")] and Change.objects.get().who == "anna"
    assert read_rows([("location", "r1"), ("location", "r2")]).unbound == {"r1"}


@pytest.mark.parametrize("ends", ["remove", "disable", "rename", "secret"])
def test_a_device_that_may_not_register_leaves_no_binding(ends: str) -> None:
    row = device()
    other = device("200")
    stored(binding(), binding("r2", "200@pbx.example"))
    if ends == "remove":
        devices.remove(row)
    elif ends == "secret":
        row.password = "another"
        devices.save(row)
    else:
        row.enabled, row.username = ends == "rename", "100" if ends == "disable" else "101"
        devices.save(row)
    assert list(Location.objects.values_list("username", flat=True)) == [other.username]


def test_a_domain_may_be_without_next_hop() -> None:
    domains.save(Domain(l_domain="pbx.example"))
    assert read_snapshot().next_hop("pbx.example") == b""


class TestCommand:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        def run(*words: str, stdin: str = "", fails: bool = False, command: str = "device") -> str:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
            out, failure = io.StringIO(), ""
            try:
                call_command(command, *words, stdout=out, stderr=out)
            except CommandError as error:
                failure = str(error)
            said = out.getvalue() + failure
            assert PASSWORD not in said and HA1 not in said
            assert bool(failure) == fails, said
            return said
        return run

    def test_add_edit_list_remove(self, run: Any) -> None:
        assert "No devices yet" in run("list")
        run("add", "100@pbx.example", "--password-stdin", "--max-contacts", "2", "--note", "desk", stdin=PASSWORD)
        (row,) = Device.objects.all()
        assert (row.aor, row.password.reveal(), row.max_contacts, row.note, row.enabled) == (
            "100@pbx.example", PASSWORD, 2, "desk", True,
        )
        assert json.loads(run("list", "--json")) == [
            {"device": "100@pbx.example", "enabled": True, "secret": "password", "digest": "sha256", "max_contacts": 2,
             "note": "desk"},
        ]
        run("edit", "100@PBX.example", "--disable", "--digest", "md5", "--ha1", "--password-stdin", stdin=HA1)
        row.refresh_from_db()
        assert (row.digest, row.ha1.reveal(), bool(row.password), row.enabled) == ("md5", HA1, False, False)
        assert "HA1" in run("list")
        assert "No device is called" in run("edit", "9@pbx.example", "--enable", fails=True)
        assert "neither password nor HA1" in run("add", "200@pbx.example", fails=True)
        assert "say --yes" in run("remove", "100@pbx.example", fails=True)
        run("remove", "100@pbx.example", "--yes")
        assert not Device.objects.exists()

    def test_bindings_are_shown_and_ended(self, run: Any) -> None:
        device()
        device("200")
        assert "Nothing is registered" in run("bindings")
        stored(binding(), binding("r2", "200@pbx.example", user_agent="desk\x1b[2J"))
        shown = run("bindings")
        assert "sip:100@198.51.100.7:5062" in shown and "desk�[2J" in shown
        assert [each["ruid"] for each in json.loads(run("bindings", "100@pbx.example", "--json"))] == ["r1"]
        assert "1 binding is ended" in run("bindings", "100@pbx.example", "--remove")
        assert list(Location.objects.values_list("ruid", flat=True)) == ["r2"]
        assert ("location", "r1") in logged()

    def test_a_domain_of_devices(self, run: Any) -> None:
        said = run("set", "pbx.example", "--next-hop", "devices", command="domain")
        assert "what its devices have registered" in said and Domain.objects.get().next_hop == ""
        assert "(devices)" in run("list", command="domain")


class TestAdmin:
    @pytest.fixture
    def web(self, client: Client) -> Client:
        client.force_login(User.objects.create_superuser("anna", password="x"))
        return client

    def test_a_secret_goes_in_and_never_comes_out(self, web: Client) -> None:
        data = {
            "username": "100", "domain": "pbx.example", "password": PASSWORD, "ha1": "", "enabled": "on",
            "digest": "sha256",
            "max_contacts": "3", "note": "",
        }
        response = web.post(reverse("admin:trunkmgr_device_add"), data, follow=True)
        row = Device.objects.get()
        assert row.password.reveal() == PASSWORD and Change.objects.get().who == "anna"
        change = reverse("admin:trunkmgr_device_change", args=[row.pk])
        page = web.get(change).content.decode()
        assert "Set. Left blank: stays as it is." in page and PASSWORD not in page + response.content.decode()
        web.post(change, {**data, "password": "", "note": "kept"})
        row.refresh_from_db()
        assert (row.note, row.password.reveal()) == ("kept", PASSWORD)
        web.post(reverse("admin:trunkmgr_device_changelist"), {
            "action": "delete_selected", "_selected_action": [row.pk], "post": "yes",
        })
        assert not Device.objects.exists() and logged()[-1] == ("device", "100@pbx.example")

    def test_bindings_are_shown_and_removed_but_not_edited(self, web: Client) -> None:
        stored(binding(), binding("r2"), binding("r3"))
        listing = reverse("admin:trunkmgr_location_changelist")
        assert "sip:100@198.51.100.7:5062" in web.get(listing).content.decode()
        assert web.get(reverse("admin:trunkmgr_location_add")).status_code == 403
        web.post(listing, {"action": "delete_selected", "_selected_action": ["r1", "r2"], "post": "yes"})
        web.post(reverse("admin:trunkmgr_location_delete", args=["r3"]), {"post": "yes"})
        assert not Location.objects.exists()
        assert sorted(logged()) == [("location", "r1"), ("location", "r2"), ("location", "r3")]
