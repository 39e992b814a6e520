"""How a call's identities travel in our Record-Route, and how they come back from a Route (kamailio-uac g.2, g.3).

`sealed` carries both views under authenticated encryption; `kamailio` is the seed module's XOR and base64, bit for
bit, which hides nothing.  Where to put what is read is `proxy.within`'s.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from sipengine.counters import Counters
from sipengine.dialog.seal import Sealer
from sipengine.dialog.views import MAX_TOKEN, Views, bound_to, pack, unpack
from sipengine.exceptions import ParseError, RemoteProtocolError, UnsupportedUriScheme
from sipengine.message.uri import SipUri
from sipengine.message.values import tag_of, uri_of

_KAMAILIO = bytes.maketrans(b"=", b"-")
_BASE64 = bytes.maketrans(b"-", b"=")
_URI = re.compile(rb"(?:sips?|tel):[!#-;=?-~]+", re.IGNORECASE)
MAX_URI = 1024
"""The seed module stores no longer one."""


class ForgedToken(RemoteProtocolError):
    """A restore token that is not ours, altered, or of another call."""

    status = 403


@dataclass(slots=True)
class Recovered:
    """What a token said about the call of a request."""

    views: Views
    downstream: bool
    """From caller to callee."""
    key: str = ""
    """Key of the call's events."""
    whole: bool = True
    """Whether both directions can be translated with it (not so with the `kamailio` codec)."""
    l_uuid: str = ""
    """Account of the call."""
    incoming: bool = False
    """Its provider is the caller's side, else the callee's."""
    shift: int = 0
    """What the callee's side has CSeq ahead of the caller's."""


class RestoreCodec(Protocol):
    doubled: bool
    """Whether both values of a double Record-Route carry the parameters, as Kamailio's do."""

    def write(
        self, views: Views, call_id: bytes, caller_tag: bytes, key: str, l_uuid: str = "", incoming: bool = False,
        shift: int = 0,
    ) -> bytes:
        """Record-Route parameters with their leading ';', b"" when nothing is to be carried."""

    def present(self, params: bytes) -> bytes:
        """The parameters of a Route that are this codec's, b"" without any."""

    def read(self, params: bytes, call_id: bytes, from_line: bytes, to_line: bytes) -> Recovered | None:
        """Raises ForgedToken."""


def store_param(params: bytes, marker: bytes) -> bytes:
    """Value behind `;name=`."""
    i = params.find(marker)
    if i < 0:
        return b""
    i += len(marker)
    end = params.find(b";", i)
    return params[i:] if end < 0 else params[i:end]


class SealedCodec:
    """One token for both headers, in the parameter of From; in that of To where only To was replaced."""

    doubled = False

    def __init__(self, sealer: Sealer, from_param: str, to_param: str, counters: Counters) -> None:
        self._sealer = sealer
        self._from = b";%b=" % from_param.encode()
        self._to = b";%b=" % to_param.encode()
        self._counters = counters

    def write(
        self, views: Views, call_id: bytes, caller_tag: bytes, key: str, l_uuid: str = "", incoming: bool = False,
        shift: int = 0,
    ) -> bytes:
        token = self._seal(pack(views, key.encode(), l_uuid.encode(), incoming, shift), call_id, caller_tag)
        if l_uuid and not token:  # without the account a challenge after a restart is not answered; the rest is kept
            token = self._seal(pack(views, key.encode(), shift=shift), call_id, caller_tag)
        if not token:
            self._counters.token_too_long += 1
            return b""
        return (self._to if views.to_callee and not views.from_callee else self._from) + token

    def _seal(self, plain: bytes | None, call_id: bytes, caller_tag: bytes) -> bytes:
        token = b"" if plain is None else self._sealer.seal(plain, bound_to(call_id, caller_tag))
        return token if len(token) <= MAX_TOKEN else b""

    def present(self, params: bytes) -> bytes:
        for marker in (self._from, self._to):
            value = store_param(params, marker)
            if value:
                return marker + value
        return b""

    def read(self, params: bytes, call_id: bytes, from_line: bytes, to_line: bytes) -> Recovered | None:
        token = store_param(params, self._from) or store_param(params, self._to)
        if not token:
            return None
        for line, downstream in ((from_line, True), (to_line, False)):
            plain = self._sealer.open(token, bound_to(call_id, tag_of(line)))
            if plain is not None:
                views, key, l_uuid, incoming, shift = unpack(plain)
                return Recovered(views, downstream, key.decode(), True, l_uuid.decode(), incoming, shift)
        raise ForgedToken("a restore token does not belong to this call")


class KamailioCodec:
    """`vsf` and `vst` as Kamailio's uac module writes them; the direction comes from `ftag`, as its rr module does it.

    A value yields garbage for a URI that an endpoint altered.  So each of ours has a check value beside it, in a
    parameter with one letter more (`vsfc`), which Kamailio passes over; where it does not fit nothing is changed.
    """

    doubled = True

    def __init__(self, password: str, from_param: str, to_param: str) -> None:
        self._password = password.encode()
        self._from = b";%b=" % from_param.encode()
        self._to = b";%b=" % to_param.encode()
        self._from_check = b";%bc=" % from_param.encode()
        self._to_check = b";%bc=" % to_param.encode()

    def write(
        self, views: Views, call_id: bytes, caller_tag: bytes, key: str, l_uuid: str = "", incoming: bool = False,
        shift: int = 0,
    ) -> bytes:
        params = b""
        for marker, check, before, after in (
            (self._from, self._from_check, views.from_caller, views.from_callee),
            (self._to, self._to_check, views.to_caller, views.to_callee),
        ):
            original, new = uri_of(before), uri_of(after)
            if new and new != original and len(original) <= MAX_URI and len(new) <= MAX_URI:
                params += marker + self.encode(original, new) + check + self._check(original, new)
        return b";ftag=" + caller_tag + params if params else b""

    def present(self, params: bytes) -> bytes:
        markers = (b";ftag=", self._from, self._from_check, self._to, self._to_check)
        return b"".join([marker + value for marker in markers if (value := store_param(params, marker))])

    def read(self, params: bytes, call_id: bytes, from_line: bytes, to_line: bytes) -> Recovered | None:
        vsf = store_param(params, self._from), store_param(params, self._from_check)
        vst = store_param(params, self._to), store_param(params, self._to_check)
        if not vsf[0] and not vst[0]:
            return None
        ftag = store_param(params, b";ftag=")
        downstream = not ftag or tag_of(from_line) == ftag
        # Downstream vsf is of From and vst of To; upstream they change places.
        of_from = self._other(*(vsf if downstream else vst), from_line)
        of_to = self._other(*(vst if downstream else vsf), to_line)
        views = Views(b"", of_from, b"", of_to) if downstream else Views(of_to, b"", of_from, b"")
        return Recovered(views, downstream, whole=False)

    def _other(self, value: bytes, check: bytes, line: bytes) -> bytes:
        """The name-addr that the value yields for the URI seen now, b"" when nothing is to change.

        A display name belongs to the URI it came with, and might name who is hidden: it goes.
        """
        if not value:
            return b""
        seen = uri_of(line)
        other = self.decode(value, seen)
        if not other or (check and check != self._check(seen, other)):
            return b""
        return b"<%b>" % other

    def _check(self, one: bytes, other: bytes) -> bytes:
        """What both URIs of a pair agree on, whichever of them is seen."""
        pair = b"\0".join([self._password, *sorted((one, other))])
        return sha256(pair).hexdigest()[:8].encode()

    def encode(self, original: bytes, new: bytes) -> bytes:
        longer, shorter = (original, new) if len(original) > len(new) else (new, original)
        mixed = bytearray(longer)
        for i, byte in enumerate(shorter):
            mixed[i] ^= byte
        return binascii.b2a_base64(self._xor_password(mixed), newline=False).translate(_KAMAILIO)

    def decode(self, value: bytes, seen: bytes) -> bytes:
        """The URI that `value` holds besides `seen`; b"" where it holds none."""
        try:
            mixed = self._xor_password(bytearray(binascii.a2b_base64(value.translate(_BASE64), strict_mode=True)))
        except binascii.Error:
            return b""
        if not mixed or len(seen) > len(mixed):
            return b""
        for i, byte in enumerate(seen):
            mixed[i] ^= byte
            if not mixed[i]:
                return _uri(bytes(mixed[:i]))
        return _uri(bytes(mixed))

    def _xor_password(self, data: bytearray) -> bytearray:
        password = self._password
        if password:
            for i in range(len(data)):
                data[i] ^= password[i % len(password)]
        return data


def _uri(text: bytes) -> bytes:
    """`text` where it is a URI as From and To have them, else b""."""
    if not _URI.fullmatch(text):
        return b""
    try:
        SipUri.parse(text)
    except UnsupportedUriScheme:
        return text
    except ParseError:
        return b""
    return text
