"""The admin: writes through services, little typing, and no secret anywhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from trunkmgr.models import (
    Call,
    Change,
    Domain,
    Node,
    Order,
    Provider,
    Registration,
    RegistrationEvent,
    UacReg,
    UacRegOptions,
)
from trunkmgr.services import accounts

pytestmark = pytest.mark.django_db

LIST = "admin:trunkmgr_uacreg_changelist"
ADD = "admin:trunkmgr_uacreg_add"
PASSWORD = "pw-that-must-not-show"


@pytest.fixture
def web(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("anna", password="x"))
    return client


def stored(number: int = 1, **values: Any) -> UacReg:
    options = UacRegOptions(provider=values.pop("provider", None))
    return accounts.save(UacReg(**{
        "l_uuid": f"uuid-{number}", "l_username": f"user{number}", "l_domain": "pbx.example",
        "r_username": f"remote{number}", "r_domain": "sip.provider.example", "auth_password": PASSWORD, **values,
    }), options)


def fields(**values: Any) -> dict[str, Any]:
    return {
        "enabled": "on", "provider": "", "r_username": "alice", "r_domain": "sip.provider.example",
        "auth_password": PASSWORD, "l_username": "", "l_domain": "pbx.example", "inbound_identity": "keep",
        "inbound_from": "provider",
        "auth_username": "", "realm": "",
        "auth_ha1": "", "l_uuid": "", "auth_proxy": "", "expires": "3600", "reg_delay": "0", "contact_addr": "",
        "contact_user": "", "socket": "", "note": "", **values,
    }


def change_url(account: UacReg) -> str:
    return reverse("admin:trunkmgr_uacreg_change", args=[account.pk])


def test_a_new_account_needs_three_values(web: Client) -> None:
    provider = Provider.objects.create(name="Alpen", domain="sip.alpen.example")
    Domain.objects.create(l_domain="pbx.example", next_hop="sip:127.0.0.3")
    data = fields(
        provider=provider.pk, r_domain="", l_domain="", inbound_identity="anonymous", qualify="30", gin="on",
        outbound="on",
    )
    response = web.post(reverse(ADD), data, follow=True)
    account = UacReg.objects.get()
    assert (account.l_username, account.auth_username, account.r_domain, account.l_domain, account.enabled) == (
        "alice", "alice", "sip.alpen.example", "pbx.example", True,
    )
    assert account.auth_password.reveal() == PASSWORD
    assert account.options.provider == provider
    assert (account.options.inbound_identity, account.options.qualify) == ("anonymous", 30)
    assert account.options.gin and account.options.outbound
    assert Registration.objects.get().account == account
    assert (Change.objects.get().key, Change.objects.get().who) == (account.l_uuid, "anna")
    assert PASSWORD not in response.content.decode()
    assert "No next hop" not in response.content.decode()


def test_removing_a_secret_is_offered_only_where_one_is_stored(web: Client) -> None:
    assert "clear_password" not in web.get(reverse(ADD)).content.decode()
    page = web.get(change_url(stored())).content.decode()
    assert "clear_password" in page
    assert "clear_ha1" not in page
    assert reverse("status:trunk", args=["uuid-1"]) in page


def test_an_account_without_password_where_that_is_meant(web: Client) -> None:
    assert web.post(reverse(ADD), fields(auth_password="", authentication="empty")).status_code == 302
    assert UacReg.objects.get().options.authentication == "empty"
    assert 'value="empty" selected' in web.get(change_url(UacReg.objects.get())).content.decode()


def test_a_missing_next_hop_is_said(web: Client) -> None:
    response = web.post(reverse(ADD), fields(), follow=True)
    assert "No next hop is set for pbx.example" in response.content.decode()


@pytest.mark.parametrize(("values", "text"), [
    ({"auth_password": ""}, "neither password nor HA1"),
    ({"auth_ha1": "abc"}, "32 hex digits"),
    ({"qualify": "5"}, "10 to 3600 seconds"),
    ({"auth_proxy": "proxy.example"}, "starts with sip:"),
    ({"r_domain": ""}, "nothing tells its usual value"),
    ({"l_domain": ""}, "nothing tells its usual value"),
    ({"auth_password": "x", "clear_password": "on"}, "Either enter a new value"),
    ({"realm": "a\x01b"}, "control character"),
])
def test_what_is_wrong_is_said_at_its_field(web: Client, values: dict[str, str], text: str) -> None:
    response = web.post(reverse(ADD), fields(**values))
    assert response.status_code == 200
    assert text in response.content.decode()
    assert not UacReg.objects.exists()


def test_a_taken_l_uuid_is_said_at_its_field(web: Client) -> None:
    stored()
    response = web.post(reverse(ADD), fields(l_uuid="uuid-1"))
    assert "already exists" in response.content.decode()


class TestEdit:
    def test_blank_keeps_the_password_and_says_that_it_is_set(self, web: Client) -> None:
        account = stored(auth_ha1="0123456789abcdef0123456789abcdef")
        page = web.get(change_url(account)).content.decode()
        assert "Set. Left blank: stays as it is." in page
        assert PASSWORD not in page
        assert "0123456789abcdef" not in page
        web.post(change_url(account), fields(auth_password="", realm="new.example"))
        account.refresh_from_db()
        assert (account.realm, account.auth_password.reveal(), account.l_uuid) == ("new.example", PASSWORD, "uuid-1")

    def test_new_and_removed(self, web: Client) -> None:
        account = stored()
        web.post(change_url(account), fields(auth_password="other one "))
        account.refresh_from_db()
        assert account.auth_password.reveal() == "other one "
        web.post(change_url(account), fields(
            auth_password="", clear_password="on", auth_ha1="0123456789abcdef0123456789abcdef",
        ))
        account.refresh_from_db()
        assert not account.auth_password
        assert account.auth_ha1

    def test_l_uuid_cannot_be_changed(self, web: Client) -> None:
        account = stored()
        web.post(change_url(account), fields(l_uuid="other"))
        account.refresh_from_db()
        assert (account.l_uuid, account.r_username) == ("uuid-1", "alice")

    def test_disabling_keeps_the_other_flags_and_the_options(self, web: Client) -> None:
        account = stored(flags=4)
        data = fields(note="mine")
        del data["enabled"]
        web.post(change_url(account), data)
        account.refresh_from_db()
        assert (account.flags, account.options.note) == (5, "mine")

    def test_a_secret_that_no_key_opens_is_kept(self, web: Client, settings: Any) -> None:
        account = stored()
        token = account.auth_password.sealed()
        UacReg.objects.filter(pk=account.pk).update(auth_password=UacReg.objects.get().auth_password)
        before = UacReg.objects.get().auth_password.sealed()
        settings.FIELD_KEYS = ["MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]
        assert web.get(reverse(LIST)).status_code == 200
        assert web.get(change_url(account)).status_code == 200
        web.post(change_url(account), fields(auth_password="", realm="new.example"))
        stored_now = UacReg.objects.get()
        assert (stored_now.realm, stored_now.auth_password.sealed()) == ("new.example", before)
        assert token != PASSWORD


class TestList:
    def test_states_in_words(self, web: Client) -> None:
        now = timezone.now()
        worker = Node.objects.create(name="w", host="h", heartbeat_time=now)
        silent = Node.objects.create(name="s", host="h", heartbeat_time=now - timedelta(minutes=1))
        for number in range(3):
            stored(number)
        Registration.objects.filter(pk="uuid-0").update(owner=worker, state="registered", state_time=now)
        Registration.objects.filter(pk="uuid-1").update(
            owner=worker, state="refused", cause="wrong_password", code=401, state_time=now,
        )
        Registration.objects.filter(pk="uuid-2").update(owner=silent, state="registered", state_time=now)
        page = web.get(reverse(LIST)).content.decode()
        for word in ("Registered", "Refused", "Password refused", "Unknown", "Worker silent"):
            assert word in page
        assert PASSWORD not in page

    def test_the_number_of_queries_does_not_grow(self, web: Client, django_assert_max_num_queries: Any) -> None:
        provider = Provider.objects.create(name="P", domain="p.example")
        for number in range(30):
            stored(number, provider=provider)
        web.get(reverse(LIST))
        with django_assert_max_num_queries(14):
            web.get(reverse(LIST))

    @pytest.mark.parametrize("query", ["q=remote2", "enabled=1&q=user2", "enabled=0", "l_domain=pbx.example"])
    def test_search_and_filters(self, web: Client, query: str) -> None:
        for number in (1, 2):
            stored(number, flags=number % 2)
        response = web.get(f"{reverse(LIST)}?{query}", follow=True)
        names = {row.l_uuid for row in response.context["cl"].result_list}
        expected = {
            "q=remote2": {"uuid-2"}, "enabled=1&q=user2": {"uuid-2"}, "enabled=0": {"uuid-1"},
        }.get(query, {"uuid-1", "uuid-2"})
        assert names == expected

    def act(self, web: Client, action: str, **extra: str) -> str:
        keys = list(UacReg.objects.values_list("pk", flat=True))
        return web.post(
            reverse(LIST), {"action": action, "_selected_action": keys, **extra}, follow=True,
        ).content.decode()

    def test_disable_and_enable(self, web: Client) -> None:
        stored(1), stored(2)
        assert "2 accounts are now disabled" in self.act(web, "disable")
        assert not any(account.enabled for account in UacReg.objects.all())
        self.act(web, "enable")
        assert all(account.enabled for account in UacReg.objects.all())
        assert LogEntry.objects.count() == 4

    def test_register_now_needs_a_worker(self, web: Client) -> None:
        stored()
        assert "No SIP worker owns uuid-1" in self.act(web, "register_now")
        Registration.objects.update(owner=Node.objects.create(name="w", heartbeat_time=timezone.now()))
        assert "Registering 1 account" in self.act(web, "register_now")
        self.act(web, "unregister")
        assert [(o.verb, o.payload, o.who) for o in Order.objects.order_by("pk")] == [
            ("register", {"l_uuids": ["uuid-1"]}, "anna"), ("unregister", {"l_uuids": ["uuid-1"]}, "anna"),
        ]

    def test_deleting_many_goes_through_the_service(self, web: Client) -> None:
        stored(1), stored(2)
        Change.objects.all().delete()
        self.act(web, "delete_selected", post="yes")
        assert not UacReg.objects.exists()
        assert not Registration.objects.exists()
        assert {change.key for change in Change.objects.all()} == {"uuid-1", "uuid-2"}

    def test_deleting_one_goes_through_the_service(self, web: Client) -> None:
        account = stored()
        Change.objects.all().delete()
        web.post(reverse("admin:trunkmgr_uacreg_delete", args=[account.pk]), {"post": "yes"})
        assert Change.objects.get().key == "uuid-1"
        assert not UacReg.objects.exists()


def test_what_the_service_refuses_is_said(web: Client) -> None:
    account = stored()
    url = change_url(account)
    web.get(url)

    def gone(*args: Any) -> None:
        raise ValidationError("The account was deleted meanwhile; add it anew.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "save", gone)
        response = web.post(url, fields(auth_password=""), follow=True)
    assert "deleted meanwhile" in response.content.decode()
    assert not LogEntry.objects.exists()


def test_no_secret_in_history(web: Client) -> None:
    web.post(reverse(ADD), fields())
    account = UacReg.objects.get()
    web.post(change_url(account), fields(auth_password="second-password"))
    history = web.get(reverse("admin:trunkmgr_uacreg_history", args=[account.pk])).content.decode()
    entries = "".join(f"{entry.object_repr}{entry.change_message}" for entry in LogEntry.objects.all())
    assert LogEntry.objects.count() == 2
    for secret in (PASSWORD, "second-password", "enc1:"):
        assert secret not in history
        assert secret not in entries


def test_providers_and_domains_go_through_services(web: Client) -> None:
    web.post(reverse("admin:trunkmgr_provider_add"), {
        "name": "P", "domain": "p.example", "proxy": "", "addresses": "", "size_rule": "udp-only", "reg_rate": "5",
        "socket": "udp:192.0.2.5:5062",
        "tls_name": "srv-target", "tls_wildcard": "on", "tls_fingerprint": "",
    })
    web.post(reverse("admin:trunkmgr_domain_add"), {"l_domain": "pbx.example", "next_hop": "sip:127.0.0.3"})
    provider, domain = Provider.objects.get(), Domain.objects.get()
    assert (provider.reg_rate, provider.socket) == (5, "udp:192.0.2.5:5062")
    assert (provider.size_rule, provider.tls_name, provider.tls_wildcard) == ("udp-only", "srv-target", True)
    assert {(change.table, change.key) for change in Change.objects.all()} == {
        ("provider", str(provider.pk)), ("domain", "pbx.example"),
    }
    Change.objects.all().delete()
    web.post(reverse("admin:trunkmgr_provider_delete", args=[provider.pk]), {"post": "yes"})
    web.post(reverse("admin:trunkmgr_domain_changelist"), {
        "action": "delete_selected", "_selected_action": [domain.pk], "post": "yes",
    })
    assert {change.table for change in Change.objects.all()} == {"provider", "domain"}
    assert not Provider.objects.exists()
    assert not Domain.objects.exists()


def test_every_page_opens_and_asks_nobody_else(web: Client) -> None:
    now = timezone.now()
    account = stored(provider=Provider.objects.create(name="P", domain="p.example"))
    node = Node.objects.create(name="w", heartbeat_time=now, listen=["udp:127.0.0.1:5060"])
    event = RegistrationEvent.objects.create(l_uuid="uuid-1", time=now, state="registered", code=200)
    call = Call.objects.create(key="k", call_id="c", l_uuid="uuid-1", direction="in", started_time=now)
    Domain.objects.create(l_domain="pbx.example", next_hop="sip:127.0.0.3")
    pages = [reverse("admin:index"), reverse(ADD), change_url(account)]
    models = ("uacreg", "provider", "domain", "credential", "node", "registrationevent", "call")
    pages += [reverse(f"admin:trunkmgr_{model}_changelist") for model in models]
    pages += [reverse(f"admin:trunkmgr_{name}_change", args=[row.pk]) for name, row in (
        ("node", node), ("registrationevent", event), ("call", call),
    )]
    beat = ("periodictask", "intervalschedule", "crontabschedule", "solarschedule", "clockedschedule")
    pages += [reverse(f"admin:django_celery_beat_{model}_changelist") for model in beat]
    pages += [reverse("admin:django_celery_beat_periodictask_add"), reverse("admin:auth_user_add")]
    pages.append(reverse("admin:trunkmgr_credential_add"))
    for page in pages:
        response = web.get(page)
        assert response.status_code == 200, page
        text = response.content.decode()
        assert "src=\"http" not in text
        assert "stylesheet\" href=\"http" not in text
        assert PASSWORD not in text


@pytest.mark.parametrize("model", ["node", "registrationevent", "call"])
def test_what_workers_write_cannot_be_edited(web: Client, model: str) -> None:
    assert web.get(reverse(f"admin:trunkmgr_{model}_add")).status_code == 403


def test_strangers_see_the_login(client: Client) -> None:
    response = client.get(reverse(LIST))
    assert response.status_code == 302
    assert "/admin/login/" in response["Location"]
