"""Everything that trunkmgr takes from the environment: each variable once, typed, with its default and a sentence.

`.env.example` is written from this file (`python -m trunkmgr.env`), and a test holds the two together. Nothing
else in the product reads `os.environ`.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from trunkmgr import foreign

BASE_DIR = Path(__file__).resolve().parent.parent

T = TypeVar("T")

TRANSPORTS = ("udp", "tcp", "tls", "ws", "wss")
#: Over these we call others, in the order in which they are tried where DNS leaves the choice to us.
OUTGOING = TRANSPORTS[:3]

_ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:]+\])(:\d{1,5})?")

#: Parameters of the seed module that trunkmgr has no use for, and what stands in their place.
REPLACED: dict[str, str] = {
    "UAC_RESTORE_DLG": "originals are always kept both by the worker and, sealed, in Record-Route",
    "UAC_REG_KEEP_CALLID": "a refresh always keeps its Call-ID, as with 1 (RFC 3261 §10.2.4)",
    "UAC_REG_GC_INTERVAL": "the account table is swapped as a whole and needs no collection",
    "UAC_REG_HASH_SIZE": "the account table grows by itself",
    "UAC_EVENT_CALLBACK": "the method event_uac_reply of the routing class is called with each reply",
    "UAC_RELOAD_DELTA": "a changed row takes effect by itself, there is no reload",
}


def dotted_path(text: str) -> str:
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", text):
        raise ValueError("write module.Class, for example myrouting.MyRouting")
    return text


def boolean(text: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError("write 1 or 0")


def one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"write one of {', '.join(allowed)}")
        return text.lower()

    return parse


def words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,]+", text) if word)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 1 <= value <= 3600:
        raise ValueError("write seconds from 1 to 3600")
    return value


def whole_seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 86400:
        raise ValueError("write whole seconds from 0 to 86400")
    return int(text)


def retry_seconds(text: str) -> int:
    value = whole_seconds(text)
    if 0 < value < 5:
        raise ValueError("write 0, or at least 5 seconds: asking more often gets an address banned")
    return value


def folder(text: str) -> Path:
    path = Path(text).expanduser()
    path = path if path.is_absolute() else Path.cwd() / path
    # The wake-up socket lives there, and Linux limits the path of a Unix socket to 107 bytes.
    if len(os.fsencode(path / "node.sock")) > 107:
        raise ValueError("the path is too long for a Unix socket; choose one under 97 bytes")
    return path


def host_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("write HOST:PORT, for example 127.0.0.1:8000")
    return text


def local_socket(text: str) -> str:
    text = text.lower()
    if text:
        listeners(text)
        if len(words(text)) > 1:
            raise ValueError("name one socket, as in TRUNKMGR_SIP_LISTEN")
        if text.partition(":")[0] not in OUTGOING:
            raise ValueError("name a udp, tcp or tls socket: nobody is called over WebSocket who has not connected")
    return text


def listeners(text: str) -> tuple[str, ...]:
    entries = words(text)
    if not entries:
        raise ValueError("name at least one socket, for example udp:127.0.0.1:5060")
    for entry in entries:
        transport, _, rest = entry.partition(":")
        try:
            host_port(rest)
            ipaddress.ip_address(rest.rpartition(":")[0].strip("[]"))
        except ValueError as error:
            raise ValueError(f"{entry!r} is not TRANSPORT:IP:PORT, for example udp:127.0.0.1:5060") from error
        if transport not in TRANSPORTS:
            raise ValueError(f"{entry!r} starts with {transport!r}; write one of {', '.join(TRANSPORTS)}")
    return entries


def networks(text: str) -> tuple[str, ...]:
    entries = words(text)
    for entry in entries:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError:
            raise ValueError(f"{entry!r} is no network, for example 198.51.100.0/24; 0.0.0.0/0 is anywhere") from None
    return tuple(str(ipaddress.ip_network(entry, strict=False)) for entry in entries)


def origins(text: str) -> tuple[str, ...]:
    entries = tuple(entry.lower() for entry in words(text))
    for entry in entries:
        if entry != "*" and not _ORIGIN.fullmatch(entry):
            raise ValueError(f"{entry!r} is no origin of web pages, for example https://phone.example; * is any")
    return entries


def socket_sources(text: str) -> dict[str, str]:
    sources: dict[str, str] = {}
    for entry in words(text):
        name, _, kind = entry.partition("=")
        try:
            _socket_parts(name)
        except ValueError:
            kind = ""
        if kind not in ("provider", "pbx"):
            raise ValueError(f"{entry!r} is not TRANSPORT:IP:PORT=provider or =pbx, for example udp:192.0.2.1:5060=pbx")
        sources[name] = kind
    return sources


def rate(text: str) -> float:
    if not text.isascii() or not text.isdigit() or int(text) > 1_000_000:
        raise ValueError("write whole requests a second, 0 for no limit")
    return float(text)


def file(text: str) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError("write the absolute path of a file, for example /etc/ssl/trunkmgr.pem")
    return path


def nameservers(text: str) -> tuple[str, ...]:
    entries = words(text)
    for entry in entries:
        try:
            ipaddress.ip_address(entry.strip("[]"))
        except ValueError:
            try:
                host, _, port = host_port(entry).rpartition(":")
                ipaddress.ip_address(host.strip("[]"))
                usable = int(port) > 0
            except ValueError:
                usable = False
            if not usable:
                raise ValueError(f"{entry!r} is not IP or IP:PORT, for example 192.0.2.53") from None
    return entries


def host_map(text: str) -> dict[str, tuple[str, ...]]:
    hosts: dict[str, tuple[str, ...]] = {}
    for entry in words(text):
        name, _, address = entry.partition("=")
        try:
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?", name):
                raise ValueError
            address = str(ipaddress.ip_address(address.strip("[]")))
        except ValueError:
            raise ValueError(f"{entry!r} is not NAME=IP, for example sip.provider.example=192.0.2.1") from None
        name = name.rstrip(".").lower()
        hosts[name] = (*hosts.get(name, ()), address)
    return hosts


def node_name(text: str) -> str:
    # Channels allows these in a channel name, and the worker's is sip.NODE.
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise ValueError("write 1 to 64 letters, digits, dots, hyphens or underscores")
    return text


def ring(text: str) -> tuple[str, ...]:
    """Parse keys, newest first; each is the URL-safe base64 form of 32 bytes.  An error never repeats a key."""
    keys = words(text)
    for position, key in enumerate(keys, 1):
        try:
            size = len(base64.b64decode(key, altchars=b"-_", validate=True))
        except (binascii.Error, ValueError):
            size = -1
        if size != 32:
            raise ValueError(
                f"key {position} is not 32 bytes in URL-safe base64; make one with: "
                'python3 -c "import base64,os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())"'
            )
    return keys


def database_url(text: str) -> str:
    if text and urlsplit(text).scheme not in {"sqlite", "postgres", "postgresql", "psql", "pgsql"}:
        raise ValueError("write sqlite:////absolute/path or postgres://USER:PASSWORD@HOST:PORT/NAME")
    return text


def table_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", text):
        raise ValueError("write the name of a table: letters, digits and underscores")
    return text


def redis_url(text: str) -> str:
    if text and urlsplit(text).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("write redis://HOST:PORT/NUMBER")
    return text


def rr_param(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9\-_.!~*']{1,32}", text):
        raise ValueError("write a URI parameter name (RFC 3261 §25.1), for example vsf")
    return text


def avp(text: str) -> str:
    if text and not re.fullmatch(r"\$avp\([A-Za-z0-9_:.-]+\)", text):
        raise ValueError("write an AVP as a routing script names it, for example $avp(s:original_from)")
    return text


def pseudo_variable(text: str) -> str:
    if text and not re.fullmatch(r"\$[A-Za-z_]+(\([^()\s]+\))?", text):
        raise ValueError("write a pseudo-variable as a routing script names it, for example $avp(s:auth_user)")
    return text


@dataclass(frozen=True, slots=True)
class StaticCredential:
    """One entry of the seed's parameter `credential`; the password may be an HA1, as `uac_auth(1)` says."""

    username: str
    realm: str
    password: str = field(repr=False)


def credentials(text: str) -> tuple[StaticCredential, ...]:
    """Parse user:realm:password, the entries separated by white space.  An error never repeats an entry."""
    entries = []
    for position, entry in enumerate(text.split(), 1):
        # Nothing can be quoted; only the password may hold a colon.
        parts = entry.split(":", 2)
        if len(parts) != 3 or not all(parts) or not entry.isprintable():
            raise ValueError(
                f"entry {position} is not USER:REALM:PASSWORD, with entries separated by white space "
                "(a user or a realm with : or a space in it goes to the admin: Credentials)"
            )
        entries.append(StaticCredential(*parts))
    return tuple(entries)


def a_minute(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 60_000:
        raise ValueError("write a number from 1 to 60000")
    return int(text)


def log_level(text: str) -> str:
    if text.upper() not in logging.getLevelNamesMapping():
        raise ValueError("write DEBUG, INFO, WARNING or ERROR")
    return text.upper()


def variable(
    name: str, parse: Callable[[str], T], default: str | Callable[[], str], sentence: str, *, secret: bool = False,
) -> T:
    """Declare one variable.  A callable default is one that depends on the machine."""
    about: dict[str, Any] = {
        "name": name, "parse": parse, "default": default, "sentence": sentence, "secret": secret,
    }
    return field(metadata=about, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """The environment, parsed.  Secrets never show in `repr`."""

    data_dir: Path = variable(
        "TRUNKMGR_DATA_DIR", folder, lambda: str(BASE_DIR / "data"),
        "Folder for the SQLite database, the keys and the wake-up socket; default: data/ beside manage.py.",
    )
    http: str = variable("TRUNKMGR_HTTP", host_port, "127.0.0.1:8000", "HOST:PORT of the web server.")
    sip_listen: tuple[str, ...] = variable(
        "TRUNKMGR_SIP_LISTEN", listeners, "udp:0.0.0.0:5060,tcp:0.0.0.0:5060",
        "SIP sockets, separated by commas: TRANSPORT:IP:PORT, for example tls:0.0.0.0:5061; over ws and wss browsers "
        "come as devices.",
    )
    ws_origins: tuple[str, ...] = variable(
        "TRUNKMGR_WS_ORIGINS", origins, "",
        "Web pages that may connect over ws and wss, by origin: https://phone.example; * is any, empty: none, only "
        "programs that are no browser.",
    )
    tls_certificate: Path | None = variable(
        "TRUNKMGR_TLS_CERTIFICATE", file, "",
        "PEM file of our certificate and those up to its root; empty: over TLS only we connect. A new file is noticed.",
    )
    tls_key: Path | None = variable(
        "TRUNKMGR_TLS_KEY", file, "", "PEM file of its key; empty: it stands in TRUNKMGR_TLS_CERTIFICATE.",
    )
    tls_ca: Path | None = variable(
        "TRUNKMGR_TLS_CA", file, "",
        "PEM file of the authorities that may sign certificates of peers; empty: those of the system.",
    )
    tls_minimum: str = variable(
        "TRUNKMGR_TLS_MINIMUM", one_of("1.2", "1.3"), "1.2", "Lowest version of TLS that is spoken: 1.2 or 1.3.",
    )
    devices_from: tuple[str, ...] = variable(
        "TRUNKMGR_DEVICES_FROM", networks, "",
        "Networks from where devices may register, separated by commas: 0.0.0.0/0 is anywhere; empty: nowhere.",
    )
    sip_sources: dict[str, str] = variable(
        "TRUNKMGR_SIP_SOURCES", socket_sources, "",
        "Sockets for one kind of peer only, separated by commas: TRANSPORT:IP:PORT=provider or =pbx; others take both.",
    )
    sip_rate: float = variable(
        "TRUNKMGR_SIP_RATE", rate, "0",
        "New requests a second that one address may send, twice as many at once, its network (/24, /64) eight times as "
        "many; more get 503. 0: no limit.",
    )
    ban_seconds: int = variable(
        "TRUNKMGR_BAN_SECONDS", whole_seconds, "600",
        "How long an address is banned that is nobody's and connects again and again; 0: never. Peers never are.",
    )
    nameservers: tuple[str, ...] = variable(
        "TRUNKMGR_NAMESERVERS", nameservers, "",
        "DNS servers for providers and PBXs, separated by commas: IP or IP:PORT; empty takes those of the system.",
    )
    hosts: dict[str, tuple[str, ...]] = variable(
        "TRUNKMGR_HOSTS", host_map, "",
        "Addresses that go before DNS (SRV included), separated by commas: NAME=IP; repeat a name to give it several.",
    )
    node: str = variable(
        "TRUNKMGR_NODE", node_name, lambda: re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "node",
        "Name of this SIP worker, the same over restarts; default: the host name.",
    )
    secret_key: str = variable(
        "TRUNKMGR_SECRET_KEY", str, "",
        "Django's secret key; embedded makes one in the data folder when none is given.", secret=True,
    )
    field_keys: tuple[str, ...] = variable(
        "TRUNKMGR_FIELD_KEYS", ring, "",
        "Keys of stored passwords, newest first; embedded makes one in the data folder when none is given.",
        secret=True,
    )
    seal_keys: tuple[str, ...] = variable(
        "TRUNKMGR_SEAL_KEYS", ring, "",
        "Keys of the Record-Route token, newest first; embedded makes one in the data folder when none is given.",
        secret=True,
    )
    allowed_hosts: tuple[str, ...] = variable(
        "TRUNKMGR_ALLOWED_HOSTS", words, "localhost,127.0.0.1,[::1]",
        "Host names that the web server answers to, separated by commas.",
    )
    proxies: tuple[str, ...] = variable(
        "TRUNKMGR_PROXIES", networks, "127.0.0.1,::1",
        "TLS proxies in front of the web server, addresses or networks, separated by commas: what they say of a "
        "visitor (X-Forwarded-For, X-Forwarded-Proto) is believed.",
    )
    https: bool = variable(
        "TRUNKMGR_HTTPS", boolean, "0",
        "1: pages are reached over https only, through a TLS proxy; cookies go no other way. Nobody can sign in over "
        "http then.",
    )
    api_rate: int = variable(
        "TRUNKMGR_API_RATE", a_minute, "60", "Requests a minute that one token or user may send to the HTTP API.",
    )
    log_level: str = variable("TRUNKMGR_LOG_LEVEL", log_level, "INFO", "DEBUG, INFO, WARNING or ERROR.")
    database_url: str = variable(
        "DATABASE_URL", database_url, "",
        "postgres://USER:PASSWORD@HOST:PORT/NAME; default: an SQLite file in the data folder.", secret=True,
    )
    redis_url: str = variable(
        "REDIS_URL", redis_url, "",
        "redis://HOST:PORT/NUMBER joins several processes; empty runs everything in one (embedded).", secret=True,
    )
    routing: str = variable(
        "TRUNKMGR_ROUTING", dotted_path, "trunkmgr.sip.routing.TrunkRouting",
        "Dotted path of the routing class: TrunkRouting, or a subclass of your own (docs/routing.md).",
    )
    restore_mode: str = variable(
        "UAC_RESTORE_MODE", one_of("none", "manual", "auto"), "auto",
        "Whether a rewritten From or To is put back: none, manual (replies only) or auto (the whole dialog).",
    )
    restore_codec: str = variable(
        "UAC_RESTORE_CODEC", one_of("sealed", "kamailio"), "sealed",
        "Form of the Record-Route value: sealed (encrypted) or kamailio (the seed module's XOR and base64).",
    )
    restore_passwd: str = variable(
        "UAC_RESTORE_PASSWD", str, "", "XOR password of the codec kamailio; empty hides nothing.", secret=True,
    )
    rr_from_store_param: str = variable(
        "UAC_RR_FROM_STORE_PARAM", rr_param, "vsf", "Record-Route parameter that carries the original From.",
    )
    rr_to_store_param: str = variable(
        "UAC_RR_TO_STORE_PARAM", rr_param, "vst", "Record-Route parameter that carries the original To.",
    )
    restore_from_avp: str = variable(
        "UAC_RESTORE_FROM_AVP", avp, "", "AVP that gets the original From where it is replaced; empty: none.",
    )
    restore_to_avp: str = variable(
        "UAC_RESTORE_TO_AVP", avp, "", "AVP that gets the original To where it is replaced; empty: none.",
    )
    credentials: tuple[StaticCredential, ...] = variable(
        "UAC_CREDENTIAL", credentials, "",
        "Credentials for challenged calls, USER:REALM:PASSWORD, separated by white space; the last goes first.",
        secret=True,
    )
    auth_realm_avp: str = variable(
        "UAC_AUTH_REALM_AVP", pseudo_variable, "",
        "Pseudo-variable with the realm for uac_auth; its value empty: any realm. All three UAC_AUTH_..._AVP or none.",
    )
    auth_username_avp: str = variable(
        "UAC_AUTH_USERNAME_AVP", pseudo_variable, "", "Pseudo-variable with the user name for uac_auth.",
    )
    auth_password_avp: str = variable(
        "UAC_AUTH_PASSWORD_AVP", pseudo_variable, "", "Pseudo-variable with the password or HA1 for uac_auth.",
    )
    reg_db_url: str = variable(
        "UAC_REG_DB_URL", foreign.url, "",
        "A Kamailio database whose uacreg table is followed: sqlite:///PATH, postgres://… or mysql://…; empty: none.",
        secret=True,
    )
    reg_db_table: str = variable("UAC_REG_DB_TABLE", table_name, "uacreg", "Name of that table in UAC_REG_DB_URL.")
    reg_db_write: bool = variable(
        "UAC_REG_DB_WRITE", boolean, "0",
        "1: edits of accounts of UAC_REG_DB_URL are written there, passwords in clear text; 0: it is only read.",
    )
    reg_use_domain: bool = variable(
        "UAC_REG_USE_DOMAIN", boolean, "0", "1: a lookup by local user also compares the local domain.",
    )
    reg_active: bool = variable(
        "UAC_REG_ACTIVE", boolean, "1",
        "0: no REGISTER is sent but on an operator's order; `manage.py uac reg_active` changes it, and that is kept.",
    )
    reg_retry_interval: int = variable(
        "UAC_REG_RETRY_INTERVAL", retry_seconds, "0",
        "Longest pause in seconds before a failed REGISTER is sent again; 0: 15 minutes. It is never given up.",
    )
    reg_random_delay: int = variable(
        "UAC_REG_RANDOM_DELAY", whole_seconds, "0",
        "Seconds over which the first REGISTERs after a start are spread, where a row has no reg_delay of its own.",
    )
    default_socket: str = variable(
        "UAC_DEFAULT_SOCKET", local_socket, "",
        "TRANSPORT:IP:PORT, one of TRUNKMGR_SIP_LISTEN: our own requests leave from it where it reaches their target.",
    )
    reg_contact_addr: str = variable(
        "UAC_REG_CONTACT_ADDR", str, "",
        "host[:port][;parameters] of our Contact; empty takes the address that the route to the provider uses.",
    )
    reg_learn_address: bool = variable(
        "UAC_REG_LEARN_ADDRESS", boolean, "1",
        "Behind NAT: our Contact over UDP names the address that the provider sees us as, unless one is set.",
    )
    reg_timer_interval: float = variable(
        "UAC_REG_TIMER_INTERVAL", seconds, "10", "Seconds between two ticks of beat, which plan the refreshes.",
    )
    replaced: tuple[str, ...] = ()
    """Variables of the seed's parameters that are set and have no effect here."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Env:
        """Parse `environ`; raise ImproperlyConfigured that names variable, value and cure."""
        values: dict[str, Any] = {}
        for item in fields(cls):
            if not item.metadata:
                continue
            about = item.metadata
            default = about["default"]
            text = environ.get(about["name"], "").strip() or (default if isinstance(default, str) else default())
            try:
                values[item.name] = about["parse"](text)
            except ValueError as error:
                shown = "the given value" if about["secret"] else repr(text)
                raise ImproperlyConfigured(f"{about['name']}: {shown} cannot be used; {error}.") from None
        given = {part: bool(values[f"auth_{part}_avp"]) for part in ("realm", "username", "password")}
        if any(given.values()) and not all(given.values()):
            missing = ", ".join(f"UAC_AUTH_{part.upper()}_AVP" for part, there in given.items() if not there)
            raise ImproperlyConfigured(f"{missing}: not set, though the others are; set all three or none.")
        if (wanted := values["default_socket"]) and not _listens_on(values["sip_listen"], wanted):
            raise ImproperlyConfigured(
                f"UAC_DEFAULT_SOCKET: {wanted!r} is none of ours; name a socket of TRUNKMGR_SIP_LISTEN "
                f"({', '.join(values['sip_listen'])})."
            )
        for name in values["sip_sources"]:
            if not _listens_on(values["sip_listen"], name):
                raise ImproperlyConfigured(
                    f"TRUNKMGR_SIP_SOURCES: {name!r} is none of ours; name a socket of TRUNKMGR_SIP_LISTEN "
                    f"({', '.join(values['sip_listen'])})."
                )
        return cls(**values, replaced=tuple(name for name in REPLACED if environ.get(name)))

    @property
    def embedded(self) -> bool:
        """Everything in one process, with nothing shared but the database."""
        return not self.redis_url

    @property
    def http_host(self) -> str:
        return self.http.rpartition(":")[0].strip("[]")

    @property
    def http_port(self) -> int:
        return int(self.http.rpartition(":")[2])

    @property
    def node_socket(self) -> Path:
        """Unix datagram socket on which an embedded worker is woken."""
        return self.data_dir / "node.sock"


def _listens_on(sockets: Iterable[str], wanted: str) -> bool:
    """Whether one of our sockets is `wanted`, or listens on all addresses of the machine at its port."""
    transport, host, port = _socket_parts(wanted)
    return any(
        (transport, port) == (own_transport, own_port)
        and (own == host or (own.is_unspecified and own.version == host.version))
        for own_transport, own, own_port in map(_socket_parts, sockets)
    )


def _socket_parts(entry: str) -> tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address, str]:
    transport, _, rest = entry.partition(":")
    host, _, port = rest.rpartition(":")
    return transport.lower(), ipaddress.ip_address(host.strip("[]")), port


def example() -> str:
    """Return the text of `.env.example`."""
    lines = [
        "# Written by `python -m trunkmgr.env`. Copy to .env and change what you need; `make run` reads it.",
        "# A value with $, spaces or brackets stands in single quotes.", "",
    ]
    for item in fields(Env):
        if item.metadata:
            default = item.metadata["default"]
            lines += [
                f"# {item.metadata['sentence']}",
                f"# {item.metadata['name']}={default if isinstance(default, str) else ''}",
                "",
            ]
    return "\n".join(lines)


env = Env.read(os.environ)

if __name__ == "__main__":
    (BASE_DIR / ".env.example").write_text(example())
