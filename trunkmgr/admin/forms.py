"""Forms with write-only secrets: the account with the seed's columns and our options on one page, and credentials."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
    UnfoldBooleanWidget,
)

from trunkmgr.models import Credential, Device, Provider, UacReg, UacRegOptions, validators
from trunkmgr.models.credential import Secret
from trunkmgr.models.uacreg import FLAG_DISABLED
from trunkmgr.services import accounts

#: Columns that may be left blank, because `accounts.fill_in` knows their usual value.
FILLED_IN = ("l_uuid", "l_username", "l_domain", "r_domain", "auth_username")


def secret_field(label: str, help_text: str) -> forms.CharField:
    # `new-password` keeps browsers from filling in the operator's own.
    widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False)
    return forms.CharField(label=label, required=False, strip=False, widget=widget, help_text=help_text, max_length=128)


def _removal_field(what: str) -> forms.BooleanField:
    return forms.BooleanField(label=f"Remove the stored {what}", required=False, widget=UnfoldBooleanWidget)


class SecretsForm(forms.ModelForm):  # type: ignore[type-arg]
    """A secret that is left blank keeps what is stored; nothing stored is ever shown."""

    secrets: dict[str, tuple[str, str]] = {}
    """Column of each secret: the field that removes it, and what to say of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, (_, about) in self.secrets.items():
            self.initial.pop(name, None)
            if name not in self.fields:
                continue
            kept = "Set. Left blank: stays as it is." if getattr(self.instance, name) else "Not set."
            self.fields[name].help_text = f"{kept} {about}".strip()

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        for name, (removal, _) in self.secrets.items():
            typed, removing = cleaned.get(name), cleaned.pop(removal, False)
            if typed and removing:
                self.add_error(name, "Either enter a new value or remove the stored one.")
            cleaned[name] = Secret(typed) if typed else Secret() if removing else getattr(self.instance, name)
            setattr(self.instance, name, cleaned[name])
        return cleaned


class UacRegForm(SecretsForm):
    """An account with our options; what `accounts.fill_in` knows may be left blank."""

    enabled = forms.BooleanField(
        required=False, initial=True, widget=UnfoldBooleanSwitchWidget,
        help_text="Off: the account is un-registered, and calls for it are refused.",
    )
    provider = forms.ModelChoiceField(
        Provider.objects.all(), required=False, widget=UnfoldAdminSelectWidget, empty_label="(none)",
        help_text="Gives the remote domain and the outbound proxy where they are left blank.",
    )
    inbound_identity = forms.ChoiceField(
        choices=UacRegOptions.InboundIdentity.choices, widget=UnfoldAdminSelectWidget,
        initial=UacRegOptions.InboundIdentity.KEEP, help_text="What the PBX sees of the caller of an inbound call.",
    )
    inbound_from = forms.ChoiceField(
        choices=UacRegOptions.InboundFrom.choices, widget=UnfoldAdminSelectWidget, label="Inbound calls from",
        initial=UacRegOptions.InboundFrom.PROVIDER,
        help_text=UacRegOptions._meta.get_field("inbound_from").help_text,
    )
    registrars = forms.CharField(
        required=False, max_length=1000, widget=UnfoldAdminTextInputWidget, label="Standby registrars",
        help_text=UacRegOptions._meta.get_field("registrars").help_text, validators=[validators.sip_uris],
    )
    at_once = forms.BooleanField(
        required=False, widget=UnfoldBooleanSwitchWidget, label="At all at once",
        help_text=UacRegOptions._meta.get_field("at_once").help_text,
    )
    outbound_proxy = forms.CharField(
        required=False, max_length=255, widget=UnfoldAdminTextInputWidget, label="Outbound proxy for calls",
        help_text=UacRegOptions._meta.get_field("outbound_proxy").help_text, validators=[validators.sip_uri],
    )
    numbers = forms.CharField(
        required=False, max_length=1000, widget=UnfoldAdminTextInputWidget, label="Numbers it may call",
        help_text=UacRegOptions._meta.get_field("numbers").help_text, validators=[validators.number_prefixes],
    )
    max_calls = forms.IntegerField(
        required=False, min_value=0, max_value=32767, initial=0, widget=UnfoldAdminIntegerFieldWidget,
        label="Calls at most", help_text=UacRegOptions._meta.get_field("max_calls").help_text,
    )
    max_rate = forms.IntegerField(
        required=False, min_value=0, max_value=32767, initial=0, widget=UnfoldAdminIntegerFieldWidget,
        label="Calls out a second", help_text=UacRegOptions._meta.get_field("max_rate").help_text,
    )
    qualify = forms.IntegerField(
        required=False, initial=0, widget=UnfoldAdminIntegerFieldWidget, validators=[validators.qualify_seconds],
        label="Seconds between OPTIONS", help_text=UacRegOptions._meta.get_field("qualify").help_text,
    )
    outbound = forms.BooleanField(
        required=False, widget=UnfoldBooleanSwitchWidget, label="Outbound (RFC 5626)",
        help_text=UacRegOptions._meta.get_field("outbound").help_text,
    )
    gin = forms.BooleanField(
        required=False, widget=UnfoldBooleanSwitchWidget, label="Bulk registration (GIN)",
        help_text=UacRegOptions._meta.get_field("gin").help_text,
    )
    digest_minimum = forms.ChoiceField(
        required=False, choices=UacRegOptions.DigestMinimum.choices, widget=UnfoldAdminSelectWidget,
        label="Weakest digest", help_text=UacRegOptions._meta.get_field("digest_minimum").help_text,
    )
    authentication = forms.ChoiceField(
        required=False, choices=UacRegOptions.Authentication.choices, widget=UnfoldAdminSelectWidget,
        initial=UacRegOptions.Authentication.PASSWORD,
        help_text=UacRegOptions._meta.get_field("authentication").help_text,
    )
    note = forms.CharField(required=False, max_length=200, widget=UnfoldAdminTextInputWidget)
    auth_password = secret_field("Password", "")
    clear_password = _removal_field("password")
    auth_ha1 = secret_field("HA1", "")
    clear_ha1 = _removal_field("HA1")
    secrets = {
        "auth_password": ("clear_password", ""),
        "auth_ha1": ("clear_ha1", "32 hex digits, MD5; used instead of the password."),
    }

    class Meta:
        model = UacReg
        fields = (
            "l_uuid", "l_username", "l_domain", "r_username", "r_domain", "realm", "auth_username", "auth_proxy",
            "expires", "reg_delay", "contact_addr", "contact_user", "socket",
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in FILLED_IN:
            if name in self.fields:
                self.fields[name].required = False
        usual = {
            "l_uuid": "Left blank: drawn at random.", "l_username": "Left blank: the remote user.",
            "auth_username": "Left blank: the remote user.", "r_domain": "Left blank: the provider's.",
            "l_domain": "Left blank: the only domain, where there is only one.",
        }
        for name, text in usual.items():
            if name in self.fields:
                self.fields[name].help_text = f"{self.fields[name].help_text} {text}".strip()
        if self.instance.pk:
            options = self.instance.get_options()
            self.initial.update({
                "enabled": self.instance.enabled, "provider": options.provider_id, "note": options.note,
                "inbound_identity": options.inbound_identity, "outbound_proxy": options.outbound_proxy,
                "inbound_from": options.inbound_from,
                "digest_minimum": options.digest_minimum, "authentication": options.authentication,
                "numbers": options.numbers, "max_calls": options.max_calls, "max_rate": options.max_rate,
                "qualify": options.qualify, "outbound": options.outbound, "gin": options.gin,
                "registrars": options.registrars, "at_once": options.at_once,
            })

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        self._fill_in(cleaned)
        cleaned["authentication"] = cleaned.get("authentication") or UacRegOptions.Authentication.PASSWORD
        if "auth_password" in self.fields:
            try:
                self.instance.check_authentication(cleaned["authentication"])
            except forms.ValidationError as error:
                self.add_error(None, error)
        flags = self.instance.flags
        self.instance.flags = flags & ~FLAG_DISABLED if cleaned.get("enabled") else flags | FLAG_DISABLED
        return cleaned

    def _fill_in(self, cleaned: dict[str, Any]) -> None:
        names = [name for name in (*FILLED_IN, "r_username") if name in self.fields]
        usual = UacReg(**{name: cleaned.get(name) or "" for name in names})
        accounts.fill_in(usual, UacRegOptions(provider=cleaned.get("provider")))
        for name in FILLED_IN:
            if name in self.fields and name not in self.errors:
                cleaned[name] = getattr(usual, name)
                if not cleaned[name] and not self.has_error("r_username"):
                    self.add_error(name, "Enter it here: nothing tells its usual value.")

    def options(self) -> UacRegOptions:
        """Return our columns as the form has them."""
        options = self.instance.get_options() if self.instance.pk else UacRegOptions()
        for name in (
            "provider", "inbound_identity", "inbound_from", "registrars", "at_once", "outbound_proxy", "digest_minimum",
            "authentication", "outbound", "gin", "note",
        ):
            setattr(options, name, self.cleaned_data[name])
        options.numbers = self.cleaned_data["numbers"]
        for name in ("max_calls", "max_rate", "qualify"):
            setattr(options, name, self.cleaned_data[name] or 0)
        return options


class CredentialForm(SecretsForm):
    """A credential; password or HA1, not both."""

    password = secret_field("Password", "")
    clear_password = _removal_field("password")
    ha1 = secret_field("HA1", "")
    clear_ha1 = _removal_field("HA1")
    secrets = {
        "password": ("clear_password", ""),
        "ha1": ("clear_ha1", "32 hex digits: the MD5 of user:realm:password, instead of the password."),
    }

    class Meta:
        model = Credential
        fields = ("realm", "username", "provider", "account", "note")


class DeviceForm(SecretsForm):
    """A device; password or HA1, not both."""

    password = secret_field("Password", "")
    clear_password = _removal_field("password")
    ha1 = secret_field("HA1", "")
    clear_ha1 = _removal_field("HA1")
    secrets = {
        "password": ("clear_password", ""),
        "ha1": (
            "clear_ha1",
            "32 hex digits: the MD5 of user:domain:password, instead of the password; SHA-256 is out of question then.",
        ),
    }

    class Meta:
        model = Device
        fields = ("username", "domain", "enabled", "digest", "max_contacts", "note")
