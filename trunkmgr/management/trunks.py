"""Trunks as the commands show them: an account with its live state in words, as the status pages have it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from django.core.management.base import CommandError

from trunkmgr import payloads, selectors
from trunkmgr.causes import Shown, answer
from trunkmgr.models import Profile, Provider, Registration, UacReg
from trunkmgr.models.registration import State


@dataclass(frozen=True, slots=True)
class Trunk:
    """What an operator wants to know of one account; `was` is the last known state where nobody watches it now."""

    account: UacReg
    registration: Registration
    shown: Shown
    label: str
    was: str
    why: str
    sentence: str
    fix: str

    @property
    def provider(self) -> str:
        provider = self.account.get_options().provider
        return provider.name if provider else ""

    @property
    def local(self) -> str:
        return f"{self.account.l_username}@{self.account.l_domain}"

    @property
    def remote(self) -> str:
        return f"{self.account.r_username}@{self.account.r_domain}"

    @property
    def answer(self) -> str:
        return answer(self.registration.code, self.registration.reason)

    def summary(self) -> dict[str, Any]:
        """Give the account and its state as plain values; no secret, and times as datetimes."""
        registration = self.registration
        return {
            "l_uuid": self.account.l_uuid, "local": self.local, "remote": self.remote, "provider": self.provider,
            "state": self.label, "was": self.was, "code": registration.code, "reason": registration.reason,
            "cause": registration.cause, "why": self.why, "sentence": self.sentence, "fix": self.fix,
            "state_time": registration.state_time, "bound_until_time": registration.bound_until_time,
            "next_attempt_time": registration.next_attempt_time, "failures": registration.failures,
            "worker": registration.owner.name if registration.owner else "",
        }


def account(l_uuid: str) -> UacReg:
    """Return one account.  Raises CommandError that names the nearest one."""
    found = selectors.accounts().filter(l_uuid=l_uuid).first()
    if found is None:
        close = get_close_matches(l_uuid, UacReg.objects.values_list("l_uuid", flat=True)[:20_000], n=1)
        raise CommandError(f"No account has the l_uuid {l_uuid!r}." + (f" Did you mean {close[0]!r}?" if close else ""))
    return found


#: The seed's filters.
ATTRIBUTES = ("l_uuid", "l_username", "r_username", "auth_username")


def find(attr: str, val: str) -> tuple[UacReg, int]:
    """Return the first account that a filter of the seed matches, and how many more do.

    Raises CommandError with the code and the words that the seed answers with.
    """
    if not attr or not val:
        raise CommandError(f"400 Invalid parameters: give a filter and its value, for example {ATTRIBUTES[0]} berlin.")
    if attr not in ATTRIBUTES:
        raise CommandError(f"400 Unsupported filter attribute {attr!r}: write one of {', '.join(ATTRIBUTES)}.")
    matching = selectors.accounts().filter(**{attr: val}).order_by("l_uuid")
    found = matching.first()
    if found is None:
        known = UacReg.objects.values_list(attr, flat=True)[:20_000]
        close = get_close_matches(val, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise CommandError(f"404 Record not found: no account has the {attr} {val!r}.{hint}")
    return found, matching.count() - 1


def provider(name: str) -> Provider | None:
    """Return the provider of that name, None for an empty one.  Raises CommandError with the cure."""
    if not name:
        return None
    found = Provider.objects.filter(name=name).first()
    if found is None:
        close = get_close_matches(name, Provider.objects.values_list("name", flat=True), n=1)
        raise CommandError(
            f"No provider is called {name!r}. "
            + (f"Did you mean {close[0]!r}?" if close else "Make it first with: manage.py provider set"),
        )
    return found


def profile(slug: str) -> Profile:
    """Return the profile of that short name.  Raises CommandError that names the nearest one."""
    found = Profile.objects.filter(slug=slug).first()
    if found is None:
        close = get_close_matches(slug, Profile.objects.values_list("slug", flat=True), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else " See: manage.py profile list"
        raise CommandError(f"No profile is called {slug!r}.{hint}")
    return found


def trunk(account: UacReg, now: datetime) -> Trunk:
    """Put the account's live state into words."""
    try:
        registration = account.registration
    except Registration.DoesNotExist:  # a row that somebody else put into the table, not seen by a worker yet
        registration = Registration(account=account)
    registration.account = account
    row = payloads.registration_row(registration)
    silence, _ = payloads.silence(registration.owner, now)
    if not account.enabled and registration.state in (State.DISABLED, State.UNREGISTERED):
        text = payloads.explanation(registration, "disabled")
        return Trunk(
            account, registration, Shown.DISABLED, Shown.DISABLED.label, "", text.short, text.sentence, text.fix,
        )
    if not silence:
        return Trunk(
            account, registration, Shown(row["state"]), row["label"], "", row["why"], row["sentence"], row["fix"],
        )
    text = payloads.explanation(registration, silence)
    was = row["label"] if registration.state_time else ""
    return Trunk(account, registration, Shown.UNKNOWN, Shown.UNKNOWN.label, was, text.short, text.sentence, text.fix)


def totals(trunks: list[Trunk]) -> dict[str, int]:
    """Count the six states, worst first, those with none too."""
    return {shown.label: sum(trunk.shown is shown for trunk in trunks) for shown in Shown}
