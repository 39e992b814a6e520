"""An immutable picture of accounts, domains, providers and credentials: what routing, admission and registrations read.

Patched row by row into a new picture and swapped whole, so that a request sees one state from its start to its end.
Reads no table (`changes` does) and opens no socket: names of hosts stay names, `middleware.Admission` learns their
addresses.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

from sipengine.registrar.location import domain_of
from sipengine.registrar.registrar import Device
from sipengine.uac.account import UacAccount
from sipengine.uac.digest import Credentials
from sipengine.uac.lookup import AccountTable, escape_user
from trunkmgr import models
from trunkmgr.env import StaticCredential
from trunkmgr.exceptions import UndecryptableSecret
from trunkmgr.models import Credential, Departure, Domain, Provider, UacReg, UacRegOptions
from trunkmgr.sip.limits import NO_LIMITS, Limits, limits_of

log = logging.getLogger("trunkmgr.sip")

#: Cause key of an account whose stored secret no key of ours opens.
UNREADABLE = "secret_unreadable"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Trunk:
    """An account and what we keep beside it."""

    account: UacAccount
    anonymous: bool
    """`inbound_identity`: the far side of an inbound call does not learn the caller."""
    provider_id: int | None
    outbound_proxy: str = ""
    """Where its calls go, before anything else."""
    from_any: bool = False
    """`inbound_from`: every configured provider may call it, not only its own."""
    limits: Limits = NO_LIMITS
    """What it may cost."""
    by_address: bool = False
    """It has no password: the provider knows us by our address."""
    side: tuple[int | None, frozenset[str]] = field(init=False, repr=False, compare=False)
    """Who its provider is: its row, and the hosts that the account names."""
    credentials: tuple[Credentials, ...] = field(init=False, repr=False, compare=False)
    """The account's own, as it registers with them; none where it has no secret."""

    def __post_init__(self) -> None:
        own = self.account.credentials(self.account.realm)
        object.__setattr__(self, "credentials", (own,) if own else ())
        object.__setattr__(self, "side", (self.provider_id, frozenset(self.hosts)))

    @property
    def registrar(self) -> str:
        """Host that REGISTER goes to, a name or an address."""
        return host_of(self.account.auth_proxy or self.account.r_domain)

    @property
    def registrar_uri(self) -> str:
        """Where REGISTER goes."""
        return self.account.auth_proxy.strip("<> ") or f"sip:{self.account.r_domain}"

    @property
    def aor(self) -> bytes:
        """Who the account is at its provider."""
        return b"sip:%b@%b" % (escape_user(self.account.r_username), self.account.r_domain.encode())

    @property
    def hosts(self) -> set[str]:
        """Hosts of its provider that the account names."""
        uris = (self.outbound_proxy, *self.account.registrars)
        return {self.registrar, *(host_of(uri) for uri in uris if uri)}


@dataclass(frozen=True, slots=True)
class TlsRule:
    """A provider's exceptions from the rule that its certificate is for the name that was asked for."""

    server_name: bool = False
    """The name of the server that SRV leads to counts too."""
    wildcard: bool = False
    fingerprint: str = ""
    client_certificate: bool = False


@dataclass(frozen=True, slots=True)
class Peers:
    """Who may send us anything: hosts (names or addresses) and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    udp_only: bool = False
    """A provider's `size_rule`: long requests to it stay on UDP."""
    tls: TlsRule = field(default_factory=TlsRule)
    """What a provider must prove over TLS."""
    reg_rate: int = 0
    """REGISTERs a second that each address of a provider gets at most; 0: as many as we send at most."""


@dataclass(frozen=True, slots=True)
class Pbx:
    """A local domain's next hop and who answers for it."""

    next_hop: bytes
    """Empty: what its devices have registered."""
    peers: Peers


@dataclass(frozen=True, slots=True)
class Scoped:
    """A row of credentials and whose calls it answers for: an account's, a provider's, or everybody's."""

    credentials: Credentials
    l_uuid: str | None
    provider_id: int | None

    @property
    def owner(self) -> str | int | None:
        return self.l_uuid or self.provider_id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything of the tables that SIP needs, at one moment."""

    table: AccountTable = field(default_factory=AccountTable)
    trunks: Mapping[str, Trunk] = field(default_factory=dict)
    """By l_uuid."""
    domains: Mapping[str, Pbx] = field(default_factory=dict)
    """By l_domain, lower case."""
    providers: Mapping[int, Peers] = field(default_factory=dict)
    credentials: Mapping[int, Scoped] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    """Who may register here, by address-of-record."""
    device_domains: frozenset[str] = frozenset()
    configured: tuple[Credentials, ...] = ()
    """`UAC_CREDENTIAL`, as it was defined."""
    reg_active: bool = True
    """False: registrations are sent on an operator's order only."""
    _by_owner: Mapping[str | int | None, tuple[Credentials, ...]] = field(default_factory=dict, repr=False)

    def patched(
        self,
        trunks: Mapping[str, Trunk | None] | None = None,
        domains: Mapping[str, Pbx | None] | None = None,
        providers: Mapping[int, Peers | None] | None = None,
        credentials: Mapping[int, Scoped | None] | None = None,
        reg_active: bool | None = None,
        devices: Mapping[str, Device | None] | None = None,
    ) -> Snapshot:
        """Return a new picture with these rows put in; None takes one out."""
        table = self.table
        if trunks:
            table = table.without(*(key for key, trunk in trunks.items() if trunk is None))
            table = table.with_accounts(trunk.account for trunk in trunks.values() if trunk is not None)
        rows = _merged(self.credentials, credentials)
        known = _merged(self.devices, devices)
        return replace(
            self,
            table=table,
            credentials=rows,
            _by_owner=_by_owner(rows) if credentials else self._by_owner,
            trunks=_merged(self.trunks, trunks),
            domains=_merged(self.domains, domains),
            providers=_merged(self.providers, providers),
            reg_active=self.reg_active if reg_active is None else reg_active,
            devices=known,
            device_domains=frozenset(map(domain_of, known)) if devices else self.device_domains,
        )

    def next_hop(self, l_domain: str) -> bytes | None:
        """URI of the PBX that serves this local domain."""
        pbx = self.domains.get(l_domain.lower())
        return pbx.next_hop if pbx else None

    def calling_trunk(self, uri: str, serves: Callable[[str, str], bool], source: str) -> Trunk | None:
        """Find the account that a PBX means by a URI: by `l_uuid`, else by `l_username`, where several have it with
        `l_domain`; `serves` says whether a local domain is of the PBX at `source`.
        """
        user, at, _ = uri.partition(":")[2].partition("@")
        if not at:
            return None
        row = self.table.get(user)
        if row is not None and serves(row.account.l_domain, source):
            return self.trunks[row.l_uuid]
        rows = [row for row in self.table.of_username(user.encode()) if serves(row.account.l_domain, source)]
        if len(rows) > 1:
            rows = [row for row in rows if row.account.l_domain.lower() == host_of(uri)]
        return self.trunks[rows[0].l_uuid] if len(rows) == 1 else None

    def credentials_for(self, trunk: Trunk) -> tuple[Credentials, ...]:
        """Whatever may answer a challenge to a call of this account; the first that fits the realm is the one.

        The account's own, its rows, those of its provider, then those of everybody, then `configured`. Among account
        and provider one that names a realm goes before one that takes any, which would leave it nothing; of equals
        the youngest, the last defined.
        """
        found, rows = trunk.credentials, self._by_owner
        if not rows and not self.configured:
            return found
        if trunk.provider_id is not None:
            found = (*found, *rows.get(trunk.account.l_uuid, ()), *rows.get(trunk.provider_id, ()))
        else:
            found = (*found, *rows.get(trunk.account.l_uuid, ()))
        return (*sorted(found, key=_any_realm), *rows.get(None, ()), *reversed(self.configured))

    def provider_peers(self) -> Peers:
        """Who may bring us calls: configured addresses, and the hosts that accounts register and call at."""
        hosts = {host for trunk in self.trunks.values() for host in trunk.hosts}
        return _union(self.providers.values(), hosts)

    def udp_only_peers(self) -> Peers:
        """Who gets long requests over UDP: providers that say so, and the hosts their accounts register at."""
        rules = {pk for pk, peers in self.providers.items() if peers.udp_only}
        hosts = {host for trunk in self.trunks.values() if trunk.provider_id in rules for host in trunk.hosts}
        return _union((self.providers[pk] for pk in rules), hosts)

    def tls_rule(self, asked: set[str], holds: Callable[[Peers], bool]) -> tuple[TlsRule, set[str]]:
        """The rule for host names that are connected to, and the names of their provider; `holds` says whether an
        address is one of a provider's.
        """
        providers = {trunk.provider_id for trunk in self.trunks.values() if asked & trunk.hosts}
        for pk, peers in self.providers.items():
            if pk in providers or asked & peers.hosts or holds(peers):
                return peers.tls, {name for name in peers.hosts if numeric(name) is None}
        return TlsRule(), set()

    def pbx_peers(self) -> Peers:
        return _union((pbx.peers for pbx in self.domains.values()), set())


def trunk_of(row: UacReg) -> Trunk:
    """Make the engine's value of a row; an account without outbound proxy or socket takes its provider's.

    One whose secret no key of ours opens is a trunk too: it can be called, and its page tells why it does not register.
    """
    options: UacRegOptions | None = getattr(row, "options", None)
    provider = options.provider if options else None
    password, ha1, problem = _secrets_of(row)
    authentication = options.authentication if options else UacRegOptions.Authentication.PASSWORD
    account = UacAccount(
        l_uuid=row.l_uuid, l_username=row.l_username, l_domain=row.l_domain,
        r_username=row.r_username, r_domain=row.r_domain, realm=row.realm,
        auth_username=row.auth_username, auth_password=password, auth_ha1=ha1,
        auth_proxy=row.auth_proxy or (provider.proxy if provider else ""),
        registrars=uris_of((options.registrars if options else "") or (provider.registrars if provider else "")),
        at_once=options.at_once if options else False,
        expires=row.expires, enabled=row.enabled, reg_delay=row.reg_delay,
        contact_addr=row.contact_addr, contact_user=row.contact_user,
        socket=row.socket or (provider.socket if provider else ""),
        digest_minimum=options.digest_minimum if options else "",
        qualify=options.qualify if options else 0, gin=options.gin if options else False,
        instance=options.named_instance if options else "", problem=problem,
        empty_password=authentication == UacRegOptions.Authentication.EMPTY and not (password or ha1),
    )
    anonymous = options is not None and options.inbound_identity == UacRegOptions.InboundIdentity.ANONYMOUS
    from_any = options is not None and options.inbound_from == UacRegOptions.InboundFrom.ANY_PROVIDER
    proxy = options.outbound_proxy if options else ""
    limits = limits_of(options.numbers, options.max_calls, options.max_rate) if options else NO_LIMITS
    by_address = authentication == UacRegOptions.Authentication.NONE
    return Trunk(account, anonymous, provider.pk if provider else None, proxy, from_any, limits, by_address)


def departing_account(row: Departure) -> UacAccount:
    """Make the engine's value of the row that a binding was made for; what only local users see it had no more."""
    password, ha1, problem = _secrets_of(row)
    return UacAccount(
        l_uuid=row.l_uuid, l_username="", l_domain="", r_username=row.r_username, r_domain=row.r_domain,
        realm=row.realm, auth_username=row.auth_username, auth_password=password, auth_ha1=ha1,
        auth_proxy=row.auth_proxy, contact_addr=row.contact_addr, contact_user=row.contact_user, socket=row.socket,
        digest_minimum=row.digest_minimum, gin=";bnc" in row.contact, instance=row.instance,
        problem=problem,
        empty_password=not (password or ha1),
    )


def _secrets_of(row: UacReg | Departure) -> tuple[str, str, str]:
    """Password, HA1, and the cause key where no key of ours opens them."""
    try:
        return row.auth_password.reveal(), row.auth_ha1.reveal(), ""
    except UndecryptableSecret as error:
        log.error("The account %s cannot register. %s", row.l_uuid, error)
        return "", "", UNREADABLE


def configured_credentials(static: Iterable[StaticCredential]) -> tuple[Credentials, ...]:
    """Make the engine's values of `UAC_CREDENTIAL`; uac_auth(1) takes their passwords for HA1."""
    return tuple(
        Credentials(entry.username.encode(), entry.password.encode(), realm=entry.realm.encode()) for entry in static
    )


def pbx_of(row: Domain) -> Pbx:
    peers = peers_of(row.addresses, (row.next_hop,))
    return Pbx(row.next_hop.encode(), peers)


def provider_of(row: Provider) -> Peers:
    peers = peers_of(row.addresses, (row.domain, row.proxy, *uris_of(row.registrars)))
    rule = TlsRule(
        row.tls_name == Provider.TlsName.SRV_TARGET, row.tls_wildcard,
        row.tls_fingerprint.replace(":", "").lower(), row.tls_client_certificate,
    )
    return replace(peers, udp_only=row.size_rule == Provider.SizeRule.UDP_ONLY, tls=rule, reg_rate=row.reg_rate)


def credential_of(row: Credential) -> Scoped | None:
    """Make the engine's value of a row; None when no key of ours opens its secret."""
    try:
        credentials = Credentials(
            row.username.encode(), row.password.reveal().encode(), row.ha1.reveal().encode(), row.realm.encode(),
        )
    except UndecryptableSecret as error:
        log.error("The credential %s (%s) answers no challenge. %s", row.pk, row, error)
        return None
    return Scoped(credentials, row.account_id, row.provider_id)


def device_of(row: models.Device) -> Device | None:
    """Make the engine's value of a row; None when it may not register, or no key of ours opens its secret."""
    if not row.enabled:
        return None
    try:
        secret = Credentials(row.username.encode(), row.password.reveal().encode(), row.ha1.reveal().encode())
    except UndecryptableSecret as error:
        log.error("The device %s cannot register. %s", row.aor, error)
        return None
    return Device(row.aor, secret, row.max_contacts, row.digest == models.Device.Digest.MD5)


def uris_of(text: str) -> tuple[str, ...]:
    """Read what `validators.sip_uris` accepts."""
    return tuple(text.replace(",", " ").split())


def peers_of(addresses: str, uris: Iterable[str]) -> Peers:
    """Read addresses or networks, one a line, and the hosts of some URIs.

    A line that is neither is a host name; what is no name either admits nobody (services refuse it before it is
    stored).
    """
    hosts = {host_of(uri) for uri in uris if uri}
    networks: list[Network] = []
    for line in addresses.split():
        if "/" in line:
            try:
                networks.append(ipaddress.ip_network(line, strict=False))
            except ValueError:
                continue
        else:
            hosts.add(host_of(line))
    hosts.discard("")
    return Peers(frozenset(hosts), tuple(networks))


@lru_cache(maxsize=4096)
def host_of(uri: str) -> str:
    """Return the host of a SIP URI, or of a bare `host[:port]`; IPv6 without brackets, lower case."""
    text = uri.strip().strip("<>")
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() in ("sip", "sips"):
        text = rest
    text = text.partition("?")[0].rpartition("@")[2].partition(";")[0]
    if text.startswith("["):
        return text[1:].partition("]")[0].lower()
    if text.count(":") > 1:
        return text.lower()
    return text.partition(":")[0].lower()


def numeric(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that `host` spells out, None when it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _any_realm(credentials: Credentials) -> bool:
    return not credentials.realm


def _by_owner(rows: Mapping[int, Scoped]) -> Mapping[str | int | None, tuple[Credentials, ...]]:
    found: dict[str | int | None, list[Credentials]] = {}
    for _, row in sorted(rows.items(), reverse=True):
        found.setdefault(row.owner, []).append(row.credentials)
    return {owner: tuple(credentials) for owner, credentials in found.items()}


def _merged(rows: Mapping[Key, Value], patch: Mapping[Key, Value | None] | None) -> Mapping[Key, Value]:
    if not patch:
        return rows
    merged = {**rows}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _union(all_peers: Iterable[Peers], hosts: set[str]) -> Peers:
    networks: dict[Network, None] = {}
    for peers in all_peers:
        hosts |= peers.hosts
        networks.update(dict.fromkeys(peers.networks))
    hosts.discard("")
    return Peers(frozenset(hosts), tuple(networks))
