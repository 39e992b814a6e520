"""SIP and SIPS URIs as values (RFC 3261 §19.1, RFC 5118); other schemes are only told apart, never taken apart."""

from __future__ import annotations

from dataclasses import dataclass

from sipengine.exceptions import ParseError, UnsupportedUriScheme

KNOWN_SCHEMES = frozenset({b"sip", b"sips", b"tel", b"urn"})
_HOST = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
_V6 = frozenset(b"0123456789abcdefABCDEF:.")
_MUST_MATCH = (b"user", b"ttl", b"method", b"maddr", b"transport")


def split_host_port(text: bytes) -> tuple[bytes, int | None]:
    """`host`, `host:port`, `[v6]`, `[v6]:port` → host as it stands and port; ParseError for what is neither."""
    if text[:1] == b"[":
        host, bracket, rest = text.partition(b"]")
        if not bracket or (rest and rest[:1] != b":"):
            raise ParseError("an IPv6 reference has no ']'")
        if not _V6.issuperset(host[1:]) or host.find(b":") < 0:
            raise ParseError("no IPv6 address stands between '[' and ']'")
        host += b"]"
        port = rest[1:]
        colon = rest[:1]
    else:
        host, colon, port = text.partition(b":")
        if not _HOST.issuperset(host):
            raise ParseError("a host holds a character that no host may hold")
    if not colon:
        return host, None
    if not port.isdigit() or len(port) > 9 or not 0 < int(port) < 65536:
        raise ParseError("a port is no number from 1 to 65535")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class SipUri:
    """`sip:user:password@host:port;parameters?headers`; every part as it stood on the wire."""

    scheme: bytes
    """Lower case."""
    user: bytes | None
    """With password, still escaped; None when there is no '@'."""
    host: bytes
    port: int | None = None
    parameters: bytes = b""
    """With its leading ';'."""
    headers: bytes = b""
    """With its leading '?'."""

    @classmethod
    def parse(cls, text: bytes | str) -> SipUri:
        if isinstance(text, str):
            text = text.encode()
        scheme, colon, rest = text.partition(b":")
        scheme = scheme.lower()
        if not colon or not scheme:
            raise ParseError("a URI has no scheme")
        if scheme not in (b"sip", b"sips"):
            raise UnsupportedUriScheme("the scheme of a URI is neither sip nor sips")
        user: bytes | None = None
        # RFC 3261 §25.1: ';', '?', '/' and '&' may stand in the user part, '@' may not
        before, at, after = rest.partition(b"@")
        if at:
            user, rest = before, after
            if not user:
                raise ParseError("a URI has an empty user part")
        rest, question, headers = rest.partition(b"?")
        hostport, semicolon, parameters = rest.partition(b";")
        host, port = split_host_port(hostport.strip())
        if not host:
            raise ParseError("a URI has no host")
        return cls(scheme, user, host, port, semicolon + parameters, question + headers)

    def __bytes__(self) -> bytes:
        return b"%b:%b%b%b%b%b" % (
            self.scheme,
            b"" if self.user is None else self.user + b"@",
            self.host,
            b"" if self.port is None else b":%d" % self.port,
            self.parameters,
            self.headers,
        )

    def __str__(self) -> str:
        return bytes(self).decode(errors="replace")

    @property
    def hostport(self) -> bytes:
        return self.host if self.port is None else b"%b:%d" % (self.host, self.port)

    @property
    def default_port(self) -> int:
        """The port that is meant where none stands (RFC 3261 §19.1.2)."""
        return 5061 if self.scheme == b"sips" or (self.param(b"transport") or b"").lower() == b"tls" else 5060

    def param(self, name: bytes) -> bytes | None:
        """Value of a URI parameter, b"" for a flag, None when absent."""
        return self._params().get(name)

    def _params(self) -> dict[bytes, bytes]:
        params: dict[bytes, bytes] = {}
        for part in self.parameters.split(b";"):
            name, _, value = part.partition(b"=")
            if name:
                params.setdefault(name.strip().lower(), value.strip())
        return params

    def equivalent(self, other: SipUri) -> bool:
        """Compare by RFC 3261 §19.1.4 (not transitive, so not `==`)."""
        if self.scheme != other.scheme or self.port != other.port or self.host.lower() != other.host.lower():
            return False
        if (self.user is None) != (other.user is None) or unescape(self.user or b"") != unescape(other.user or b""):
            return False
        mine, theirs = self._params(), other._params()
        for name in {*mine, *theirs}:
            if (name in mine) != (name in theirs):
                if name in _MUST_MATCH:
                    return False
            elif unescape(mine[name]).lower() != unescape(theirs[name]).lower():
                return False
        return _header_set(self.headers) == _header_set(other.headers)


def unescape(text: bytes) -> bytes:
    """Resolve %hh escapes; a '%' that begins none stays."""
    if b"%" not in text:
        return text
    head, *parts = text.split(b"%")
    out = [head]
    for part in parts:
        try:
            out.append(bytes([int(part[:2], 16)]) + part[2:] if len(part) >= 2 else b"%" + part)
        except ValueError:
            out.append(b"%" + part)
    return b"".join(out)


def _header_set(headers: bytes) -> list[tuple[bytes, bytes]]:
    pairs = [part.partition(b"=") for part in headers[1:].split(b"&") if part]
    return sorted((unescape(name).lower(), unescape(value)) for name, _, value in pairs)


def scheme_of(uri: bytes) -> bytes:
    return uri.partition(b":")[0].lower()
