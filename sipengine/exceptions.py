"""Errors of the engine: a peer's fault is an event or a status, ours is an exception."""

from __future__ import annotations

from collections.abc import Sequence


class SipError(Exception):
    """Root of everything the engine raises."""


class ProtocolError(SipError):
    """A message that breaks the rules; `status` is what a request like it is answered with."""

    status = 400

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status


class LocalProtocolError(ProtocolError):
    """Our own side broke the rules: a bug here, not at the peer."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the rules."""


class ParseError(RemoteProtocolError):
    """Bytes that are no SIP message."""

    status = 400


class UnsupportedUriScheme(RemoteProtocolError):
    status = 416


class BadExtension(RemoteProtocolError):
    status = 420


class LoopDetected(RemoteProtocolError):
    status = 482


class TooManyHops(RemoteProtocolError):
    status = 483


class TransactionError(SipError):
    """A transaction that could not do what was asked."""


class TransactionTimeout(TransactionError):
    """No final answer in 64*T1; a transaction user sees 408 (RFC 3261 §8.1.3.1)."""


class InvalidState(TransactionError):
    """A call that this state of the machine does not allow."""


class TransportError(SipError):
    """The message did not leave; a transaction user sees 503 (RFC 3261 §8.1.3.1)."""


class ResolutionError(TransportError):
    """No address was found for a host name."""


class FlowClosed(TransportError):
    """The connection ended or could not be opened."""


class TlsError(FlowClosed):
    """The peer spoke no TLS that we may use, or is not who was meant."""

    def __init__(self, cause: str, message: str, detail: str) -> None:
        super().__init__(message)
        self.cause = cause
        """Key of the cause table: `tls_name`, `tls_certificate`, `tls_fingerprint` or `tls_handshake`."""
        self.detail = detail
        """What was found instead, in a few words."""


class MessageTooLarge(TransportError):
    """More bytes than the transport carries."""


class AuthenticationError(SipError):
    """A challenge that could not be answered."""


class ChallengeUnsupported(AuthenticationError):
    """Scheme, algorithm or qop that we do not speak."""


class CredentialsRejected(AuthenticationError):
    """The far side refused the credentials."""


class RegistrationError(SipError):
    """A REGISTER was refused."""

    def __init__(self, status: int, reason: str, retry_after: int | None = None) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Reject(SipError):
    """A hook's verdict: answer the request with this status, as Django's Http404 is a view's."""

    def __init__(self, status: int, reason: str = "", headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(f"{status} {reason}".strip())
        self.status = status
        self.reason = reason
        self.headers = tuple(headers)
