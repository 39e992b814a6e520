"""What a TLS peer shows, whether it counts or not: names, signer, dates, chain (RFC 5922 §7).

A connection of its own, closed after the handshake; nothing is sent over it.  Judges by the same contexts and the same
rule as connections for requests do (`tls`).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from sipengine.asyncio.tls import Tls, failure, judge
from sipengine.exceptions import TlsError
from sipengine.transport.peers import TlsPolicy

NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one certificate says of itself."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    until: datetime


@dataclass(frozen=True, slots=True)
class TlsReport:
    """What came of a look at a peer."""

    policy: TlsPolicy
    connected: bool = False
    error: TlsError | None = None
    """Why it does not count; None where it does, or where no connection came about."""
    detail: str = ""
    """Why no connection came about."""
    version: str = ""
    cipher: str = ""
    chain: tuple[Certificate, ...] = ()
    """As the peer shows it, its own first; empty where there was no handshake at all."""

    @property
    def days_left(self) -> int | None:
        """Whole days until the peer's own certificate ends; None when it showed none."""
        return (self.chain[0].until - datetime.now(UTC)).days if self.chain else None


async def look(tls: Tls, policy: TlsPolicy, host: str, port: int, local: str, timeout: float) -> TlsReport:
    """Connect to `host` from `local` within `timeout` seconds, and close again."""
    context = tls.client(policy)
    try:
        connection = await _handshake(context, policy, host, port, local, timeout)
    except (OSError, ValueError, TimeoutError) as error:
        refused = failure(error, host, port)
        if refused is None:
            return TlsReport(policy, detail=unconnected(error))
        # Who it says that it is helps most where it does not count.
        return TlsReport(policy, True, refused, chain=await _unjudged(policy, host, port, local, timeout))
    cipher = connection.cipher()
    return TlsReport(
        policy, True, judge(connection, policy, host), version=connection.version() or "",
        cipher=cipher[0] if cipher else "", chain=_chain(connection),
    )


def unconnected(error: Exception) -> str:
    """Why no connection came about, in a few words; asyncio's own would name its call."""
    if isinstance(error, TimeoutError) and not error.errno:
        return NO_ANSWER
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error)


async def _unjudged(policy: TlsPolicy, host: str, port: int, local: str, timeout: float) -> tuple[Certificate, ...]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return _chain(await _handshake(context, policy, host, port, local, timeout))
    except (OSError, ValueError, TimeoutError):
        return ()


async def _handshake(
    context: ssl.SSLContext, policy: TlsPolicy, host: str, port: int, local: str, timeout: float,
) -> Any:
    async with asyncio.timeout(timeout):
        _, writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname=policy.names[0], local_addr=(local, 0),
        )
    writer.transport.abort()
    return writer.get_extra_info("ssl_object")


def _chain(connection: Any) -> tuple[Certificate, ...]:
    # Public from Python 3.13; before it the C object beneath has it (3.10).
    source = connection if hasattr(connection, "get_unverified_chain") else connection._sslobj
    shown = [each if isinstance(each, bytes) else _der(each) for each in source.get_unverified_chain() or ()]
    return tuple(_certificate(x509.load_der_x509_certificate(each)) for each in shown)


def _der(certificate: Any) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.public_bytes())


def _certificate(read: x509.Certificate) -> Certificate:
    names: list[str] = []
    try:
        alternatives = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        pass
    else:
        names += [f"sip:{uri[4:]}" if uri[:4].lower() == "sip:" else uri
                  for uri in alternatives.get_values_for_type(x509.UniformResourceIdentifier)]
        names += alternatives.get_values_for_type(x509.DNSName)
        names += [str(address) for address in alternatives.get_values_for_type(x509.IPAddress)]
    return Certificate(
        read.subject.rfc4514_string(), read.issuer.rfc4514_string(), tuple(names), read.not_valid_after_utc,
    )
