"""Writes profiles, and carries their values over to providers and accounts when somebody takes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from trunkmgr import lint
from trunkmgr.models import Profile, ProfileField, Provider, UacReg, UacRegOptions
from trunkmgr.services import accounts, providers

PROVIDER = ("domain", "proxy", "addresses", "size_rule", "tls_name", "tls_wildcard")
ACCOUNT = ("expires", "realm", "contact_user", "outbound_proxy", "inbound_from", "digest_minimum")
#: Fields of an account that stand beside the seed's columns.
_OPTIONS = ("outbound_proxy", "inbound_from", "digest_minimum")


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that the profile has otherwise; `key` names it in forms and commands."""

    l_uuid: str
    """Empty: the provider's own row."""
    field: str
    now: str
    then: str
    source: str
    general_knowledge: bool

    @property
    def key(self) -> str:
        return f"{self.field}@{self.l_uuid}" if self.l_uuid else self.field

    @property
    def where(self) -> str:
        return self.l_uuid or "provider"


def save(profile: Profile, fields: Iterable[ProfileField], who: str = "") -> list[lint.Finding]:
    """Write a profile with exactly these fields; return remarks, raise ValidationError for what would do harm."""
    if profile.shipped:
        raise ValidationError("This profile comes with trunkmgr. Copy it, and edit the copy.")
    fields = list(fields)
    found = lint.profile({field.name: field.value for field in fields})
    if errors := [str(each) for each in found if each.error]:
        raise ValidationError(errors)
    with transaction.atomic():
        if profile.pk:
            profile.version = Profile.objects.select_for_update().get(pk=profile.pk).version + 1
        profile.full_clean()
        profile.save()
        profile.fields.all().delete()
        for field in fields:
            field.pk, field.profile = None, profile
            field._state.adding = True
            field.full_clean()
            field.save()
    return found


def copy(profile: Profile, slug: str, name: str = "", who: str = "") -> Profile:
    """Make a copy that the operator may edit."""
    made = Profile(
        slug=slug, name=name or f"{profile.name} (own)"[:64], about=profile.about,
        origin=f"{profile.slug} {profile.version}",
    )
    save(made, [
        ProfileField(name=each.name, value=each.value, source=each.source, general_knowledge=each.general_knowledge)
        for each in profile.fields.all()
    ], who)
    return made


def fill_in(provider: Provider) -> None:
    """Give a new provider its profile's values where nothing else was entered."""
    if provider.profile is None:
        return
    usual = Provider()
    for name, value in _wanted(provider, provider.profile.values).items():
        if name in PROVIDER and getattr(provider, name) == getattr(usual, name):
            setattr(provider, name, _column(Provider, name, value))
    provider.profile_version = provider.profile.version


def differences(provider: Provider, profile: Profile | None = None) -> list[Difference]:
    """What of the provider and its accounts the profile has otherwise; what it does not say does not count."""
    profile = profile or provider.profile
    if profile is None:
        return []
    about = {field.name: field for field in profile.fields.all()}
    wanted = _wanted(provider, profile.values)
    found = [
        _difference("", name, getattr(provider, name), wanted[name], about) for name in PROVIDER if name in wanted
    ]
    for account in UacReg.objects.filter(options__provider=provider).select_related("options"):
        for name in ACCOUNT:
            if name in wanted:
                row = account.options if name in _OPTIONS else account
                found.append(_difference(account.l_uuid, name, getattr(row, name), _for(account, name, wanted), about))
    return [each for each in found if each.now != each.then]


def take(
    provider: Provider, profile: Profile | None = None, who: str = "", only: Collection[str] | None = None,
) -> list[Difference]:
    """Copy a profile's values to the provider and its accounts; return what changed.

    `only` names the keys that are wanted.  All or nothing: raises ValidationError.
    """
    profile = profile or provider.profile
    if profile is None:
        raise ValidationError("This provider has no profile.")
    taken = [each for each in differences(provider, profile) if only is None or each.key in only]
    with transaction.atomic():
        for each in taken:
            if not each.l_uuid:
                setattr(provider, each.field, _column(Provider, each.field, each.then))
        provider.profile, provider.profile_version = profile, profile.version
        providers.save(provider, who)
        by_account: dict[str, list[Difference]] = {}
        for each in taken:
            if each.l_uuid:
                by_account.setdefault(each.l_uuid, []).append(each)
        for l_uuid, changes in by_account.items():
            account = UacReg.objects.get(l_uuid=l_uuid)
            options = account.get_options()
            for each in changes:
                row: UacReg | UacRegOptions = options if each.field in _OPTIONS else account
                setattr(row, each.field, _column(type(row), each.field, each.then))
            accounts.save(account, options, who)
    return taken


def _wanted(provider: Provider, values: Mapping[str, str]) -> dict[str, str]:
    """The values as columns have them: a transport is part of the proxy, which it makes of the domain."""
    wanted = {name: value for name, value in values.items() if name in (*PROVIDER, *ACCOUNT)}
    transport = values.get("transport", "")
    if transport and "proxy" not in wanted:
        wanted["proxy"] = f"sip:{wanted.get('domain') or provider.domain};transport={transport}"
    if "tls_wildcard" in wanted:
        wanted["tls_wildcard"] = str(wanted["tls_wildcard"] == "yes")
    if "addresses" in wanted:
        wanted["addresses"] = "\n".join(wanted["addresses"].split())
    return wanted


def _for(account: UacReg, name: str, wanted: Mapping[str, str]) -> str:
    return accounts.contact_user(account, wanted[name]) if name == "contact_user" else wanted[name]


def _difference(l_uuid: str, name: str, now: Any, then: str, about: Mapping[str, ProfileField]) -> Difference:
    field = about.get(name) or about["transport"]
    return Difference(l_uuid, name, str(now), then, field.source, field.general_knowledge)


_CONVERTED: dict[str, Callable[[str], Any]] = {"expires": int, "tls_wildcard": lambda value: value == "True"}


def _column(model: type[Any], name: str, value: str) -> Any:
    return _CONVERTED.get(name, str)(value)
