"""The account form: the seed's columns, our options and two write-only secrets on one page."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
    UnfoldBooleanWidget,
)

from trunkmgr.models import Provider, UacReg, UacRegOptions
from trunkmgr.models.credential import Secret
from trunkmgr.models.uacreg import FLAG_DISABLED
from trunkmgr.services import accounts

SECRETS = ("auth_password", "auth_ha1")
#: Columns that may be left blank, because `accounts.fill_in` knows their usual value.
FILLED_IN = ("l_uuid", "l_username", "l_domain", "r_domain", "auth_username")


def _secret_field(label: str, help_text: str) -> forms.CharField:
    # `new-password` keeps browsers from filling in the operator's own.
    widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False)
    return forms.CharField(label=label, required=False, strip=False, widget=widget, help_text=help_text, max_length=128)


class UacRegForm(forms.ModelForm):  # type: ignore[type-arg]
    """A secret that is left blank keeps what is stored; nothing stored is ever shown."""

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
    note = forms.CharField(required=False, max_length=200, widget=UnfoldAdminTextInputWidget)
    auth_password = _secret_field("Password", "")
    clear_password = forms.BooleanField(label="Remove the stored password", required=False, widget=UnfoldBooleanWidget)
    auth_ha1 = _secret_field("HA1", "")
    clear_ha1 = forms.BooleanField(label="Remove the stored HA1", required=False, widget=UnfoldBooleanWidget)

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
        for name, extra in (("auth_password", ""), ("auth_ha1", " 32 hex digits, MD5; used instead of the password.")):
            self.initial.pop(name, None)
            kept = "Set. Left blank: stays as it is." if getattr(self.instance, name) else "Not set."
            self.fields[name].help_text = kept + extra
        if self.instance.pk:
            options = self.instance.get_options()
            self.initial.update({
                "enabled": self.instance.enabled, "provider": options.provider_id, "note": options.note,
                "inbound_identity": options.inbound_identity,
            })

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        self._fill_in(cleaned)
        for name, clear in (("auth_password", "clear_password"), ("auth_ha1", "clear_ha1")):
            typed, clearing = cleaned.get(name), cleaned.pop(clear, False)
            if typed and clearing:
                self.add_error(name, "Either enter a new value or remove the stored one.")
            cleaned[name] = Secret(typed) if typed else Secret() if clearing else getattr(self.instance, name)
            setattr(self.instance, name, cleaned[name])
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
        for name in ("provider", "inbound_identity", "note"):
            setattr(options, name, self.cleaned_data[name])
        return options
