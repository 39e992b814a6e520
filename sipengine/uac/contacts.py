"""The bindings that a 200 to REGISTER lists, and which of them is ours (RFC 3261 §10.2.4, §10.3 step 8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sipengine.exceptions import ProtocolError
from sipengine.message import Message, NameAddr, SipUri
from sipengine.message.uri import unescape


@dataclass(frozen=True, slots=True)
class Listed:
    """One binding."""

    uri: SipUri
    text: bytes
    """The URI as the registrar wrote it."""
    expires: int | None
    """Its own parameter; None where it has none that can be read."""
    instance: bytes = b""
    """Its ``+sip.instance``, quotes included."""

    @property
    def line(self) -> bytes:
        """The token that we gave a Contact whose user is prescribed."""
        return unescape(self.uri.param(b"line") or b"")

    @property
    def user(self) -> bytes:
        return unescape(self.uri.user or b"")


def listed(message: Message) -> list[Listed]:
    """What a 200 lists, without what is no SIP URI."""
    found: list[Listed] = []
    for value in message.get_list(b"Contact"):
        try:
            contact = NameAddr.parse(value)
            uri = contact.sip_uri
        except ProtocolError:
            continue
        seconds = (contact.param(b"expires") or b"").strip(b'" ')
        instance = contact.param(b"+sip.instance") or b""
        found.append(Listed(uri, contact.uri, int(seconds[:10]) if seconds.isdigit() else None, instance))
    return found


def ours(
    contacts: Sequence[Listed], sent: bytes, user: bytes, line: bytes, instance: bytes = b""
) -> list[Listed]:
    """Those that may be the binding of the Contact `sent`, known by what is not empty: its `line`, `user`, `instance`.

    In this order, then the only one, since registrars rewrite Contacts and drop parameters.  An earlier address of ours
    may be listed too: of several the very URI that was sent counts (RFC 3261 §19.1.4), where it is there.
    """
    found = [each for each in contacts if line and each.line == line]
    found = found or [each for each in contacts if each.user == user]
    found = found or [each for each in contacts if instance and instance in each.instance]
    if not found and len(contacts) == 1:
        found = list(contacts)
    try:
        uri = SipUri.parse(sent)
    except ProtocolError:
        return found
    return [each for each in found if each.uri.equivalent(uri)] or found


def stale(contacts: Sequence[Listed], own: Sequence[Listed], user: bytes, line: bytes) -> list[Listed]:
    """Those that carry our key without being the binding of now: earlier addresses of ours that the registrar kept."""
    kept = [each for each in contacts if each not in own and each.expires != 0 and each.text.isascii()]
    return [each for each in kept if (each.line == line if line else each.user == user)]
