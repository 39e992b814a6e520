"""The registrar: what a REGISTER asks for, checked in the order of RFC 3261 §10.3, and its answer.

A device binds its own address-of-record and no other.  Whose passwords count and which domains are ours, the host says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sipengine.counters import Counters
from sipengine.exceptions import ParseError, RemoteProtocolError
from sipengine.identifiers import Identifiers
from sipengine.message import build
from sipengine.message.fields import AUTHORIZATION, CALL_ID, CONTACT, FROM, TO
from sipengine.message.message import Message, value_of
from sipengine.message.uri import SipUri, unescape
from sipengine.message.values import NameAddr, uri_of
from sipengine.registrar.authentication import Authenticator, Verdict
from sipengine.registrar.location import Binding, Location, domain_of
from sipengine.transport.flow import Flow
from sipengine.transport.layer import TransportLayer
from sipengine.uac.digest import Credentials

MIN_EXPIRES, DEFAULT_EXPIRES, MAX_EXPIRES = 60, 3600, 7200
AN_HOUR = 3600
"""A longer wish is never too brief (§10.3 step 7)."""
SUPPORTED = frozenset({b"path", b"outbound"})
TAG = b"0123456789abcdef"
"""As long as the To tag of our answers."""
LONGEST = 255
"""Bytes of a Contact, and of all Path values: what one device may have us keep."""


@dataclass(frozen=True, slots=True)
class Device:
    """Who may register: one address-of-record and what proves it."""

    aor: str
    """``user@domain``, the domain in lower case; it is the realm too."""
    credentials: Credentials
    max_contacts: int = 1
    md5_only: bool = False
    """It gives up when SHA-256 is offered besides MD5, as some do that know MD5 only."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    reason: bytes = b""
    lines: tuple[bytes, ...] = ()


class Refused(RemoteProtocolError):
    """A REGISTER that changes nothing."""

    def __init__(self, status: int, reason: str, lines: tuple[bytes, ...] = ()) -> None:
        super().__init__(reason, status)
        self.reply = Reply(status, reason.encode(), lines)


class Registrar:
    """`device_of(aor)`, `serves(domain)` and `protected(host)` are the host's: who there is, which domains are ours,
    and which hosts no device may name in its Contact.
    """

    def __init__(
        self, location: Location, transport: TransportLayer, identifiers: Identifiers, counters: Counters, key: bytes,
    ) -> None:
        self.location = location
        self.authenticator = Authenticator(key, identifiers.hex)
        self.device_of: Callable[[str], Device | None] = _nobody
        self.serves: Callable[[str], bool] = _never
        self.protected: Callable[[str], bool] = _never
        self.on_unauthorized: Callable[[Flow], None] = _unheard
        """Hears of each answer to a challenge that was wrong; the host sets it."""
        self._transport = transport
        self._identifiers = identifiers
        self._counters = counters

    def save(self, message: Message, flow: Flow, now: float, room: int | None = None) -> Reply:
        """Do what a REGISTER asks for, all of it or nothing, and return its answer.

        `room`: bytes that a challenge may make of its answer, as far as one can be so short.
        """
        try:
            unknown = [tag for tag in message.get_list(b"Require") if tag.lower() not in SUPPORTED]
            if unknown:
                raise Refused(420, "Bad Extension", (b"Unsupported: " + b", ".join(unknown),))
            device = self._authenticated(message, flow, now, room)
            return self._update(device, message, flow, now)
        except Refused as refused:
            return refused.reply

    # §10.3 steps 3 to 5
    def _authenticated(self, message: Message, flow: Flow, now: float, room: int | None) -> Device:
        """Who asks, proven, for himself; Refused otherwise.

        Users who are none are answered as users with another password are: nobody learns who there is.
        """
        aor = aor_of(message.line(TO))
        realm = domain_of(aor)
        if not self.serves(realm):
            raise Refused(404, "Not Found")
        named = self.device_of(aor)
        answer = self.authenticator.answer_of(message.get_all(AUTHORIZATION), realm.encode())
        stale = False
        if answer is not None:
            device = self.device_of(f"{answer.username.decode(errors='replace')}@{realm}")
            credentials = device.credentials if device is not None else None
            verdict = self.authenticator.check(answer, credentials, b"REGISTER", message.ruri, now)
            if verdict is Verdict.PROVEN and device is not None:
                if device.aor != aor or aor_of(message.line(FROM)) != aor:
                    raise Refused(403, "Registers somebody else")
                return device
            stale = verdict is Verdict.STALE
            if not stale:
                self._counters.unauthorized += 1
                self.on_unauthorized(flow)
        md5_only = named is not None and (named.md5_only or not named.credentials.fits(b"SHA-256"))
        if room is not None:
            room -= len(build.response(build.head_of(message), 401, b"Unauthorized", TAG))
        lines = self.authenticator.challenge(realm.encode(), now, stale=stale, md5_only=md5_only, room=room)
        raise Refused(401, "Unauthorized", lines)

    # §10.3 steps 6 to 8
    def _update(self, device: Device, message: Message, flow: Flow, now: float) -> Reply:
        location, aor = self.location, device.aor
        standing = location.of(aor, now)
        call_id, number = value_of(message.line(CALL_ID)), message.cseq[0]
        contacts = message.contacts if CONTACT in message.keys else []
        if any(contact.uri == b"*" for contact in contacts):
            if len(contacts) > 1 or _seconds(message.get(b"Expires")) != 0:
                raise Refused(400, "Contact * goes alone and with Expires 0")
            ended, made = standing, list[Binding]()
            for binding in standing:
                _check_order(binding, call_id, number)
        else:
            ended, made = self._plan(device, message, contacts, standing, flow, now)
        for binding in made:
            location.bind(binding, now)
        for binding in ended:
            location.unbind(binding)
        return Reply(200, b"OK", self._granted(aor, message, made, now))

    def _plan(
        self, device: Device, message: Message, contacts: list[NameAddr], standing: list[Binding], flow: Flow,
        now: float,
    ) -> tuple[list[Binding], list[Binding]]:
        """Bindings that end and bindings that are made; Refused where one of them may not be, so that none is."""
        call_id, number = value_of(message.line(CALL_ID)), message.cseq[0]
        wished = _seconds(message.get(b"Expires"))
        path = tuple(message.get_list(b"Path"))
        if sum(map(len, path)) > LONGEST:
            raise Refused(400, "Path is too long")
        if path:
            SipUri.parse(uri_of(path[0]))
        # RFC 5626 §6: without Path the device itself is the next hop, or its flow is not ours to keep.
        outbound = not path and b"outbound" in [tag.lower() for tag in message.get_list(b"Supported")]
        agent = (message.get(b"User-Agent") or b"").decode(errors="replace")[:LONGEST]
        ended: list[Binding] = []
        made: list[Binding] = []
        for contact in contacts:
            uri = self._checked(contact, flow)
            seconds = _granted_seconds(_seconds(contact.param(b"expires")), wished)
            instance, reg_id = _identity(contact) if outbound else (b"", 0)
            old = next((binding for binding in standing if binding.is_of(uri, instance, reg_id)), None)
            if old is not None:
                _check_order(old, call_id, number)
            made = [binding for binding in made if not binding.is_of(uri, instance, reg_id)]
            if not seconds:
                if old is not None:
                    ended.append(old)
                continue
            made.append(Binding(
                ruid=old.ruid if old is not None else self._identifiers.hex().decode(), aor=device.aor,
                contact=contact.uri, uri=uri, q=_q(contact.param(b"q")), expires_at=now + seconds, call_id=call_id,
                cseq=number, path=path, transport=flow.listener.transport, source=flow.remote, instance=instance,
                reg_id=reg_id, user_agent=agent, changed_at=now, flow=flow if flow.reliable else None,
            ))
        if len(made) > device.max_contacts:
            raise Refused(403, "Too many contacts")
        kept = {binding.ruid for binding in made} | {binding.ruid for binding in ended}
        others = sorted((each for each in standing if each.ruid not in kept), key=lambda each: each.changed_at)
        # A device that lost its memory or its connection comes back as another contact: the oldest makes room for it.
        surplus = len(others) + len(made) - device.max_contacts
        if made and surplus > 0:
            ended += others[:surplus]
        return ended, made

    def _checked(self, contact: NameAddr, flow: Flow) -> SipUri:
        """The URI of a Contact that may be called; Refused for one that leads to us or to a peer of ours."""
        if len(contact.uri) > LONGEST:
            raise Refused(400, "Contact is too long")
        try:
            uri = SipUri.parse(contact.uri)
        except ParseError:
            raise Refused(400, "Contact is no SIP URI") from None
        except RemoteProtocolError:
            raise Refused(400, "Contact is no sip: URI") from None
        host = uri.host.strip(b"[]").decode("ascii", "replace").lower()
        if self._transport.is_own(uri.host, uri.port) or (host != flow.remote[0] and self.protected(host)):
            raise Refused(403, "Contact names a host that is not the device's")
        return uri

    def _granted(self, aor: str, message: Message, made: list[Binding], now: float) -> tuple[bytes, ...]:
        """Header lines of the 200: all that is bound now (§10.3 step 8)."""
        lines = []
        for binding in self.location.of(aor, now):
            line = b"Contact: <%b>;expires=%d;q=%d.%03d" % (
                binding.contact, max(1, round(binding.expires_at - now)), *divmod(binding.q, 1000)
            )
            if binding.reg_id:
                line += b";+sip.instance=%b;reg-id=%d" % (binding.instance, binding.reg_id)
            lines.append(line)
        path = message.get_list(b"Path") if made else []
        if path and b"path" in [tag.lower() for tag in message.get_list(b"Supported")]:
            lines.append(b"Path: " + b", ".join(path))  # RFC 3327 §5.3
        if any(binding.reg_id for binding in made):
            lines.append(b"Require: outbound")  # RFC 5626 §6
        return tuple(lines)


def _unheard(flow: Flow) -> None: ...


def aor_of(line: bytes) -> str:
    """Canonical address-of-record of a From or To line (§10.3 step 5): user unescaped, host in lower case, no more."""
    uri = SipUri.parse(uri_of(line))
    if uri.user is None:
        return "@" + uri.host.decode("ascii", "replace").lower()
    return f"{unescape(uri.user).decode(errors='replace')}@{uri.host.decode('ascii', 'replace').lower()}"


def _check_order(binding: Binding, call_id: bytes, number: int) -> None:
    """Within one Call-ID a later REGISTER has a higher CSeq; one that does not came late (§10.3 steps 6 and 7)."""
    if binding.call_id == call_id and number <= binding.cseq:
        raise Refused(500, "CSeq is not higher than before")


def _seconds(text: bytes | None) -> int | None:
    """A wish of `expires`; None where there is none that can be read (§10.3 step 7: as if it were not there)."""
    return min(int(text), 2**32 - 1) if text is not None and text.isdigit() and len(text) < 12 else None


def _granted_seconds(own: int | None, of_all: int | None) -> int:
    seconds = own if own is not None else of_all if of_all is not None else DEFAULT_EXPIRES
    if 0 < seconds < min(MIN_EXPIRES, AN_HOUR):
        raise Refused(423, "Interval Too Brief", (b"Min-Expires: %d" % MIN_EXPIRES,))
    return min(seconds, MAX_EXPIRES)


def _q(text: bytes | None) -> int:
    """Thousandths of a qvalue (§25.1); 1 where there is none."""
    try:
        return max(0, min(1000, round(float(text) * 1000))) if text else 1000
    except (ValueError, OverflowError):
        return 1000


def _identity(contact: NameAddr) -> tuple[bytes, int]:
    """`+sip.instance` as it stands, and reg-id; nothing unless both are there (RFC 5626 §4.2)."""
    instance, number = contact.param(b"+sip.instance"), contact.param(b"reg-id")
    if not instance or len(instance) > LONGEST or number is None or not number.isdigit() or len(number) > 9:
        return b"", 0
    return instance, int(number)


def _nobody(aor: str) -> Device | None:
    return None


def _never(name: str) -> bool:
    return False
