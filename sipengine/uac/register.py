"""The REGISTER requests of one binding: what stays the same in them and what rises (RFC 3261 §10.2; RFC 6140 §5.1;
kamailio-uac f.4).

Does not send and does not judge answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from sipengine.events import Target
from sipengine.message import Message
from sipengine.message.uri import SipUri
from sipengine.message.values import MAX_CSEQ
from sipengine.transport.flow import Flow, Listener
from sipengine.transport.layer import WILDCARDS
from sipengine.uac.account import UacAccount
from sipengine.uac.binding import BindingRecord
from sipengine.uac.contacts import Listed, listed, ours, stale
from sipengine.uac.lookup import escape_param, escape_user
from sipengine.uac.nat import PublicAddress
from sipengine.uac.outbound import contact_parameters
from sipengine.uac.routes import NO_ROUTES

MAX_STALE = 10
"""Earlier addresses of ours that are told, and taken back in one REGISTER."""
CSEQ_JUMP = 10
"""Added at a restart: the last REGISTERs before it may not have reached the database."""
_DOMAIN = re.compile(r"[A-Za-z0-9._\-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
_ADDRESS = re.compile(r"[^\s<>\"@\x00-\x1f]+")


class Binding:
    """One binding at one registrar.  Call-ID and From tag hold for all its REGISTERs, CSeq rises over all of them."""

    __slots__ = (
        "_own", "_told", "account", "address", "asked", "call_id", "contact", "cseq", "entropy", "from_tag", "plain",
        "redirect", "routes", "stale", "takes_back", "target", "until_at",
    )  # fmt: skip

    def __init__(self, account: UacAccount, entropy: Callable[[int], bytes]) -> None:
        self.account = account
        self.entropy = entropy
        self.call_id = entropy(12).hex()
        self.from_tag = entropy(6).hex()
        self.cseq = 0
        self.contact = ""
        """URI of the last REGISTER."""
        self.until_at: float | None = None
        self.asked = account.expires
        """Seconds to ask for; a 423 raises it."""
        self.redirect: SipUri | None = None
        """Where the registrar sent us (RFC 3261 §8.1.3.4), as long as that works."""
        self.routes = NO_ROUTES
        self.plain = False
        """A proxy on the way does not speak RFC 5626 (439)."""
        self.address = PublicAddress()
        self.stale: tuple[str, ...] = ()
        """URIs of earlier addresses of ours that the registrar still has."""
        self.takes_back: tuple[str, ...] = ()
        """Those that the next REGISTER removes."""
        self.target: Target | None = None
        """The server that granted it."""
        self._told: tuple[object, ...] = ()
        self._own: list[Listed] = []

    def resume(self, record: BindingRecord) -> None:
        """Go on where its last REGISTER before a restart stopped (RFC 3261 §10.2.4)."""
        self.call_id, self.from_tag = record.call_id or self.call_id, record.from_tag or self.from_tag
        self.cseq = record.cseq + CSEQ_JUMP if record.cseq else 0
        self.contact, self.until_at = record.contact, record.bound_until_at

    def stands(self, now: float) -> bool:
        return self.until_at is not None and self.until_at > now

    def lapse(self) -> None:
        """Forget what holds only while the binding stands."""
        self.until_at, self.routes, self.target = None, NO_ROUTES, None

    def listed(self, message: Message) -> list[Listed]:
        """Which of the bindings that a 200 lists are ours, as `contacts.ours`; takes up which of them are `stale`.

        Most refreshes list what the one before did, and then nothing is read again.
        """
        told = message.get_all(b"Contact"), self.contact, self.account.contact_key
        if told != self._told:
            user, line = (part.encode() for part in self.account.contact_key)
            contacts = listed(message)
            self._told, self._own = told, ours(
                contacts, self.contact.encode(), user, line, self.instance.encode()
            )
            old = stale(contacts, self._own, user, line)[:MAX_STALE]
            self.stale = tuple([each.text.decode() for each in old])
        return self._own

    @property
    def instance(self) -> str:
        """What REGISTER names this account here by (RFC 5626); empty: nothing."""
        return "" if self.plain else self.account.instance

    @property
    def ruri(self) -> bytes:
        if self.redirect is not None:
            return bytes(SipUri(b"sip", None, self.redirect.host, self.redirect.port))
        return f"sip:{self.account.r_domain}".encode()

    @property
    def route(self) -> bytes:
        """URI that decides where REGISTER goes."""
        return self.home if self.redirect is None else bytes(replace(self.redirect, user=None, headers=b""))

    @property
    def home(self) -> bytes:
        """URI that REGISTER goes to unless the registrar sends us elsewhere."""
        return self.account.auth_proxy.strip("<> ").encode() or f"sip:{self.account.r_domain}".encode()

    @property
    def standby(self) -> tuple[bytes, ...]:
        """URIs of the account's other registrars, as `route`."""
        if self.redirect is not None or self.account.at_once:
            return ()
        return tuple(uri.encode() for uri in self.account.registrars)

    def may_follow(self, uri: SipUri) -> bool:
        """Whether a redirection leads to the provider: to the account's domain or proxy, or below one of them; and
        not from TLS to a clear text.
        """
        home, domain = SipUri.parse(self.home), SipUri.parse(f"sip:{self.account.r_domain}")
        if home.default_port == 5061 and uri.default_port != 5061:
            return False
        host, owns = uri.host.lower(), (domain.host.lower(), home.host.lower())
        return any(host == own or host.endswith(b"." + own) for own in owns)

    def headers(self, expires: int, flow: Flow, contact_addr: str) -> list[tuple[bytes, bytes]]:
        """Make the header fields of the next REGISTER on `flow`; `expires` 0 takes the binding back."""
        if self.cseq >= MAX_CSEQ:
            self.call_id, self.cseq = self.entropy(12).hex(), 0
        self.cseq += 1
        account = self.account
        aor = b"<sip:%b@%b>" % (escape_user(account.r_username), account.r_domain.encode())
        headers = [
            (b"From", aor + b";tag=" + self.from_tag.encode()),
            (b"To", aor),
            (b"Call-ID", self.call_id.encode()),
            (b"CSeq", b"%d REGISTER" % self.cseq),
            # RFC 3327 §5.1: in every REGISTER, so that no proxy on the way need refuse it for want of the extension.
            (b"Supported", b"path, outbound" if self.instance else b"path"),
        ]
        if account.gin:
            headers += [(b"Require", b"gin"), (b"Proxy-Require", b"gin")]
        contact = self._contact(flow, contact_addr)
        old = self.contact or contact
        if not expires:
            # RFC 3261 §10.2.2: our Contact, not `*`, which would take other devices of the account with it.
            parameters = contact_parameters(self.instance) if self.instance else ""
            return [*headers, (b"Contact", f"<{old}>{parameters};expires=0".encode()), (b"Expires", b"0")]
        if self.instance:
            # RFC 5626 §4.2: one Contact only; another address of this instance replaces the one before.
            self.contact = contact
            full = f"<{contact}>{contact_parameters(self.instance)}".encode()
            return [*headers, (b"Contact", full), (b"Expires", b"%d" % expires)]
        headers.append((b"Contact", f"<{contact}>".encode()))
        # Our address changed: the same REGISTER takes the old Contact back.
        gone = (old, *self.takes_back) if old != contact and self.until_at is not None else self.takes_back
        headers += [(b"Contact", f"<{uri}>;expires=0".encode()) for uri in gone]
        self.contact = contact
        return [*headers, (b"Expires", b"%d" % expires)]

    def _contact(self, flow: Flow, contact_addr: str) -> str:
        account = self.account
        user, line = account.contact_key
        uri = account.contact_addr or contact_addr or self.address.of(flow)
        transport = flow.listener.transport
        if transport != "udp" and ";transport=" not in uri.lower():
            uri += f";transport={transport}"
        # RFC 6140 §5.1: no user; the provider puts the number there, takes `bnc` off and gives all else back as it is.
        uri = f"sip:{uri};bnc" if account.gin else f"sip:{escape_user(user).decode()}@{uri}"
        return f"{uri};line={escape_param(line).decode()}" if line else uri

    def leads_to(self, listeners: list[Listener], contact_addr: str) -> bool:
        """Whether the Contact that a registrar holds still leads here: not after the listen address was changed."""
        address = address_of(self.contact)
        expected = self.account.contact_addr or contact_addr
        if expected:
            return address == expected or address.startswith(expected + ";")
        address = address.partition(";")[0]
        host, _, port = (self.address.local if address == self.address.named else address).rpartition(":")
        return any(
            str(x.port) == port and (x.host in WILDCARDS or x.host == host.strip("[]")) for x in listeners
        )


def address_of(contact: str) -> str:
    """``host[:port][;parameters]`` of a Contact that we made."""
    return contact.rpartition("@")[2].removeprefix("sip:")


def problem_of(account: UacAccount) -> str:
    """Cause key for a row that cannot make a REGISTER; empty when it can."""
    if account.problem:
        return account.problem
    if not account.l_uuid or not account.r_username or not _DOMAIN.fullmatch(account.r_domain):
        return "bad_row"
    if account.contact_addr and not _ADDRESS.fullmatch(account.contact_addr):
        return "bad_row"
    parameters = account.contact_addr.lower()
    if account.contact_key[1] and ";line=" in parameters:
        return "bad_row"
    if account.gin and ";user=" in parameters:  # RFC 6140 §5.3
        return "bad_row"
    return ""
