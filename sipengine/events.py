"""What the endpoint tells its host.  All times are engine clock; the host alone converts them to wall time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sipengine.transport.flow import Address


class RegistrationState(StrEnum):
    UNREGISTERED = "unregistered"
    REGISTERING = "registering"
    """A REGISTER is under way and no binding stands."""
    REGISTERED = "registered"
    REFRESHING = "refreshing"
    """A REGISTER is under way; the old binding still counts."""
    FAILING = "failing"
    """No usable answer; a retry is planned."""
    REFUSED = "refused"
    """A final no; a slow probe goes on."""
    UNREGISTERING = "unregistering"
    DISABLED = "disabled"


class Trigger(StrEnum):
    """Why a REGISTER was sent."""

    BEAT = "beat"
    GUARD = "guard"
    OPERATOR = "operator"
    CHANGE = "change"
    RECOVERY = "recovery"


@dataclass(slots=True)
class RegistrationChanged:
    """The registration of one account moved; carries all that is worth keeping of it."""

    l_uuid: str
    state: RegistrationState
    trigger: Trigger
    cause: str
    """Key of the cause table (`wrong_password`, `timeout`, `dns_empty`, …), empty while all is well."""
    code: int | None
    """Final status; None when no answer came or none is known yet."""
    reason: str
    granted: int | None
    bound_until_at: float | None
    next_attempt_at: float | None
    generation: int
    failures: int
    call_id: str
    cseq: int
    from_tag: str
    contact: str
    target: str
    """``transport:host:port`` that was asked."""
    round_trip: float | None
    realm_seen: str
    final: bool
    """An exchange ended (worth a history row); False: a REGISTER just left."""
    at: float
    service_route: str = ""
    path: str = ""
    associated_uris: str = ""
    """As the standing binding's 2xx named them (`uac.routes`)."""
    digest: str = ""
    """Algorithm of the last answer that was taken."""
    unchanged: bool = False
    """A refresh that found all as it was: no news for a history."""
    covered: float = 0.0
    coverable: float = 0.0
    """Seconds since the account is known, up to `counted_to` (`uac.coverage`)."""
    counted_to: float | None = None
    local_address: str = ""
    seen_address: str = ""
    """``host:port`` of our REGISTER, as we and as the registrar saw it (`uac.nat`)."""
    stale: str = ""
    """URIs of earlier addresses of ours that the registrar still has, a line each."""
    lapsed_at: float | None = None
    """When the binding before had ended, where nothing told so at the time."""


class Reachability(StrEnum):
    """What OPTIONS tell of an account's server."""

    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


@dataclass(slots=True)
class QualifyChanged:
    """The server of an account began or ceased to answer OPTIONS; or it answers as before, once a minute at most."""

    l_uuid: str
    state: Reachability
    cause: str
    """`options_silent`, `options_busy` or `options_answered` where that is news; else empty."""
    code: int | None
    reason: str
    """Of the answer; or what kept the OPTIONS from being answered."""
    target: str
    """``transport:host:port`` that was asked."""
    round_trip: float | None
    answered_at: float | None
    """Of the last answer."""
    at: float


@dataclass(frozen=True, slots=True)
class FurtherChanged:
    """The binding of one account at one more registrar moved (`UacAccount.at_once`)."""

    l_uuid: str
    registrar: str
    state: RegistrationState
    cause: str
    code: int | None
    reason: str
    granted: int | None
    bound_until_at: float | None
    next_attempt_at: float | None
    at: float
    gone: bool = False
    """The account is not to be bound there any more."""


@dataclass(slots=True)
class CallStarted:
    """An INVITE of a new call was relayed."""

    key: str
    call_id: str
    l_uuid: str
    direction: str
    caller: str
    callee: str
    anonymous: bool
    at: float


@dataclass(slots=True)
class CallAnswered:
    key: str
    l_uuid: str
    at: float


@dataclass(slots=True)
class CallEnded:
    """By BYE (`code` is the INVITE's 2xx), a failure, a CANCEL, or because nothing was heard of it for too long."""

    key: str
    l_uuid: str
    code: int
    reason: str
    at: float


@dataclass(slots=True)
class DialogShifted:
    """The CSeq of a call is counted otherwise towards its provider than its sealed token tells (a challenge within the
    call): `Endpoint.load_dialogs` wants `(key, state, expires_at)` back after a restart.  The newest of a key holds.
    """

    key: str
    """That of the call's other events; sixteen hex digits of its own where nobody marked the call."""
    call_id: str
    l_uuid: str
    state: str
    """Sealed with the seal keys, for nobody else to read; printable, at most some 2,000 characters."""
    expires_at: float
    """When nothing more will come of this call, unless something is said in it."""
    at: float


@dataclass(slots=True)
class DialogOver:
    """A call of a DialogShifted ended: its state may go."""

    key: str
    at: float


@dataclass(slots=True)
class BindingChanged:
    """A device registered here, refreshed, or its binding ended (`gone`): `Endpoint.registrar.load` wants those that
    stand back after a restart.
    """

    ruid: str
    aor: str
    """``user@domain``."""
    contact: str
    q: int
    """Thousandths."""
    expires_at: float
    call_id: str
    cseq: int
    path: str
    transport: str
    source: Address
    instance: str
    reg_id: int
    user_agent: str
    changed_at: float
    gone: bool = False


@dataclass(slots=True)
class Departed:
    """A binding that no account names any more is gone, or as good as that: `Registrations.depart` need not hear of it
    again.
    """

    l_uuid: str
    """Of the account that had it."""
    call_id: str
    """Of its REGISTERs."""
    at: float


@dataclass(slots=True)
class ResolutionWanted:
    """The core needs addresses; the host answers with `Endpoint.resolved(query, …)`."""

    host: str
    port: int | None
    transport: str | None
    """From the URI's transport parameter."""
    secure: bool = False


@dataclass(slots=True)
class Target:
    """One address to try, in order (RFC 3263 §4)."""

    transport: str
    address: Address
    names: tuple[str, ...] = ()
    """Over TLS, where a name led here: the name that was asked for, and that of the server found for it."""

    def __str__(self) -> str:
        """``transport:host:port``, brackets around IPv6."""
        host, port = self.address
        return f"{self.transport}:[{host}]:{port}" if ":" in host else f"{self.transport}:{host}:{port}"

    def is_server_of(self, other: Target) -> bool:
        """Whether both are one server, whatever name led there."""
        return (self.transport, self.address) == (other.transport, other.address)

    @property
    def lacks_names(self) -> bool:
        """It was read back from before a restart: over TLS nobody knows whose certificate counts."""
        return self.transport == "tls" and not self.names


Event = (
    RegistrationChanged | FurtherChanged | QualifyChanged | CallStarted | CallAnswered | CallEnded | DialogShifted
    | DialogOver | BindingChanged | Departed | ResolutionWanted
)
