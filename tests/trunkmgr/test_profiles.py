"""Provider profiles: where they come from, what lint refuses, and how their values get to providers and accounts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client

from tests import profile_table
from trunkmgr import lint
from trunkmgr.models import Change, Profile, ProfileField, Provider, UacReg, UacRegOptions
from trunkmgr.services import accounts, profiles, providers, shipped_profiles

pytestmark = pytest.mark.django_db


def own(**values: str) -> Profile:
    profile = Profile(slug="own", name="Own")
    fields = [ProfileField(name=name, value=value, source="their sheet") for name, value in values.items()]
    profiles.save(profile, fields)
    return profile


def provider(profile: Profile | None = None, **columns: Any) -> Provider:
    usual = {"name": "RheinTel", "domain": "sip.rheintel.example", "profile": profile}
    return providers.save(Provider(**{**usual, **columns}))


def account(of: Provider, l_uuid: str = "berlin", **columns: Any) -> UacReg:
    usual = {"l_uuid": l_uuid, "r_username": "493012", "l_domain": "pbx.example", "auth_password": "x"}
    return accounts.save(UacReg(**{**usual, **columns}), UacRegOptions(provider=of))


def test_what_is_shipped_is_in_the_table_and_passes_its_own_lint() -> None:
    rows = Profile.objects.filter(shipped=True)
    assert 15 <= rows.count() == len(shipped_profiles.read())
    for row in rows:
        assert not [each for each in lint.profile(row.values) if each.error], row.slug
        assert row.about and all(field.source for field in row.fields.all()), row.slug
        for field in row.fields.all():
            field.full_clean()
            assert field.general_knowledge or not field.source.startswith("general knowledge"), row.slug
    assert ProfileField.objects.filter(general_knowledge=True).exists()


def test_the_page_of_profiles_is_current() -> None:
    assert profile_table.PAGE.read_text("utf-8") == profile_table.page(), "write it anew: make profiles"


def test_a_newer_version_replaces_what_is_shipped_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    ims = Profile.objects.get(slug="ims")
    copied = profiles.copy(ims, "our-ims")
    held = provider(ims)
    kept = account(held)
    told = shipped_profiles.read()
    told["ims"]["fields"]["expires"]["value"] = "1234"
    monkeypatch.setattr(shipped_profiles, "read", lambda: told)
    shipped_profiles.load()
    assert ims.values["expires"] == "3600", "the same version changes nothing"
    told["ims"]["version"] = 2
    shipped_profiles.load()
    ims = Profile.objects.get(slug="ims")
    assert (ims.version, ims.values["expires"]) == (2, "1234")
    assert copied.values["expires"] == "3600" and copied.origin == "ims 1"
    assert UacReg.objects.get(pk=kept.pk).expires == 3600, "no trunk is changed by an upgrade"
    assert [each.key for each in profiles.differences(Provider.objects.get(pk=held.pk))] == ["expires@berlin"]


def test_shipped_ones_are_copied_to_be_edited() -> None:
    with pytest.raises(ValidationError, match="Copy it"):
        profiles.save(Profile.objects.get(slug="ims"), [])
    made = profiles.copy(Profile.objects.get(slug="ims"), "our-ims")
    profiles.save(made, [ProfileField(name="expires", value="900", source="call with support")])
    assert made.version == 2 and made.values == {"expires": "900"}


@pytest.mark.parametrize(("values", "says"), [
    ({"expires": "60", "min_expires": "300"}, "below the 300 s"),
    ({"expires": "0", "contact_user": "r_username"}, "never registers"),
    ({"transport": "tls", "domain": "192.0.2.1"}, "a name that the certificate is for"),
    ({"transport": "tcp", "proxy": "sip:a.example;transport=udp"}, "Remove one of both"),
    ({"transport": "tls", "domain": "a.example", "size_rule": "udp-only"}, "Set long requests to rfc"),
    ({"addresses": "0.0.0.0/0"}, "a large part of the internet"),
    ({"addresses": "2000::/3"}, "a large part of the internet"),
    ({"transport": "sctp"}, "write one of udp, tcp, tls"),
    ({"expires": "an hour"}, "a whole number"),
    ({"proxy": "a.example"}, "proxy: "),
])
def test_lint_refuses_contradictions_and_harm(values: dict[str, str], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        own(**values)
    assert not Profile.objects.filter(slug="own").exists()


@pytest.mark.parametrize(("values", "says"), [
    ({"expires": "20"}, "very short"), ({"expires": "90000"}, "longer than a day"),
    ({"inbound_from": "any-provider"}, "Every configured provider"), ({"digest_minimum": "MD5"}, "SHA-256"),
    ({"transport": "udp", "tls_wildcard": "yes"}, "have no effect over UDP"), ({"transport": "tls"}, "none yet"),
])
def test_lint_remarks_what_may_be_meant(values: dict[str, str], says: str) -> None:
    found = lint.profile(values)
    assert len(found) == 1 and says in str(found[0]) and not found[0].error
    own(**values)


def test_lint_of_rows_knows_the_profile() -> None:
    held = provider(own(min_expires="300", contact_user="r_username"))
    row = account(held, contact_user="493012", expires=600)
    assert not lint.account(row, row.options)
    row.expires, row.contact_user = 120, ""
    assert [each.field for each in lint.account(row, row.options)] == ["expires", "contact_user"]
    row.options.gin = True
    assert [each.field for each in lint.account(row, row.options)] == ["expires"]
    row.contact_user = "493012"
    assert "no effect" in str(lint.account(row, row.options)[0]), "the Contact of a bulk registration has no user"
    held.proxy = "sip:sip.rheintel.example;transport=tls"
    (found,) = lint.provider(held, ["udp"])
    assert "TRUNKMGR_SIP_LISTEN" in str(found) and not lint.provider(held, ["udp", "tls"])


def test_a_new_provider_and_a_new_account_begin_with_the_profile() -> None:
    profile = own(domain="sip.a.example", transport="tls", expires="300", contact_user="r_username", realm="a")
    call_command("provider", "set", "A", "--profile", "own")
    made = Provider.objects.get(name="A")
    assert (made.domain, made.proxy) == ("sip.a.example", "sip:sip.a.example;transport=tls")
    assert made.profile_version == profile.version
    row = account(made)
    assert (row.expires, row.contact_user, row.realm, row.r_domain) == (300, "493012", "a", "sip.a.example")
    typed = account(made, "typed", expires=700, contact_user="42", realm="b")
    assert (typed.expires, typed.contact_user, typed.realm) == (700, "42", "b"), "what was entered stays"


def test_values_are_shown_then_taken_one_by_one_or_all() -> None:
    profile = own(size_rule="udp-only", expires="300", contact_user="r_username")
    held = provider()
    account(held)
    assert profiles.differences(held) == []
    found = profiles.differences(held, profile)
    assert [each.key for each in found] == ["size_rule", "expires@berlin", "contact_user@berlin"]
    assert UacReg.objects.get().expires == 3600 and found[1].source == "their sheet"
    Change.objects.all().delete()
    profiles.take(held, profile, "ada", only=["expires@berlin"])
    assert [each.key for each in profiles.differences(held)] == ["size_rule", "contact_user@berlin"]
    assert Change.objects.filter(table="uacreg", key="berlin", who="ada").exists(), "the worker hears of it"
    profiles.take(held, profile, "ada")
    held.refresh_from_db()
    assert (held.size_rule, held.profile, held.profile_version) == ("udp-only", profile, 1)
    assert UacReg.objects.get().contact_user == "493012" and not profiles.differences(held)


def test_taking_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = own(size_rule="udp-only", expires="300")
    held = provider()
    account(held)

    def refuse(*args: object) -> None:
        raise ValidationError("It is kept elsewhere.")

    monkeypatch.setattr(accounts, "save", refuse)
    with pytest.raises(ValidationError):
        profiles.take(held, profile)
    assert Provider.objects.get().size_rule == "rfc"


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        call_command(*arguments)
        return capsys.readouterr().out

    assert "telekom-de-tls" in said("profile", "list")
    assert "(not checked)" in said("profile", "show", "fritzbox")
    assert "is a copy of ims 1" in said("profile", "copy", "ims", "our-ims")
    assert "now version 2" in said("profile", "set", "our-ims", "expires=20", "realm=x", "--source", "support")
    assert json.loads(said("profile", "show", "our-ims", "--json"))["fields"]["realm"]["source"] == "support"
    account(provider())
    assert "expires@berlin" in said("profile", "diff", "RheinTel", "--profile", "our-ims")
    assert "3 values taken over" in said("profile", "take", "RheinTel", "--profile", "our-ims", "--yes")
    assert "are as IMS operator (own) says" in said("profile", "diff", "RheinTel")
    with pytest.raises(CommandError, match="Did you mean 'our-ims'"):
        call_command("profile", "show", "our-im")
    with pytest.raises(CommandError, match="sets nothing"):
        call_command("profile", "set", "our-ims", "colour=red")
    with pytest.raises(CommandError, match="below the 300 s"):
        call_command("profile", "set", "our-ims", "min_expires=300")


def test_pages(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada", password="x"))
    held = provider(own(expires="300", size_rule="udp-only"))
    account(held)
    listing = client.get("/admin/trunkmgr/profile/").content.decode()
    assert "General knowledge" in listing and "Deutsche Telekom SIP trunk over TLS" in listing
    shipped = Profile.objects.get(slug="ims")
    assert "_save" not in client.get(f"/admin/trunkmgr/profile/{shipped.pk}/change/").content.decode()
    page = f"/admin/trunkmgr/provider/{held.pk}/profile/"
    assert "1 value differs" in client.get(f"/admin/trunkmgr/provider/{held.pk}/change/").content.decode()
    text = client.get(page).content.decode()
    assert 'value="size_rule"' in text and "their sheet" in text
    assert "1 value is taken over" in client.post(page, {"take": ["size_rule"]}, follow=True).content.decode()
    held.refresh_from_db()
    assert held.size_rule == "udp-only"


def test_a_new_provider_leaves_its_domain_to_its_profile_in_the_admin_too(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada", password="x"))
    knows, silent = Profile.objects.get(slug="swisscom"), Profile.objects.get(slug="ims")
    form = {"name": "S", "domain": "", "size_rule": "rfc", "tls_name": "domain", "reg_rate": "0"}
    for profile, says in (("", "Enter the provider"), (silent.pk, "its profile says none")):
        refused = client.post("/admin/trunkmgr/provider/add/", form | {"profile": profile})
        assert refused.status_code == 200 and says in refused.content.decode()
    assert client.post("/admin/trunkmgr/provider/add/", form | {"profile": knows.pk}).status_code == 302
    made = Provider.objects.get(name="S")
    assert (made.domain, made.profile_version) == ("voip.swisscom.ch", 1)
    cleared = client.post(f"/admin/trunkmgr/provider/{made.pk}/change/", form | {"profile": knows.pk})
    assert cleared.status_code == 200, "who stands keeps a domain of its own"


def test_the_page_of_an_account_leads_to_preview_and_check(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada", password="x"))
    row = account(provider())
    page = client.get(f"/admin/trunkmgr/uacreg/{row.pk}/change/").content.decode()
    assert "show-preview" in page and "show-check" in page
    check = client.get(f"/admin/trunkmgr/uacreg/{row.pk}/show-check/")
    assert check.status_code == 302 and check["Location"] == "/status/berlin/doctor/"
    shown = client.get(f"/admin/trunkmgr/uacreg/{row.pk}/preview/").content.decode()
    assert "No SIP worker owns berlin" in shown


def test_a_profile_is_edited_on_one_page(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada", password="x"))
    form = {
        "name": "Own", "slug": "own", "about": "", "fields-TOTAL_FORMS": "2", "fields-INITIAL_FORMS": "0",
        "fields-0-name": "expires", "fields-0-value": "60", "fields-0-source": "their sheet",
        "fields-1-name": "min_expires", "fields-1-value": "300",
    }
    refused = client.post("/admin/trunkmgr/profile/add/", form)
    assert refused.status_code == 200 and "below the 300 s" in refused.content.decode()
    assert client.post("/admin/trunkmgr/profile/add/", form | {"fields-0-value": "600"}).status_code == 302
    made = Profile.objects.get(slug="own")
    assert made.values == {"expires": "600", "min_expires": "300"} and made.version == 1
    first, second = made.fields.all()
    form |= {"fields-INITIAL_FORMS": "2", "fields-0-id": str(first.pk), "fields-1-id": str(second.pk)}
    changed = client.post(f"/admin/trunkmgr/profile/{made.pk}/change/", form | {
        "fields-0-value": "900", "fields-1-DELETE": "on",
    })
    assert changed.status_code == 302
    made.refresh_from_db()
    assert made.values == {"expires": "900"} and made.version == 2


def test_copies_by_the_list_and_who_may_only_look(client: Client) -> None:
    client.force_login(User.objects.create_superuser("ada", password="x"))
    shipped = Profile.objects.get(slug="ims")
    client.post("/admin/trunkmgr/profile/", {"action": "copy", "_selected_action": [shipped.pk]})
    assert Profile.objects.get(slug="ims-own-1").origin == "ims 1"
    client.force_login(User.objects.create_user("bob", password="x", is_staff=True))
    assert client.post(f"/admin/trunkmgr/provider/{provider(shipped).pk}/profile/", {}).status_code == 403
