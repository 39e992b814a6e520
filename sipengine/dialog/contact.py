"""Hides the user part of the caller's Contact and puts it back into the Request-URI of requests that come for it.

The hidden user is sealed and carries its own answer, so it survives a restart and a Contact that changes within the
call. The host stays: requests of the call pass by us on their way to it.
"""

from __future__ import annotations

from sipengine.dialog.seal import Sealer
from sipengine.exceptions import ParseError, UnsupportedUriScheme
from sipengine.message.message import value_of
from sipengine.message.uri import SipUri
from sipengine.message.values import NameAddr, split_list

PREFIX = b"hidden-"


def hide_contact(line: bytes, sealer: Sealer, call_id: bytes) -> bytes:
    """A Contact line with every user sealed and display names gone."""
    if line.find(b'"') < 0 and line.find(b",") < 0:
        i = line.find(b"<sip:")
        if i > 0:
            at = line.find(b"@", i)
            if at < 0:
                if b":" not in line[:i].partition(b":")[2].strip():
                    return b"Contact: " + line[i:]
            elif at < line.find(b">", i):
                return b"Contact: <sip:%b%b%b" % (PREFIX, sealer.seal(line[i + 5 : at], _bound_to(call_id)), line[at:])
    return b"Contact: " + b", ".join([_hide(value, sealer, call_id) for value in split_list(value_of(line))])


def _hide(value: bytes, sealer: Sealer, call_id: bytes) -> bytes:
    if value == b"*":
        return value
    contact = NameAddr.parse(value)
    try:
        uri = contact.sip_uri
    except UnsupportedUriScheme:
        # tel: and the like name the caller as a whole
        return b"<sip:%b%b@anonymous.invalid>%b" % (
            PREFIX, sealer.seal(contact.uri, _bound_to(call_id)), contact.params
        )
    except ParseError:
        return b"<sip:anonymous@anonymous.invalid>"
    if uri.user is None:
        return b"<%b>%b" % (contact.uri, contact.params)
    user = PREFIX + sealer.seal(uri.user, _bound_to(call_id))
    uri = SipUri(uri.scheme, user, uri.host, uri.port, uri.parameters, uri.headers)
    return b"<%b>%b" % (bytes(uri), contact.params)


def reveal(ruri: bytes, sealer: Sealer, call_id: bytes) -> bytes:
    """The Request-URI with the real user where it holds a hidden one of this call, else as it is."""
    scheme, colon, rest = ruri.partition(b":")
    if not rest.startswith(PREFIX):
        return ruri
    user, at, tail = rest.partition(b"@")
    plain = sealer.open(user[len(PREFIX) :], _bound_to(call_id)) if at else None
    if plain is None:
        return ruri
    if tail == b"anonymous.invalid":
        return plain
    return scheme + colon + plain + at + tail


def _bound_to(call_id: bytes) -> bytes:
    return b"contact\0" + call_id
