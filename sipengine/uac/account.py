"""A uacreg account as the engine sees it: the seed table's columns as an immutable value (`uacreg` version 6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from sipengine.uac.digest import Credentials


@dataclass(frozen=True, slots=True)
class UacAccount:
    """One row.  Secrets never show in `repr`."""

    l_uuid: str
    l_username: str
    l_domain: str
    r_username: str
    r_domain: str
    realm: str = ""
    auth_username: str = ""
    auth_password: str = field(default="", repr=False)
    auth_ha1: str = field(default="", repr=False)
    empty_password: bool = False
    """Challenges are answered with an empty password."""
    auth_proxy: str = ""
    """``sip:`` URI that REGISTER goes to; empty: `r_domain` (the host fills in the provider's proxy)."""
    registrars: tuple[str, ...] = ()
    """``sip:`` URIs that REGISTER goes to, one after the other, where nobody at `auth_proxy` serves."""
    at_once: bool = False
    """Bound at `registrars` too, all the time, and not only while the first is silent."""
    further: bool = False
    """Stands for the row's binding at one of its `registrars`, which is `auth_proxy` here."""
    expires: int = 3600
    enabled: bool = True
    reg_delay: int = 0
    contact_addr: str = ""
    """``host[:port][;params]``; empty: the configured address, else the local address of the route to the registrar."""
    contact_user: str = ""
    socket: str = ""
    """``proto:ip:port``; empty: the first listener that reaches the target."""
    digest_minimum: str = ""
    """Weakest digest that it answers, ``MD5`` or ``SHA-256``; empty: as strong as the provider's was before."""
    qualify: int = 0
    """Seconds between two OPTIONS to the server that holds the binding (`uac.qualify`); 0: none."""
    instance: str = ""
    """``urn:uuid:…`` of this account here: its binding is one of RFC 5626 (`uac.outbound`); empty: it is not."""
    gin: bool = False
    """Registers for all numbers of a PBX at once (RFC 6140): a Contact without user, and calls that name the number."""
    problem: str = ""
    """Cause key of what keeps the host from giving a usable value; such an account sends nothing."""

    def same_binding(self, other: UacAccount) -> bool:
        """Whether both rows name the same binding at the same registrar (else the old one must be un-REGISTERed)."""
        return (self.r_username, self.r_domain, self.contact_user, self.contact_addr, self.auth_proxy, self.socket) == (
            other.r_username, other.r_domain, other.contact_user, other.contact_addr, other.auth_proxy, other.socket
        ) and (self.gin, self.instance) == (other.gin, other.instance)

    @property
    def key(self) -> str:
        """What its registration is known by among all."""
        return f"{self.l_uuid}\n{self.auth_proxy}" if self.further else self.l_uuid

    @property
    def contact_key(self) -> tuple[str, str]:
        """User of its Contact and, where that does not name the account, the parameter `line` that does."""
        if self.gin:
            return "", self.l_uuid
        return (self.contact_user, self.l_uuid) if self.contact_user else (self.l_uuid, "")

    @property
    def auth_user(self) -> str:
        return self.auth_username or self.r_username

    @property
    def auth_secret(self) -> tuple[object, ...]:
        """What a challenge is answered with."""
        return (
            self.realm, self.auth_username, self.auth_password, self.auth_ha1, self.digest_minimum, self.empty_password,
        )  # fmt: skip

    def credentials(self, realm: str = "") -> Credentials:
        """The same for the realm that is named; without one for any."""
        return Credentials(
            self.auth_user.encode(), self.auth_password.encode(), self.auth_ha1.encode(), realm.encode(),
            self.digest_minimum.encode(), self.empty_password,
        )

    @property
    def registers_as(self) -> tuple[object, ...]:
        """All that a REGISTER of this row depends on."""
        return (
            *self.auth_secret, self.expires, self.enabled, self.r_username, self.r_domain, self.contact_user,
            self.contact_addr, self.auth_proxy, self.registrars, self.at_once, self.socket, self.gin, self.instance,
            self.problem,
        )  # fmt: skip
