"""What a stored text must look like before it may stand in a SIP message (RFC 3261 §25.1).

These are refusals at the edge, so they say what is wrong with the value; they are stricter than the grammar where
the grammar allows what no account needs.
"""

from __future__ import annotations

import ipaddress
import re

from django.core.exceptions import ValidationError

from trunkmgr.env import OUTGOING

_USER = re.compile(r"(?:[A-Za-z0-9\-_.!~*'()&=+$,;?/]|%[0-9A-Fa-f]{2})+")
_HOST_PORT = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?")
_PARAMETERS = re.compile(r"(?:;[A-Za-z0-9\-_.!~*'()%+$/:\[\]&]+(?:=[A-Za-z0-9\-_.!~*'()%+$/:\[\]&]*)?)*")
_PREFIX = re.compile(r"!?\+?[0-9*#]{1,20}|!?\+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}")
_WEBSOCKET = re.compile(r"\btransport=wss?(;|$)", re.IGNORECASE)
_HA1 = re.compile(r"[0-9A-Fa-f]{32}")


def plain_text(value: str) -> None:
    """Refuse control characters: a line break would end a header."""
    if _CONTROL.search(value):
        raise ValidationError("The text has a line break or another control character; leave it out.")


def number_prefixes(value: str) -> None:
    """Accept beginnings of numbers, ``!`` before those that are forbidden."""
    for word in value.replace(",", " ").split():
        if not _PREFIX.fullmatch(word):
            raise ValidationError(
                f"{word[:20]!r} is no beginning of a number: write digits, + and ! only, for example +49, !+49900."
            )


def qualify_seconds(value: int) -> None:
    """Accept 0, or a pause that outlasts the answer to one OPTIONS."""
    if value and not 10 <= value <= 3600:
        raise ValidationError("Write 0 for no OPTIONS, or 10 to 3600 seconds.")


def sip_user(value: str) -> None:
    if not _USER.fullmatch(value):
        raise ValidationError(
            "A SIP user has letters, digits and - _ . ! ~ * ' ( ) & = + $ , ; ? / only; write others as %HH."
        )


def _is_host_port(value: str) -> bool:
    match = _HOST_PORT.fullmatch(value)
    return match is not None and (match[1] is None or 0 < int(match[1]) <= 65535)


def sip_domain(value: str) -> None:
    if not _is_host_port(value):
        raise ValidationError("A SIP domain is a host name or an address, with :PORT if needed, and without sip:.")


#: Registrars that are tried one after the other: each silent one costs 6 s of a refresh.
MAX_URIS = 4


def sip_uri(value: str) -> None:
    """Accept ``sip:[user@]host[:port][;parameters]``, also with ``sips:``."""
    scheme, colon, rest = value.partition(":")
    if scheme.lower() not in {"sip", "sips"} or not colon:
        raise ValidationError("A SIP URI starts with sip: or sips:, for example sip:192.0.2.20:5060.")
    before, at, after = rest.rpartition("@")
    if at and not _USER.fullmatch(before.partition(":")[0]):
        raise ValidationError("The part before @ is no SIP user.")
    host, semicolon, parameters = after.partition(";")
    if not _is_host_port(host) or not _PARAMETERS.fullmatch(semicolon + parameters):
        raise ValidationError("The URI needs host[:port][;parameters] after sip:, for example sip:192.0.2.20:5060.")
    if _WEBSOCKET.search(parameters):
        raise ValidationError("Nobody is called over WebSocket who has not connected; write transport=udp, tcp or tls.")


def sip_uris(value: str) -> None:
    """Accept up to `MAX_URIS` of them, separated by commas or spaces."""
    uris = value.replace(",", " ").split()
    if len(uris) > MAX_URIS:
        raise ValidationError(f"These are {len(uris)} URIs; {MAX_URIS} are the most.")
    for uri in uris:
        sip_uri(uri)


def contact_address(value: str) -> None:
    host, semicolon, parameters = value.partition(";")
    if not _is_host_port(host) or not _PARAMETERS.fullmatch(semicolon + parameters):
        raise ValidationError("Write host[:port][;parameters], for example 192.0.2.1:5060;transport=tcp.")


def local_socket(value: str) -> None:
    transport, _, rest = value.partition(":")
    host, _, port = rest.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        known = transport in OUTGOING and port.isascii() and port.isdigit() and int(port) <= 65535
    except ValueError:
        known = False
    if not known:
        raise ValidationError("Write PROTOCOL:IP:PORT, for example udp:192.0.2.1:5060.")


def networks(value: str) -> None:
    """Accept one address or network a line."""
    for number, line in enumerate(value.splitlines(), 1):
        if line.strip():
            try:
                ipaddress.ip_network(line.strip(), strict=False)
            except ValueError:
                raise ValidationError(
                    "Line %(line)d: %(text)s is neither an address nor a network like 198.51.100.0/24.",
                    params={"line": number, "text": repr(line.strip())},
                ) from None


def fingerprint(value: str) -> None:
    if not _FINGERPRINT.fullmatch(value):
        raise ValidationError(
            "A SHA-256 fingerprint is 64 hex digits, colons between them or not: "
            "openssl x509 -noout -fingerprint -sha256 -in FILE shows it."
        )


def ha1(value: str) -> None:
    if not _HA1.fullmatch(value):
        raise ValidationError("An HA1 is MD5(user:realm:password) in 32 hex digits.")
