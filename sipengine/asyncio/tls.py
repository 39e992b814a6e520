"""TLS of connections: contexts, their renewal while connections stand, and whom a certificate is for (RFC 5922 §7).

Opens no connection (`tcp` does), and does not decide what is expected of a peer: the `TlsPolicy` of the host says that.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from sipengine.exceptions import TlsError
from sipengine.message.uri import SipUri
from sipengine.transport.peers import TlsPolicy

log = logging.getLogger("sipengine")

LOOK = 3.0
"""Seconds between two looks at the files."""
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class TlsUnusable(OSError):
    """A file of keys or certificates cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What TLS is configured with, in PEM."""

    certificate: Path | None = None
    """Ours, with the certificates between it and its root; without it nobody can connect to us."""
    key: Path | None = None
    """None: it stands in the file of the certificate."""
    ca: Path | None = None
    """Whose signatures count on certificates of peers; None: those of the system."""
    minimum: str = "1.2"


class Tls:
    """The contexts of one configuration; TlsUnusable when they cannot be made."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._stamps = self._stamp()
        self._newest, self._clients = self._load()
        self.accepting = self._newest
        """Context of the sockets that listen, or None.  It hands each new connection on to the newest certificate."""
        if self.accepting is not None:
            self.accepting.sni_callback = self._take_newest

    def client(self, policy: TlsPolicy) -> ssl.SSLContext:
        """The context for a connection to a peer of this policy.

        It judges the chain; `judge` the name.  With a pinned certificate the chain does not matter.
        """
        return self._clients[bool(policy.fingerprint), policy.client_certificate]

    def look(self) -> None:
        """Take changed files over for new connections; files that cannot be used change nothing and are named once."""
        stamps = self._stamp()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        try:
            newest, self._clients = self._load()
        except TlsUnusable as error:
            log.error("%s The certificates from before stay in use.", error)
            return
        self._newest = newest
        log.info("The TLS certificates were read anew.")

    def _take_newest(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        if self._newest is not None:
            connection.context = self._newest

    def _stamp(self) -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for path in (self.files.certificate, self.files.key, self.files.ca):
            try:
                state = path.stat() if path else None
            except OSError:
                state = None
            found.append((state.st_mtime_ns, state.st_ino) if state else None)
        return found

    def _load(self) -> tuple[ssl.SSLContext | None, dict[tuple[bool, bool], ssl.SSLContext]]:
        server = self._with_certificate(ssl.PROTOCOL_TLS_SERVER) if self.files.certificate else None
        clients = {}
        for pinned in (False, True):
            for certified in (False, True):
                context = (self._with_certificate if certified else self._context)(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False  # RFC 5922 is stricter: `judge`
                if pinned:
                    context.verify_mode = ssl.CERT_NONE
                else:
                    self._trust(context)
                clients[pinned, certified] = context
        return server, clients

    def _context(self, side: int) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.minimum_version = VERSIONS[self.files.minimum]
        context.options |= ssl.OP_NO_RENEGOTIATION
        return context

    def _with_certificate(self, side: int) -> ssl.SSLContext:
        context, files = self._context(side), self.files
        if files.certificate is not None:
            try:
                # Without a password OpenSSL would ask for one on the terminal.
                context.load_cert_chain(files.certificate, files.key, password=_no_password)
            except (OSError, ValueError) as error:
                names = f"{files.certificate} with {files.key}" if files.key else f"{files.certificate}"
                raise TlsUnusable(
                    f"The TLS certificate {names} cannot be used: {_words(error)}. Check TRUNKMGR_TLS_CERTIFICATE and "
                    "TRUNKMGR_TLS_KEY."
                ) from None
        return context

    def _trust(self, context: ssl.SSLContext) -> None:
        if self.files.ca is None:
            context.load_default_certs()
            return
        try:
            context.load_verify_locations(self.files.ca)
        except (OSError, ValueError) as error:
            raise TlsUnusable(
                f"The certificate authorities in {self.files.ca} cannot be used: {_words(error)}. "
                "Check TRUNKMGR_TLS_CA."
            ) from None


def judge(connection: ssl.SSLObject, policy: TlsPolicy, host: str) -> TlsError | None:
    """Why a peer at address `host` is not the one that was meant; None when it is."""
    if policy.fingerprint:
        shown = hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
        if shown == policy.fingerprint:
            return None
        detail = f"its SHA-256 fingerprint is {shown}"
        return TlsError("tls_fingerprint", f"The certificate of {host} is not the pinned one: {detail}.", shown)
    found = identities(connection.getpeercert() or {})
    if any(_is_for(identity, name, policy.wildcard) for identity in found for name in policy.names):
        return None
    names = ", ".join(found[:3]) or "nobody"
    expected = " or ".join(policy.names)
    return TlsError(
        "tls_name", f"The certificate of {host} is for {names}; expected was {expected}.", f"{names}, not {expected}",
    )


def failure(error: Exception, host: str, port: int) -> TlsError | None:
    """What a failed handshake says; None when the connection failed before it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        return TlsError("tls_certificate", f"The certificate of {host} port {port} does not count: {why}.", why)
    if isinstance(error, ssl.SSLError):
        why = _words(error)
        return TlsError("tls_handshake", f"No TLS with {host} port {port}: {why}.", why)
    return None


def identities(certificate: Mapping[str, Any]) -> list[str]:
    """Names that a certificate is for: those of its sip: URIs, else its DNS names and addresses; the common name only
    where it has no alternative names at all (RFC 5922 §7.1).
    """
    alternatives: Sequence[tuple[str, str]] = certificate.get("subjectAltName", ())
    domains = [_sip_domain(value) for kind, value in alternatives if kind == "URI"]
    found = [domain for domain in domains if domain]
    if not found:
        found = [value.lower() for kind, value in alternatives if kind in ("DNS", "IP Address")]
    if not alternatives:
        subject = certificate.get("subject", ())
        found = [value.lower() for part in subject for kind, value in part if kind == "commonName"]
    return found


def _sip_domain(uri: str) -> str:
    """The domain of ``sip:domain``; empty for other schemes, and with a user: that is a person (RFC 5922 §7.1)."""
    if uri[:4].lower() != "sip:" or "@" in uri:
        return ""
    try:
        return SipUri.parse(uri.encode()).host.decode("ascii", "replace").lower()
    except Exception:
        return ""


def _is_for(identity: str, name: str, wildcard: bool) -> bool:
    if identity == name:
        return True
    if wildcard and identity.startswith("*."):
        label, _, rest = name.partition(".")
        return bool(label) and rest == identity[2:] and "." in rest
    try:
        return ip_address(identity) == ip_address(name)
    except ValueError:
        return False


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _no_password() -> str:
    raise ValueError("its key is encrypted; write it without a password, readable by this user alone")
