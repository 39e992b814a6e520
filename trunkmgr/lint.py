"""What is wrong with a profile, a provider or an account although each value alone may stand there.

Finds contradictions, what does harm, and what has no effect; each finding says cause and cure.  Writes nothing and does
not decide: services refuse errors in profiles, pages and commands show the rest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from trunkmgr.models import Provider, UacReg, UacRegOptions, validators

#: Seconds below which a registration costs more than it gives, and above which a lost one stays lost for long.
SHORT, LONG = 60, 86_400
#: Bits of a network below which it is half the internet.
WIDE = {4: 8, 6: 19}

_CHOICES = {
    "transport": ("udp", "tcp", "tls"), "size_rule": tuple(Provider.SizeRule.values),
    "tls_name": tuple(Provider.TlsName.values), "tls_wildcard": ("yes", "no"), "contact_user": ("l_uuid", "r_username"),
    "inbound_from": tuple(UacRegOptions.InboundFrom.values), "digest_minimum": ("MD5", "SHA-256"),
}
_FORMS = {
    "domain": validators.sip_domain, "proxy": validators.sip_uri, "outbound_proxy": validators.sip_uri,
    "realm": validators.plain_text, "addresses": validators.networks,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Cause and cure; an `error` must not stand, the rest is worth knowing."""

    field: str
    text: str
    error: bool = False

    def __str__(self) -> str:
        return self.text


def profile(values: Mapping[str, str]) -> list[Finding]:
    """Look at a profile's values as they are written."""
    malformed = _forms(values)
    if malformed:
        return malformed
    expires, least = int(values.get("expires", "3600")), int(values.get("min_expires", "0"))
    found = _ways(values)
    if 0 < expires < least:
        found.append(Finding(
            "expires", f"expires {expires} is below the {least} s that the provider takes at least, so each REGISTER "
            f"is refused with 423 first. Set expires to {least} or more.", True,
        ))
    if not expires and (values.get("contact_user") or least):
        found.append(Finding(
            "expires", "expires 0 never registers, so contact_user and min_expires have no effect. Remove them, or set "
            "expires.", True,
        ))
    return found + _lifetime(expires) + _addresses(values.get("addresses", "")) + _trust(values)


def provider(row: Provider, listens: Collection[str] = ()) -> list[Finding]:
    """Look at a provider's row; `listens` are the transports of TRUNKMGR_SIP_LISTEN, empty: not known."""
    values = {
        "domain": row.domain, "proxy": row.proxy, "size_rule": row.size_rule, "tls_name": row.tls_name,
        "tls_wildcard": "yes" if row.tls_wildcard else "no", "fingerprint": row.tls_fingerprint,
    }
    found = [*_ways(values), *_addresses(row.addresses)]
    transport = _transport(values)
    if transport and listens and transport not in listens:
        found.append(Finding(
            "proxy", f"The proxy wants {transport.upper()}, and no {transport}: entry stands in TRUNKMGR_SIP_LISTEN, "
            f"so nothing reaches it. Add one, such as {transport}:0.0.0.0:{5061 if transport == 'tls' else 5060}.",
        ))
    return found


def account(row: UacReg, options: UacRegOptions) -> list[Finding]:
    """Look at an account beside its provider and that one's profile."""
    found = _lifetime(row.expires)
    held = options.provider
    if not row.expires and held is not None and not held.addresses and options.inbound_from == "provider":
        found.append(Finding(
            "expires", f"It never registers, and {held.name} has no addresses: no call can come in. Enter them at the "
            "provider.",
        ))
    found += _trust({"inbound_from": options.inbound_from, "digest_minimum": options.digest_minimum})
    if row.auth_proxy and held is not None and held.size_rule == Provider.SizeRule.UDP_ONLY:
        found += _ways({"proxy": row.auth_proxy, "size_rule": held.size_rule, "domain": row.r_domain})
    if options.gin and row.contact_user:
        found.append(Finding(
            "contact_user", "The Contact of a bulk registration (gin) has no user, so the Contact user has no effect. "
            "Clear it, or switch gin off.",
        ))
    if held is None or held.profile is None:
        return found
    known = held.profile.values
    least = int(known.get("min_expires", "0"))
    if 0 < row.expires < least:
        found.append(Finding(
            "expires",
            f"expires {row.expires} is below the {least} s that {held.name} takes at least. Set {least} or more.",
        ))
    if known.get("contact_user") == "r_username" and not row.contact_user and not options.gin:
        found.append(Finding(
            "contact_user", f"{held.name} wants the number in the Contact. Set the Contact user to {row.r_username}.",
        ))
    if known.get("expires") == "0" and row.expires:
        found.append(Finding("expires", f"{held.name} takes no REGISTER. Set expires to 0."))
    return found


def _forms(values: Mapping[str, str]) -> list[Finding]:
    found = []
    for name, value in values.items():
        if name in _CHOICES and value not in _CHOICES[name]:
            found.append(Finding(name, f"{name} is {value!r}; write one of {', '.join(_CHOICES[name])}.", True))
        elif name in ("expires", "min_expires") and not (value.isascii() and value.isdigit() and len(value) < 8):
            found.append(Finding(name, f"{name} is {value!r}; write seconds, a whole number.", True))
        elif name in _FORMS:
            try:
                _FORMS[name]("\n".join(value.split()) if name == "addresses" else value)
            except Exception as error:
                found.append(Finding(name, f"{name}: {' '.join(getattr(error, 'messages', [str(error)]))}", True))
    return found


def _transport(values: Mapping[str, str]) -> str:
    """What the proxy says, else the profile; empty where DNS chooses."""
    proxy = values.get("proxy", "").lower()
    if proxy.startswith("sips:"):
        return "tls"
    _, found, rest = proxy.partition(";transport=")
    return rest.partition(";")[0] if found else values.get("transport", "")


def _ways(values: Mapping[str, str]) -> list[Finding]:
    """Transport, size rule and TLS against each other."""
    found: list[Finding] = []
    transport, said = _transport(values), values.get("transport", "")
    if said and transport != said:
        found.append(Finding(
            "transport", f"transport is {said} and the proxy says {transport}. Remove one of both.", True,
        ))
    if values.get("size_rule") == "udp-only" and transport in ("tcp", "tls"):
        found.append(Finding(
            "size_rule", f"Long requests shall go over UDP, and the way to this provider is {transport.upper()}. "
            "Set long requests to rfc.", True,
        ))
    host = (_host(values.get("proxy", "")) or values.get("domain", "")).partition(":")[0]
    if transport == "tls" and not values.get("fingerprint") and (not host or _numeric(host)):
        found.append(Finding(
            "domain", "TLS needs a name that the certificate is for, and here is "
            f"{'an address only' if host else 'none yet'}. Write the provider's domain or the proxy's host name, or "
            "pin its certificate.", bool(host),
        ))
    rule = values.get("tls_name", "domain") != "domain" or values.get("tls_wildcard") == "yes"
    if transport in ("udp", "tcp") and (rule or values.get("fingerprint")):
        found.append(Finding(
            "tls_name", f"Rules for certificates have no effect over {transport.upper()}. Remove them, or set the "
            "transport to tls.",
        ))
    return found


def _lifetime(expires: int) -> list[Finding]:
    if 0 < expires < SHORT:
        return [Finding(
            "expires", f"expires {expires} is very short: a REGISTER each {expires // 2 or 1} s. Set {SHORT} or more "
            "unless the provider says so.",
        )]
    if expires > LONG:
        return [Finding(
            "expires", f"expires {expires} is longer than a day: a provider that forgets us is noticed late. Set 3600.",
        )]
    return []


def _addresses(text: str) -> list[Finding]:
    found = []
    for line in text.split():
        try:
            network = ipaddress.ip_network(line, strict=False)
        except ValueError:
            continue
        if network.prefixlen < WIDE[network.version]:
            found.append(Finding(
                "addresses", f"{line} is a large part of the internet, and each address in it may call your PBX. "
                "Name the provider's own networks.", True,
            ))
    return found


def _trust(values: Mapping[str, str]) -> list[Finding]:
    found = []
    if values.get("inbound_from") == "any-provider":
        found.append(Finding(
            "inbound_from", "Every configured provider may call this account. Name the addresses of this provider "
            "instead where you know them.",
        ))
    if values.get("digest_minimum") == "MD5":
        found.append(Finding(
            "digest_minimum", "MD5 is answered even where the provider took SHA-256 before: who sits on the way may "
            "ask for it. Leave it empty where the provider speaks SHA-256.",
        ))
    return found


def _host(uri: str) -> str:
    """Host of a sip: URI; empty for none."""
    return uri.partition(":")[2].rpartition("@")[2].partition(";")[0].partition("?")[0] if uri else ""


def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.startswith("[")
    return True
