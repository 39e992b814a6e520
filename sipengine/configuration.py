"""What the host may set: names follow the seed module's parameters where it has one."""

from __future__ import annotations

from dataclasses import dataclass, field

from sipengine.uac.digest import Credentials


@dataclass(frozen=True, slots=True)
class Configuration:
    """Immutable; ValueError names the setting, the cause and the cure."""

    user_agent: str = "trunkmgr"
    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    timer_c: float = 181.0
    """RFC 3261 §16.6 step 11: more than three minutes."""
    try_timer: float = 5.0
    """Seconds that an INVITE waits for any answer while another target is left: Timer B (32 s) outlasts a caller."""
    restore_mode: str = "auto"
    """`auto`: replies and requests within the dialog get their From and To back; `manual`: the routing calls
    `uac_restore_from` and `uac_restore_to`; `none`: nothing is stored, replies keep what was changed.
    """
    restore_codec: str = "sealed"
    """`sealed`: authenticated encryption; `kamailio`: the seed module's XOR and base64, which anybody can read."""
    restore_passwd: str = field(default="", repr=False)
    """Password of the `kamailio` codec."""
    restore_from_avp: str = ""
    """``$avp(name)`` that gets the original From as a name-addr where it is replaced; empty: none."""
    restore_to_avp: str = ""
    auth_realm_avp: str = ""
    """Pseudo-variables that `uac_auth` reads first; without a realm in its own they answer any.  All three or none."""
    auth_username_avp: str = ""
    auth_password_avp: str = ""
    """`xlog` never shows it."""
    rr_from_store_param: str = "vsf"
    rr_to_store_param: str = "vst"
    seal_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """32 bytes each, newest first; without one a key is drawn at start and tokens do not survive it."""
    reg_contact_addr: str = ""
    reg_learn_address: bool = True
    """Whether a Contact over UDP names the address that the registrar sees us as, where nothing else is configured."""
    reg_retry_interval: int = 0
    """Seconds that a retry of REGISTER waits at most, Retry-After apart; 0: 15 minutes."""
    reg_random_delay: int = 0
    """Seconds over which the first REGISTERs of a start are spread; a row's own `reg_delay` goes before it."""
    default_socket: str = ""
    """``proto:ip:port`` that requests of our own leave from where no row names another and it reaches the target."""
    credentials: tuple[Credentials, ...] = ()
    """The seed's `credential`: for challenges of exactly their realm that the routing names no credentials for; the
    last one counts first.
    """
    aliases: tuple[str, ...] = ()
    """`host` or `host:port` under which peers name us besides our listeners."""
    dialog_lifetime: float = 43200.0
    """Seconds after the last request of a call until it counts as ended: its BYE may never come."""
    max_transactions: int = 200_000
    """Server transactions; beyond it new requests get 503, requests of a call that stands pass up to a quarter more."""
    max_dialogs: int = 100_000
    """Calls; beyond it new ones get 503.  Every timer belongs to a transaction, a branch or a call: they bound it."""
    max_targets: int = 10
    """Addresses tried for one branch, and branches of one request."""

    def __post_init__(self) -> None:
        if self.restore_mode not in ("none", "manual", "auto"):
            raise ValueError(f"restore_mode is {self.restore_mode!r}; it is one of none, manual, auto")
        if self.restore_codec not in ("sealed", "kamailio"):
            raise ValueError(f"restore_codec is {self.restore_codec!r}; it is one of sealed, kamailio")
        if any(len(key) != 32 for key in self.seal_keys):
            raise ValueError("a seal key has not 32 bytes; make one with `openssl rand -base64 32`")
        if self.timer_c <= 180:
            raise ValueError("timer_c is not above 180 s; RFC 3261 §16.6 asks for more than three minutes")
        if not 4 <= self.try_timer <= 6:
            raise ValueError("try_timer is not from 4 to 6 s; shorter loses slow servers, longer loses callers")
        for name in ("rr_from_store_param", "rr_to_store_param"):
            value = getattr(self, name)
            if not value.isalnum() or not value.isascii() or value in ("lr", "transport", "ftag"):
                raise ValueError(f"{name} is {value!r}; it is a short word of letters and digits of its own")
        names = [self.rr_from_store_param, self.rr_to_store_param]
        if len({*names, *(name + "c" for name in names)}) < 4:  # with a "c" behind it: the check of the codec kamailio
            raise ValueError("rr_from_store_param and rr_to_store_param are too much alike; give each its own word")
